"""A person's own view over the real server: everything, row by row, and of nobody else."""

import csv
import io
import struct
import subprocess
import tracemalloc
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import psycopg
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fhir.resources.R4B.observation import Observation
from psycopg.types.json import Jsonb

from api.me import DOWNLOADS
from consent import download, own
from consent.receipts import Signer, public_key
from consent.subject_keys import SubjectKeys
from core.errors import CityError
from core.settings import Settings
from core.tokens import Principal, Role
from tests.api.conftest import serving
from tests.api.test_consent_erasure import erase, peopled
from tests.api.test_disclosures import disclose, receipts_of
from tests.api.town import DAY, Town, iso
from tests.platform import CHIMATA


@pytest.fixture
def town(storage_url: str, tmp_path: Path) -> Iterator[Town]:
    """Ai has a band, Ken a watch, both a scale; the clinic reads all of it."""
    settings = Settings(database_url=storage_url, data=tmp_path, page_rows_max=50)
    with serving(settings) as served, psycopg.connect(storage_url, autocommit=True) as connection:
        yield peopled(served, connection)


def pages(town: Town, person: str, query: str = "") -> list[dict[str, Any]]:
    path, found = f"/v1/me/observations?limit=3{query}", []
    while path:
        answer = town.send("GET", path, Role.CITIZEN, person)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["observations"]) <= 3
        found += answer.json()["observations"]
        path = answer.json()["next"]
    return found


def test_property_22_everything_that_is_held_is_shown(town: Town) -> None:
    moment = DAY + timedelta(hours=1)
    town.insert(
        ("band", "place"), "position", "observation_position", moment, 139.5, 35.5, 1.0, 2.0
    )
    town.insert(("band", "note"), "document", "observation_document", moment, Jsonb({"a": [1]}))
    told = town.send("GET", "/v1/me", Role.CITIZEN, "ai").json()
    assert {(h["thing"], h["property"], h["rows"], h["shared"]) for h in told["held"]} == {
        ("band", "heart-rate", 4, False), ("band", "place", 1, False), ("band", "note", 1, False),
        ("scale", "heart-rate", 4, True),
    }  # fmt: skip
    (first,) = (h for h in told["held"] if (h["thing"], h["property"]) == ("band", "heart-rate"))
    assert (first["category"], told["grants"], told["disclosures"]) == ("chimata:HeartRate", 1, 0)
    rows = pages(town, "ai")
    assert len(rows) == 10
    assert {r["thing"] for r in rows} == {"band", "scale"}
    results = [r["result"] for r in rows if r["kind"] != "number"]
    place = {"longitude": 139.5, "latitude": 35.5, "speed": 1.0, "course": 2.0}
    assert all(each in results for each in (place, {"a": [1]}))
    assert "ken" not in str(rows), "who shares it stays unnamed"
    begin, end = (DAY + timedelta(minutes=n) for n in (1, 3))
    window = f"&sector=health&from={iso(begin)}&to={iso(end)}".replace("+", "%2B")
    assert [r["result"] for r in pages(town, "ai", window)] == [1.5, 2.5] * 2
    assert pages(town, "ai", "&sector=mobility") == []
    assert pages(town, "nobody") == []


def test_a_reading_is_on_record_and_a_cursor_is_ones_own(town: Town) -> None:
    more = town.send("GET", "/v1/me/observations?limit=3", Role.CITIZEN, "ai").json()["next"]
    assert town.send("GET", more, Role.CITIZEN, "ai").status_code == 200
    assert town.send("GET", more, Role.CITIZEN, "ken").status_code == 422
    for role in (Role.OPERATOR, Role.RECIPIENT, Role.GATEWAY):
        for path in ("/v1/me", "/v1/me/observations"):
            assert town.send("GET", path, role, "office").status_code == 403
    count = "SELECT count(*) FROM audit.decision WHERE reason = 'own' AND principal = %s"
    assert town.city.one(count, f"person/{town.number('ai')}") == 2


def test_a_shared_row_is_gone_for_both(town: Town) -> None:
    for worker in town.served.app.state.workers:
        worker.stop()
    erase(town, "ai")
    assert {r["thing"] for r in pages(town, "ken")} == {"watch"}, "at once, before rows are deleted"
    assert pages(town, "ai") == []


def fetch(town: Town, form: str, folder: Path) -> Path:
    answer = town.send("GET", f"/v1/me/download?format={form}", Role.CITIZEN, "ai")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    file = folder / f"{form}.zip"
    file.write_bytes(answer.content)
    return file


def contents(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_property_22_a_download_is_whole_and_holds_offline(town: Town, tmp_path: Path) -> None:
    moment = DAY + timedelta(hours=1)
    town.insert(
        ("band", "place"), "position", "observation_position", moment, 139.5, 35.5, 1.0, 2.0
    )
    town.insert(("band", "note"), "document", "observation_document", moment, Jsonb({"a": [1]}))
    receipts_of(town, disclose(town, "clinic"), Role.CITIZEN, "ai")
    assert put_claim(town, {"kind": "complaint", "text": "too slow"}).status_code == 200
    key = town.send("GET", "/v1/disclosures/checkpoint", Role.CITIZEN, "ai").json()["key"]
    mine = pages(town, "ai")
    for form in DOWNLOADS:
        file = fetch(town, form, tmp_path)
        held = list(download.check(file, public_key(key)))
        assert held[-1] == "holds: 2 receipts of disclosures"
        files = contents(file)
        assert {"README.txt", "held.json", "grants.json", "claims.json", "MANIFEST"} < {*files}
        assert b"too slow" in files["claims.json"]
        assert b"ken" not in b"".join(files.values())
        match form:
            case "json":
                assert list(map(orjson.loads, files["observations.jsonl"].splitlines())) == mine
            case "csv":
                lines = list(csv.DictReader(io.StringIO(files["observations.csv"].decode())))
                assert [float(n["result"]) for n in lines if n["kind"] == "number"] == [
                    r["result"] for r in mine if r["kind"] == "number"
                ]
                assert {n["longitude"] for n in lines} == {"", "139.5"}
            case "geoparquet":
                table = pq.read_table(io.BytesIO(files["observations.parquet"]))
                assert len(table) == len(mine)
                (point,) = (each for each in table["geometry"].to_pylist() if each)
                assert struct.unpack("<BIdd", point) == (1, 1, 139.5, 35.5)
                geo = orjson.loads(table.schema.metadata[b"geo"])
                assert geo["primary_column"] == "geometry"
            case "fhir":
                told = list(
                    map(Observation.model_validate_json, files["observations.ndjson"].splitlines())
                )
                assert [float(each.valueQuantity.value) for each in told] == [
                    r["result"] for r in mine if r["kind"] == "number"
                ]
    forge(contents(fetch(town, "json", tmp_path)), key, tmp_path)
    for role in (Role.OPERATOR, Role.RECIPIENT):
        assert town.send("GET", "/v1/me/download", role, "ai").status_code == 403


def forge(files: dict[str, bytes], key: str, folder: Path) -> None:
    """Nothing that was changed, left out or added holds, by the command as well."""
    rows = files["observations.jsonl"]
    forged = (
        {**files, "observations.jsonl": rows.replace(b"0.5", b"0.6")},
        {name: content for name, content in files.items() if name != "grants.json"},
        {**files, "more.json": b"{}"},
        {**files, "MANIFEST": files["MANIFEST"].replace(b"sha256", b"sha255")},
        {name: content for name, content in files.items() if name != "MANIFEST"},
    )
    for number, each in enumerate((files, *forged)):
        file = folder / "forged.zip"
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in each.items():
                archive.writestr(name, content)
        holds = True
        try:
            list(download.check(file, public_key(key)))
        except CityError as error:
            holds = error.slug != "invalid"
        assert holds == (number == 0), number
        done = subprocess.run(
            [str(CHIMATA), "verify", str(file), "--key", key],
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == holds, (number, done.stderr)


def test_a_large_download_needs_no_more_memory(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "ROWS_A_PAGE", 500)
    settings = town.served.app.state.settings
    gate, keys = town.served.app.state.gate, SubjectKeys.of(settings)
    signer = Signer(Ed25519PrivateKey.generate())
    ai = Principal(Role.CITIZEN, "ai", None, "ai", frozenset({"read:own"}), 0)
    peaks = []
    for rows in (2_000, 12_000):
        town.connection.execute(INSERT_MANY, {"from": DAY + timedelta(minutes=10), "rows": rows})
        tracemalloc.start()
        sent = sum(map(len, download.download(gate, ai, keys, signer, DOWNLOADS["json"])))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sent > rows
    assert peaks[1] < 1.3 * peaks[0], peaks


INSERT_MANY = """
INSERT INTO personal.observation (phenomenon_time, result, append_id, datastream_id, quality)
SELECT %(from)s + n * interval '100 ms', random(), 1, d.id, 0
FROM generate_series(1, %(rows)s) AS n
JOIN datastream d ON d.property = 'heart-rate' JOIN thing t ON t.id = d.thing_id AND t.key = 'band'
WHERE NOT EXISTS (SELECT FROM personal.observation o WHERE o.datastream_id = d.id
                  AND o.phenomenon_time = %(from)s + n * interval '100 ms')
"""


def put_claim(
    town: Town, body: dict[str, Any], claim: str | None = None, kind: str = "claims"
) -> httpx.Response:
    path = f"/v1/me/{kind}/{claim or uuid4()}"
    return town.send("PUT", path, Role.CITIZEN, "ai", body)


def step(town: Town, claim: str, state: str, text: str = "because") -> httpx.Response:
    body = {"state": state, "text": text}
    return town.send("PUT", f"/v1/claims/{claim}/state", Role.OPERATOR, "office", body)


def correction(**change: Any) -> dict[str, Any]:
    return {
        "sector": "health", "thing": "band", "property": "heart-rate",
        "phenomenon_time": iso(DAY + timedelta(minutes=1)), "result": 71.5,
        "reason": "a loose strap", **change,
    }  # fmt: skip


def test_property_22_a_correction_takes_the_rows_place(town: Town) -> None:
    claim = str(uuid4())
    asked = put_claim(town, correction(), claim, "corrections")
    assert asked.status_code == 200, asked.text
    assert put_claim(town, correction(), claim, "corrections").json() == asked.json()
    assert put_claim(town, correction(result=70), claim, "corrections").status_code == 409
    for wrong in (
        {"thing": "watch"}, {"result": "fast"}, {"phenomenon_time": iso(DAY - timedelta(1))},
        {"sector": "nothing"}, {"result": None}, {"reason": ""},
    ):  # fmt: skip
        answer = put_claim(town, correction(**wrong), None, "corrections")
        assert answer.status_code == 422, wrong
    assert 71.5 not in [r["result"] for r in pages(town, "ai")], "nobody has decided yet"
    (waiting,) = town.send("GET", "/v1/claims", Role.OPERATOR, "office").json()["claims"]
    assert waiting["content"]["reason"] == "a loose strap"
    assert step(town, claim, "under-review").status_code == 200
    assert step(town, claim, "answered").status_code == 409, "it is accepted or refused"
    done = step(town, claim, "accepted")
    assert [each["state"] for each in done.json()["history"]] == [
        "received", "under-review", "accepted",
    ]  # fmt: skip
    assert step(town, claim, "accepted").json() == done.json()
    assert step(town, claim, "refused").status_code == 409
    assert 71.5 in [r["result"] for r in pages(town, "ai")]
    assert 71.5 in [r["result"] for r in town.ask("clinic")]
    found = town.connection.execute("SELECT result FROM personal.superseded").fetchall()
    assert found == [(1.5,)], "what it replaced is kept beside it"
    refused = str(uuid4())
    assert put_claim(town, correction(result=9), refused, "corrections").status_code == 200
    assert step(town, refused, "refused", "it was measured twice").status_code == 200
    assert 9 not in [r["result"] for r in pages(town, "ai")]


def test_requests_are_answered_and_their_words_are_sealed(town: Town) -> None:
    claim = str(uuid4())
    body = {"kind": "stop-of-use", "text": "unmistakable words", "recipient": "clinic"}
    assert put_claim(town, body, claim).status_code == 200
    assert put_claim(town, {**body, "recipient": "nobody"}).status_code == 422
    assert put_claim(town, {**body, "disclosure": str(uuid4())}).status_code == 422
    complaint = str(uuid4())
    assert put_claim(town, {"kind": "complaint", "text": "too slow"}, complaint).status_code == 200
    assert step(town, complaint, "accepted").status_code == 409
    assert step(town, complaint, "answered", "we are sorry").status_code == 200
    listed = town.send("GET", "/v1/me/claims", Role.CITIZEN, "ai").json()["claims"]
    assert [(c["kind"], c["state"]) for c in listed] == [
        ("complaint", "answered"), ("stop-of-use", "received"),
    ]  # fmt: skip
    assert listed[0]["history"][-1]["text"] == "we are sorry"
    assert town.send("GET", "/v1/me/claims", Role.CITIZEN, "ken").json()["claims"] == []
    assert town.send("GET", "/v1/claims", Role.CITIZEN, "ai").status_code == 403
    page = town.send("GET", "/v1/claims?state=answered", Role.OPERATOR, "office").json()
    assert [c["id"] for c in page["claims"]] == [complaint]
    for table in ("claim", "claim_step"):
        stored = town.connection.execute(f"SELECT t::text FROM consent.{table} t".encode())
        told = str(stored.fetchall())
        assert "unmistakable" not in told
        assert b"unmistakable".hex() not in told
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            town.connection.execute(f"DELETE FROM consent.{table}".encode())
    erase(town, "ai")
    assert town.send("GET", "/v1/claims", Role.OPERATOR, "office").json()["claims"] == []
    assert step(town, claim, "accepted").status_code == 404, "nobody reads it any more"
