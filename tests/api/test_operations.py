"""What operators read of the platform: account by source and hour, gateways, gaps, metrics."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.clock import from_datetime
from core.storage import clocks, ledger
from core.storage.figures import GATEWAYS_MAX, Histogram, ProcessFigures
from core.storage.ledger import HOUR_US, Counts, Pending
from core.storage.pool import DatabaseRole, Session, open_session
from core.tokens import Role
from tests.api.conftest import Served

PATHS = ("/v1/account", "/v1/account?by=hour", "/v1/gateways", "/v1/gateways/g/gaps", "/metrics")
NOW = datetime.now(UTC)
THIS_HOUR = from_datetime(NOW) // HOUR_US * HOUR_US


@pytest.fixture
def session(served: Served) -> Iterator[Session]:
    with open_session(served.database_url, DatabaseRole.INGEST) as opened:
        yield opened


def take(
    session: Session,
    *seqs: int,
    gateway: str = "g",
    sector: str = "farms",
    form: str = "json",
    boot: str = "b",
    hours_ago: int = 0,
) -> None:
    hour = THIS_HOUR - hours_ago * HOUR_US
    entries = [(gateway, boot, seq, form, b"x", hour, 2, 2, 0, 0) for seq in seqs]
    ledger.enter_batches(session, sector, 1, entries)
    n = len(seqs)
    counts = Counts(n, 0, 4 * n, 2 * n, n, n)
    ledger.add_to_account(session, [((gateway, sector, form, hour), counts)])
    session.execute("INSERT INTO sector_log VALUES (%s, 1) ON CONFLICT DO NOTHING", (sector,))
    session.commit()


def pages(served: Served, path: str, name: str) -> tuple[list[Any], int]:
    """All rows of a list, page by page, and how many pages they were."""
    rows: list[Any] = []
    count = 0
    following: str | None = path
    while following:
        answer = served.get(following, Role.OPERATOR)
        assert answer.status_code == 200, answer.text
        rows += answer.json()[name]
        following = answer.json()["next"]
        count += 1
        assert count < 100
    return rows, count


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("role", [None, *Role])
def test_only_operators_read_them(served: Served, path: str, role: Role | None) -> None:
    expected = 401 if role is None else 403
    if role is Role.OPERATOR:
        expected = 404 if path.endswith("/gaps") else 200
    answer = served.get(path, role)
    assert answer.status_code == expected
    assert answer.headers["cache-control"] == "no-store"


def test_the_account_by_source_is_paged(served: Served, session: Session) -> None:
    for sector in ("farms", "ports"):
        for number in range(7):
            take(session, 0, 2, gateway=f"g{number}", sector=sector, form="json|,x", boot=sector)
    rows, count = pages(served, "/v1/account?limit=5", "account")
    assert [(r["sector"], r["gateway"]) for r in rows] == [
        (sector, f"g{number}") for sector in ("farms", "ports") for number in range(7)
    ]
    assert count == 3
    assert all(r["adds_up"] and r["hour"] is None for r in rows)
    assert {r["missing"] for r in rows} == {1}


def test_the_account_by_hour(served: Served, session: Session) -> None:
    for hours_ago in (0, 1, 2, 30):
        take(session, 100 - hours_ago, hours_ago=hours_ago)
        take(session, 100 - hours_ago, hours_ago=hours_ago, gateway="h", sector="ports")
    rows, count = pages(served, "/v1/account?by=hour&limit=4", "account")
    assert count == 2
    assert [(r["hour"], r["sector"]) for r in rows] == sorted(
        (r["hour"], r["sector"]) for r in rows
    )
    assert len(rows) == 6  # 24 hours
    assert all(r["adds_up"] and r["received"] == 4 and r["missing"] is None for r in rows)
    long_ago = (NOW - timedelta(days=3)).isoformat().replace("+00:00", "Z")
    rows, _ = pages(served, f"/v1/account?by=hour&from={long_ago}&gateway=h", "account")
    assert [r["gateway"] for r in rows] == ["h"] * 4
    hour = (NOW - timedelta(hours=1)).replace(minute=0, second=0, microsecond=0)
    span = f"from={hour.isoformat()}&to={(hour + timedelta(hours=1)).isoformat()}"
    rows, _ = pages(
        served, f"/v1/account?by=hour&{span}&sector=farms".replace("+", "%2B"), "account"
    )
    assert [(r["sector"], r["gateway"]) for r in rows] == [("farms", "g")]
    assert pages(served, "/v1/account?by=hour&format=nmea", "account") == ([], 1)


def test_what_is_held_is_in_its_hour(served: Served, session: Session) -> None:
    take(session, 0)
    process = ledger.new_process()
    assert ledger.hold_process_lock(session, process)
    held = [
        ledger.pending_row(("g", "farms", "json", THIS_HOUR), 5, 5),
        ledger.pending_row(("g", "farms", "json", THIS_HOUR - HOUR_US), 3, 3),
    ]
    Pending(process, "farms", 1, held).replace(session)
    session.commit()
    rows, _ = pages(served, "/v1/account?by=hour", "account")
    assert [(r["received"], r["held"], r["adds_up"]) for r in rows] == [(3, 3, True), (9, 5, True)]
    ((row,), _) = pages(served, "/v1/account", "account")
    assert (row["received"], row["stored"], row["held"], row["adds_up"]) == (12, 2, 8, True)
    samples = metrics(served)
    assert samples["chimata_observations_held", (("format", "json"), ("sector", "farms"))] == 8
    assert samples["chimata_account_difference_observations", SOURCE] == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2026-01-01T00:00:00Z", "from"),
        ("to=2026-01-01T00:00:00Z", "to"),
        ("by=hour&from=yesterday", "from"),
        ("by=day", "by"),
        ("after=nonsense", "after"),
        ("after=WzEsMiwzLDRd", "after"),
        ("by=hour&after=WyJ4IiwiYSIsImIiLCJjIl0", "after"),
        ("limit=51", "limit"),
    ],
)
def test_a_bad_field_of_the_account_is_named(served: Served, query: str, field: str) -> None:
    answer = served.get(f"/v1/account?{query}", Role.OPERATOR)
    assert answer.status_code == 422
    assert field in {each["name"].rpartition(".")[2] for each in answer.json()["errors"]}


def test_gateways_and_their_clocks(served: Served, session: Session) -> None:
    take(session, 0, 3)
    for number in range(4):
        take(session, 0, gateway=f"g{number}")
    at = from_datetime(NOW)
    heard = [clocks.Heard("g", at, at, 20, -100.0, -99.0), clocks.Heard("g1", at, at, 9, 0.1, 0.2)]
    clocks.write(session, heard)
    session.execute("INSERT INTO gateway (id, data_class) VALUES ('g0', 'open'), ('x', NULL)")
    session.commit()
    rows, count = pages(served, "/v1/gateways?limit=2", "gateways")
    assert ([r["id"] for r in rows], count) == (["g", "g0", "g1", "x"], 2)
    first = rows[0]
    assert (first["boots"], first["missing"], first["sectors"]) == (1, 2, ["farms"])
    assert (first["received"], first["rejected"]) == (8, 2)
    assert first["messages_this_hour"] + first["messages_last_hour"] == 2
    assert first["clock"]["state"] == "ahead"
    assert (first["clock"]["skew_seconds"], first["clock"]["uncertainty_seconds"]) == (100.0, 1.0)
    assert [r["clock"]["state"] for r in rows[1:]] == ["unknown", "good", "unknown"]
    assert rows[1]["data_class"] == "open"


def test_gaps_are_paged(served: Served, session: Session) -> None:
    take(session, *range(1, 60, 2), boot="old", hours_ago=5)
    take(session, 4, boot="new")
    rows, count = pages(served, "/v1/gateways/g/gaps?limit=10", "gaps")
    assert rows[0] == {"boot": "new", "first": 0, "last": 3, "count": 4}
    assert [(r["boot"], r["first"], r["count"]) for r in rows[1:]] == [
        ("old", seq, 1) for seq in range(0, 59, 2)
    ]
    assert count == 4
    answer = served.get("/v1/gateways/nobody/gaps", Role.OPERATOR)
    assert answer.status_code == 404
    for bad in ("x", "WzEsMiwzXQ", "WyJ4IiwiYSIsMV0", "WyIyMDI2LTAxLTAxVDAwOjAwOjAwWiIsImEiLC0xXQ"):
        answer = served.get(f"/v1/gateways/g/gaps?after={bad}", Role.OPERATOR)
        assert (answer.status_code, answer.json()["errors"][0]["name"]) == (422, "after")


# -- metrics ----

SOURCE = (("format", "json"), ("sector", "farms"))
Sample = tuple[str, tuple[tuple[str, str], ...]]


def metrics(served: Served) -> dict[Sample, float]:
    """Every sample of /metrics as Prometheus reads it, by name and labels."""
    answer = served.get("/metrics", Role.OPERATOR)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[Sample, float] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation and family.type != "unknown", family.name
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, key
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name
            found[key] = sample.value
    return found


def test_the_account_as_metrics(served: Served, session: Session) -> None:
    take(session, 0, 1, 4)
    take(session, 0, gateway="h", hours_ago=40)
    ledger.add_to_rejected(session, "farms", {"bad-time": 3, "bad-unit": 1})
    ledger.add_to_rejected(session, "farms", {"bad-time": 4})
    session.execute("INSERT INTO append (sector, id, rows) VALUES ('farms', 1, 8)")
    session.execute("INSERT INTO recovered VALUES ('farms', 'h', 'json', now(), 3)")
    session.commit()
    found = metrics(served)
    assert found["chimata_messages_total", SOURCE] == 4
    assert found["chimata_observations_received_total", SOURCE] == 16
    told = {
        dict(labels)["outcome"]: value
        for (name, labels), value in found.items()
        if name == "chimata_observations_total"
    }
    assert told == {"stored": 8, "duplicate": 4, "rejected": 4}
    assert found["chimata_sequences_missing", SOURCE] == 2
    assert found["chimata_observations_recovered_total", SOURCE] == 3
    assert found["chimata_rejections_total", (("reason", "bad-time"), ("sector", "farms"))] == 7
    assert 0 <= found["chimata_newest_append_age_seconds", (("sector", "farms"),)] < 60
    assert found["chimata_database_size_bytes", ()] > 1_000_000
    assert found["chimata_live_clients", ()] == 0


def test_the_number_of_series_is_bounded(served: Served, session: Session) -> None:
    """However many gateways there are: the first are told one by one, the rest as one."""
    at = from_datetime(NOW)
    count = GATEWAYS_MAX + 50
    for number in range(count):
        take(session, 0, 2, gateway=f"g{number:03}")
    heard = [
        clocks.Heard(f"g{n:03}", at + n, at + n, 9, -float(n + 10), -float(n + 10))
        for n in range(count)
    ]
    clocks.write(session, heard)
    session.commit()
    found = metrics(served)
    told = {
        dict(labels)["gateway"]: value
        for (name, labels), value in found.items()
        if name == "chimata_gateway_missing"
    }
    assert len(told) == GATEWAYS_MAX + 1
    assert told["_other"] == 50 and told["g000"] == 1
    assert sum(told.values()) == count
    skews = [
        value for (name, _), value in found.items() if name == "chimata_gateway_clock_skew_seconds"
    ]
    assert len(skews) == 100 and min(skews) == 60
    assert found["chimata_gateway_clocks", (("state", "ahead"),)] == count


def test_ingestors_tell_their_figures_while_they_live(served: Served, session: Session) -> None:
    histogram = Histogram()
    for seconds in (0.0005, 0.02, 0.02, 99.0):
        histogram.observe(seconds)
    figures = ProcessFigures("host:7", 4_096, 10, 0.5, 1, 2, 3, histogram)
    process = ledger.new_process()
    figures.write(session, process)
    ProcessFigures("host:8").write(session, ledger.new_process())  # dead: it holds no lock
    assert ledger.hold_process_lock(session, process)
    session.commit()
    found = metrics(served)
    mine = (("process", "host:7"),)
    assert found["chimata_ingest_queue_bytes", mine] == 4_096
    assert found["chimata_ingest_decode_seconds_count", mine] == 10
    assert found["chimata_ingest_decode_seconds_sum", mine] == 0.5
    assert found["chimata_ingest_refusals_total", mine] == 1
    assert found["chimata_ingest_storage_failures_total", mine] == 2
    assert found["chimata_ingest_reconnects_total", mine] == 3
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in found.items()
        if name == "chimata_ingest_append_seconds_bucket"
    }
    assert (buckets["0.001"], buckets["0.025"], buckets["10.0"], buckets["+Inf"]) == (1, 3, 3, 4)
    assert not [labels for _, labels in found if ("process", "host:8") in labels]


def test_requests_are_timed_by_template(served: Served) -> None:
    for path in (
        "/v1/ports/things/1",
        "/v1/ports/things/2",
        "/v1/ports/latest",
        "/no/such",
        "/healthz",
    ):
        served.get(path)
    served.get("/v1/account")
    counts = {
        (dict(labels)["route"], dict(labels)["status"]): value
        for (name, labels), value in metrics(served).items()
        if name == "chimata_http_request_duration_seconds_count"
    }
    assert counts["/v1/{sector}/things/{thing}", "4xx"] == 2
    assert counts["/v1/{sector}/latest", "2xx"] == 1
    assert counts["/v1/account", "4xx"] == 1
    assert counts["/healthz", "2xx"] == 1
    assert not [route for route, _ in counts if "no/such" in route]
    assert metrics(served)  # and its own
