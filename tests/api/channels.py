"""Every channel of personal data as its recipient uses it: for the tests of what leaves by them."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from core.tokens import Role
from tests.api.test_live import Stream, stream
from tests.api.town import Town

ASKED = {"purpose": "dpv:ServiceManagement", "category": "pd:MedicalHealth"}
BASE = "/v1/health/personal"


def path_of(channel: str, **query: str) -> str:
    """The address of a channel, with its question."""
    return f"{BASE}/{channel}?{httpx.QueryParams({**ASKED, **query})}"


@contextmanager
def following(
    town: Town, recipient: str = "clinic", last_id: str | None = None, **query: str
) -> Iterator[Stream]:
    """An open stream of a recipient's."""
    headers = town.headers(Role.RECIPIENT, recipient)
    path = path_of("stream", **query)
    with stream(town.served, last_id=last_id, path=path, headers=headers) as opened:
        yield opened


def results(stream: Stream) -> list[Any]:
    """The results of the next event."""
    event = stream.next()
    assert event.name == "observations", event
    return [row["result"] for row in event.data["observations"]]


def export(town: Town, format: str, recipient: str = "clinic", **query: str) -> httpx.Response:
    """A whole export."""
    path = path_of("export", format=format, **query)
    return town.send("GET", path, Role.RECIPIENT, recipient)


def exported(answer: httpx.Response) -> tuple[list[dict[str, Any]], list[str]]:
    """What an export holds, and its disclosures; ValueError without a trailer."""
    match answer.headers["content-type"].partition(";")[0]:
        case "application/jsonl":
            *lines, last = map(json.loads, answer.text.splitlines())
            rows, ids = lines, last["disclosures"]
        case "text/csv":
            head, *cells, last = csv.reader(io.StringIO(answer.text))
            if last[0] != "#disclosures":
                raise ValueError("there is no trailer")
            rows, ids = [dict(zip(head, each, strict=True)) for each in cells], last[1:]
        case _:
            file = pq.ParquetFile(pa.BufferReader(answer.content))
            ids = file.metadata.metadata[b"disclosures"].decode().split()
            rows = file.read().to_pylist()
    return rows, ids


def rolled_up(
    town: Town,
    step: str,
    window: tuple[datetime, datetime],
    recipient: str = "clinic",
    **query: str,
) -> list[dict[str, Any]]:
    """Every page of the rollups of a span."""
    bounds = {"from": window[0].isoformat(), "to": window[1].isoformat()}
    path: str | None = path_of("rollups", step=step, **bounds, **query)
    rows: list[dict[str, Any]] = []
    while path:
        answer = town.send("GET", path, Role.RECIPIENT, recipient)
        assert answer.status_code == 200, answer.text
        rows += answer.json()["rollups"]
        path = answer.json()["next"]
    return rows
