"""200 random kills under load, compared row by row with what was sent: `chimata soak` at length."""

import os
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from benchmarks.result import Goal, Result
from deploy.soak import command
from deploy.soak.command import Options, Report

KILLS = 200
SECONDS_A_KILL = 7.0
"""Time to come back, mostly; two servers' runs have to end within the hour."""
SECONDS_MIN = 6.0
SMALL = 0.1
RATE = 10_000.0
GROUPS = ("kill", "cut", "hang", "clock")
NOTHING = Goal("value", maximum=0)


def run(scale: float = 1.0) -> list[Result]:
    """Kills, rows sent, lost and twice, on the embedded PostgreSQL and on TimescaleDB where set."""
    found = _results(_soak(scale), "embedded")
    if admin := os.environ.get("CHIMATA_TEST_TIMESCALE_URL"):
        name = f"chimata_kills_{os.getpid()}"
        _execute(admin, "CREATE DATABASE {}", name)
        try:
            url = urlunsplit(urlsplit(admin)._replace(path=f"/{name}"))
            found += _results(_soak(scale, url), "timescale")
        finally:
            _execute(admin, "DROP DATABASE {} WITH (FORCE)", name)
    return found


def _soak(scale: float, database: str = "") -> Report:
    """At full size the other faults strike between the kills; small it is the kills alone."""
    kills = max(2, round(KILLS * scale))
    common = Options(kills=kills, rate=RATE, database=database)
    if scale < SMALL:
        small: dict[str, Any] = {
            "faults": ("kill",),
            "rows_a_batch": 100,
            "lag_blocks": 2,
            "late_seconds": 0.0,
        }
        return command.run(replace(common, minutes=SECONDS_MIN / 60, **small))
    return command.run(replace(common, minutes=kills * SECONDS_A_KILL / 60, faults=GROUPS))


def _results(report: Report, server: str) -> list[Result]:
    compared = report.compared
    others = sum(report.strikes.values()) - report.kills
    violated = "; ".join(report.violations) or "nothing violated"
    told = f"seed {report.seed}, {others} other faults beside them; {violated}"
    hours = report.seconds / 3600
    return [
        Result(f"kills_{server}", report.kills, "kills", note=told),
        Result(f"kills_an_hour_{server}", report.kills / hours, "kills/h"),
        Result(f"kills_rows_sent_{server}", compared["sent"], "rows"),
        Result(f"kills_lost_{server}", compared["lost"], "rows", goal=NOTHING),
        Result(f"kills_twice_{server}", compared["twice"], "rows", goal=NOTHING),
        Result(f"kills_violations_{server}", len(report.violations), "kinds", goal=NOTHING),
    ]


def _execute(url: str, statement: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
