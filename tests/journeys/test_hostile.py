"""Hostile input: arbitrary bytes and mutated real messages never get out of their rejection."""

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cbor2
import httpx
import paho.mqtt.client as paho
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

import domains
from core.sector import all_formats
from core.settings import Settings
from core.storage.account import account
from core.storage.message import Outcome
from ingest.pipeline import Pipeline, Raw, Settled
from tests.journeys import replays
from tests.platform import Platform

SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
ANSWER_SECONDS_MAX = 30.0
CASES = [(name, form) for name in domains.names() for form in all_formats(domains.sector(name))]
hostile = profile(
    max_examples=50,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


# -- every decoder through the pipeline, into a real database -------------------------------------


@dataclass
class Inlet:
    """A running pipeline that is asked for what became of each message."""

    url: str
    pipeline: Pipeline
    settled: "dict[int, Outcome]" = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    number: int = 0

    def settle(self, settled: Settled) -> None:
        with self.changed:
            self.settled.update((raw.tag, outcome) for raw, outcome in settled)
            self.changed.notify_all()

    def send(self, messages: list[Raw]) -> list[Outcome]:
        """Submit all, wait for all: an answer that does not come is a hang."""
        for raw in messages:
            assert self.pipeline.submit(raw)
        deadline = time.monotonic() + ANSWER_SECONDS_MAX
        with self.changed:
            while not all(raw.tag in self.settled for raw in messages):
                left = deadline - time.monotonic()
                assert left > 0, f"no answer for {[raw.payload for raw in messages]!r}"
                self.changed.wait(left)
            return [self.settled.pop(raw.tag) for raw in messages]

    def raw(self, sector: str, form: str, payload: bytes, **named: Any) -> Raw:
        self.number += 1
        return Raw(
            "http", sector, named.pop("gateway", "g"), form, payload, tag=self.number, **named
        )


@pytest.fixture(scope="module")
def inlet(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inlet]:
    settings = Settings(
        database_url=module_database_url, data=tmp_path_factory.mktemp("data"),
        batch_seconds_max=0.002,
    )  # fmt: skip
    made: list[Inlet] = []
    pipeline = Pipeline(settings, lambda settled: made[0].settle(settled))  # noqa: PLW0108 - made below
    made.append(Inlet(module_database_url, pipeline))
    pipeline.start()
    yield made[0]
    pipeline.stop()


def arrow_example() -> bytes:
    sink = pa.BufferOutputStream()
    columns = {
        "thing": ["a", "b"],
        "property": ["temperature", "x/1"],
        "phenomenon_time": pa.array([1, 2_000_000], pa.timestamp("us", "UTC")),
        "result": [1.5, -2.0],
    }
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


PACK = [{"bn": "urn:dev:a:", "bt": 1.7e9, "n": "temperature", "u": "Cel", "v": 23.1},
        {"n": "open", "vb": True}, {"n": "label", "vs": "x"}, {"n": "d", "vd": "aGk"}]  # fmt: skip
COMMON = {
    "senml-json": [json.dumps(PACK).encode()],
    "senml-cbor": [cbor2.dumps([{-2: "urn:dev:a:", -3: 1.7e9, 0: "temp", 1: "Cel", 2: 23.1}])],
    "json": [
        b'{"thing":"a","property":"temperature","phenomenon_time":"2024-01-01T00:00:00Z","result":1}',
        b'[{"thing":"a","property":"position","phenomenon_time":"2024-01-01T00:00:00Z",'
        b'"result":{"longitude":1,"latitude":2}}]',
    ],
    "arrow": [arrow_example()],
}


def seeds(sector: str, form: str) -> list[bytes]:
    """Real messages of a format: the sector's own examples, or small ones of the common formats."""
    own = sorted((domains.HERE / sector / "examples").glob(f"*.{form}"))
    return [path.read_bytes() for path in own] or COMMON.get(form, [b"\x00"])


EDITS = st.tuples(
    st.sampled_from(["flip", "cut", "insert", "repeat", "end", "number"]),
    st.floats(0, 1),
    st.integers(1, 40),
    st.binary(min_size=1, max_size=8),
)
NUMBERS = (b"-1", b"1e999", b"NaN", b"99999999999999999999", b"null", b'""', b"[]", b"{}", b"\xff")


def mutated(seed: bytes, edits: list[tuple[str, float, int, bytes]]) -> bytes:
    """The seed with some edits, each at a place between 0 (begin) and 1 (end)."""
    for kind, where, size, extra in edits:
        at = int(where * len(seed))
        if kind == "flip":
            seed = seed[:at] + extra[:1] + seed[at + 1 :]
        elif kind == "cut":
            seed = seed[:at] + seed[at + size :]
        elif kind == "insert":
            seed = seed[:at] + extra + seed[at:]
        elif kind == "repeat":
            seed = seed[:at] + seed[at : at + size] * 3 + seed[at + size :]
        elif kind == "end":
            seed = seed[:at]
        else:
            found = re.compile(rb"-?\d+(\.\d+)?").search(seed, at)
            if found:
                number = NUMBERS[size % len(NUMBERS)]
                seed = seed[: found.start()] + number + seed[found.end() :]
    return seed


def check_outcomes(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        counts = outcome.counts
        assert counts.received == counts.stored + counts.duplicate + counts.rejected
        assert counts.messages >= counts.unchanged >= 0
        assert counts.messages + counts.received > 0, "a message left no trace"
        for rejected in outcome.rejected:
            assert SLUG.fullmatch(rejected.reason)
            assert rejected.detail.strip()
            assert rejected.reason not in {"decoder-error", "storage-refused"}, rejected


def check_account(url: str) -> None:
    with psycopg.connect(url) as connection:
        assert all(row.adds_up for row in account(connection))
        # What may be personal has its detail under a seal, or nowhere.
        unnamed = """
            SELECT reason, detail FROM rejection
            WHERE reason = '' OR btrim(detail) = '' AND data_class <> 'personal'"""
        assert connection.execute(unnamed).fetchall() == []


@pytest.mark.parametrize(("sector", "form"), CASES)
def test_no_bytes_break_the_pipeline(inlet: Inlet, sector: str, form: str) -> None:
    """Arbitrary bytes, and real messages that are cut, bent and repeated."""
    real = seeds(sector, form)
    assert real

    @hostile
    @given(
        arbitrary=st.lists(st.binary(max_size=200), max_size=2),
        edited=st.lists(
            st.tuples(st.sampled_from(real), st.lists(EDITS, min_size=1, max_size=4)),
            min_size=1, max_size=3,
        ),
    )  # fmt: skip
    def run(
        arbitrary: list[bytes], edited: list[tuple[bytes, list[tuple[str, float, int, bytes]]]]
    ) -> None:
        payloads = [*arbitrary, *(mutated(seed, edits) for seed, edits in edited)]
        check_outcomes(inlet.send([inlet.raw(sector, form, payload) for payload in payloads]))
        check_account(inlet.url)

    run()
    # The decoder is not confused for good: a whole message still passes.
    (outcome,) = inlet.send([inlet.raw(sector, form, real[0])])
    check_outcomes([outcome])
    with psycopg.connect(inlet.url) as connection:
        replays.check_nothing_twice(connection)


TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["g", "boot-1", "0", "7", "-1", "1e3", "٣"])
)


@hostile
@given(
    sector=st.one_of(TEXTS, st.sampled_from(domains.names())),
    form=st.one_of(TEXTS, st.sampled_from(["json", "csv"])),
    gateway=TEXTS,
    boot=st.none() | TEXTS,
    seq=st.none() | TEXTS,
    payload=st.binary(max_size=60),
)
def test_no_name_breaks_the_pipeline(
    inlet: Inlet, sector: str, form: str, gateway: str, boot: str | None, seq: str | None,
    payload: bytes,
) -> None:  # fmt: skip
    """Sector, format, gateway and identity are a stranger's words too."""
    raw = inlet.raw(sector, form, payload, gateway=gateway, boot=boot, seq=seq)
    check_outcomes(inlet.send([raw]))
    check_account(inlet.url)


def test_the_account_adds_up_when_nothing_is_held(inlet: Inlet) -> None:
    """After all of the above, once the pipeline has told that it holds nothing."""
    deadline = time.monotonic() + 10
    while True:
        with psycopg.connect(inlet.url) as connection:
            rows = account(connection)
        assert all(row.adds_up for row in rows)
        if not any(row.held for row in rows) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert not any(row.held for row in rows)


# -- the doors of a real platform -----------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway_token(platform: Platform) -> str:
    return platform.token("gateway", "--gateway", "node-1")


def post(platform: Platform, token: str, path: str, **named: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", **named.pop("headers", {})}
    return httpx.post(f"{platform.url}{path}", headers=headers, timeout=60, **named)


def test_a_body_over_the_limit_is_413(platform: Platform, gateway_token: str) -> None:
    """Announced or not: what is over 8 MiB is not read to its end."""
    body = b" " * (8 * 1024 * 1024 + 1)
    told = post(platform, gateway_token, "/v1/ingest/farms/json", content=body)
    assert told.status_code == 413
    assert told.headers["content-type"] == "application/problem+json"
    chunks = (body[at : at + 65536] for at in range(0, len(body), 65536))
    try:
        told = post(platform, gateway_token, "/v1/ingest/farms/json", content=chunks)
    except httpx.WriteError:
        pass  # it stopped reading and closed
    else:
        assert told.status_code == 413
    assert httpx.get(f"{platform.url}/healthz").status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/ingest/nowhere/json", "/v1/ingest/farms/nothing", "/v1/ingest/farms/cm-script"]
)
def test_an_unknown_sector_or_format_is_404(
    platform: Platform, gateway_token: str, path: str
) -> None:
    told = post(platform, gateway_token, path, content=b"{}")
    assert told.status_code == 404
    assert told.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    ["/v1/nowhere/things", "/v1/nowhere/latest", "/v1/nowhere/things/a",
     "/v1/live?sector=nowhere"],
)  # fmt: skip
def test_an_unknown_sector_is_404_to_readers(platform: Platform, path: str) -> None:
    assert httpx.get(f"{platform.url}{path}").status_code == 404


@pytest.mark.parametrize(
    "identity", ["x", "B/1", "a/-1", "a/1.5", "a/9007199254740992", "a/", "/1"]
)
def test_a_bad_identity_is_422_by_name(
    platform: Platform, gateway_token: str, identity: str
) -> None:
    headers = {"Chimata-Batch": identity}
    told = post(platform, gateway_token, "/v1/ingest/farms/json", content=b"{}", headers=headers)
    assert told.status_code == 422
    assert "chimata-batch" in told.text.lower()


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("ports/things?limit=0", "limit"),
        ("ports/things?limit=x", "limit"),
        ("ports/things?after=%00", "after"),
        ("ports/latest?bbox=1,2,3", "bbox"),
        ("ports/latest?bbox=1,2,3,nan", "bbox"),
        ("ports/latest?near=200,0,10", "near"),
        ("ports/latest?near=0,0,-1", "near"),
        ("ports/things/1/observations?property=position&from=yesterday", "from"),
        ("ports/things/1/observations?property=position&to=2024", "to"),
        ("ports/things/1/observations?property=position&interval=-5m", "interval"),
        ("ports/things/1/observations", "property"),
    ],
)
def test_a_bad_field_is_422_by_name(platform: Platform, query: str, name: str) -> None:
    told = httpx.get(f"{platform.url}/v1/{query}")
    assert told.status_code == 422, told.text
    assert told.headers["content-type"] == "application/problem+json"
    assert name in json.dumps(told.json())


def test_only_a_gateways_token_may_send(platform: Platform, gateway_token: str) -> None:
    path = "/v1/ingest/farms/json"
    assert httpx.post(f"{platform.url}{path}", content=b"{}").status_code == 401
    header, claims, signature = gateway_token.split(".")
    forged = f"{header}.{claims}.{signature[:-4]}AAAA"
    for wrong in ("x", "a.b.c", f"{header}.{claims}.", forged):
        assert post(platform, wrong, path, content=b"{}").status_code == 401
    for role in ("operator", "staff"):
        told = post(platform, platform.token(role), path, content=b"{}")
        assert told.status_code == 403
    citizen = platform.token("citizen", "--subject", "s1")
    assert post(platform, citizen, path, content=b"{}").status_code == 403


class Client:
    """An MQTT client that says what became of its sign-in."""

    def __init__(self, platform: Platform, user: str, password: str) -> None:
        self.code: Any = None
        self.heard: list[str] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, f"hostile-{user}-{id(self)}")
        self.client.username_pw_set(user, password)
        self.client.on_connect = self._connected
        self.client.on_message = lambda _c, _d, message: self.heard.append(message.topic)
        host, _, port = platform.mqtt.removeprefix("mqtt://").rpartition(":")
        self._done = threading.Event()
        self.client.connect(host, int(port))
        self.client.loop_start()
        self._done.wait(20)

    def _connected(self, _c: Any, _d: Any, _f: Any, code: Any, _p: Any) -> None:
        self.code = code
        self._done.set()

    @property
    def accepted(self) -> bool:
        return self.code is not None and not self.code.is_failure

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_a_wrong_token_opens_no_session(platform: Platform, gateway_token: str) -> None:
    strangers = (("node-1", "wrong"), ("node-2", gateway_token), ("ingest", gateway_token),
                 ("", ""))  # fmt: skip
    for user, password in strangers:
        client = Client(platform, user, password)
        assert not client.accepted, user
        client.close()


def test_a_gateway_cannot_publish_as_another(platform: Platform, gateway_token: str) -> None:
    """Nothing it sends under another's id, or as the ingestor's receipt, goes anywhere."""
    body = json.dumps(
        {"thing": "a", "property": "soil-moisture", "phenomenon_time": "2024-01-01T00:00:00Z",
         "result": 1}
    ).encode()  # fmt: skip
    victim = Client(platform, "node-9", platform.token("gateway", "--gateway", "node-9"))
    assert victim.accepted
    victim.client.subscribe("chimata/v1/receipts/node-9", 1)
    client = Client(platform, "node-1", gateway_token)
    assert client.accepted
    client.client.subscribe("chimata/v1/receipts/node-9", 1)
    client.client.subscribe("chimata/v1/#", 1)
    client.client.publish("chimata/v1/farms/node-9/json/b/0", body, 1)
    client.client.publish("chimata/v1/receipts/node-9", b"{}", 1)
    client.client.publish("chimata/v1/farms/node-1/json/b/0", body, 1)
    deadline = time.monotonic() + 20
    while "node-1" not in replays.account(platform) and time.monotonic() < deadline:
        time.sleep(0.2)
    told = replays.account(platform)
    assert told["node-1"]["stored"] == 1
    assert "node-9" not in told
    victim.client.publish("chimata/v1/farms/node-9/json/b/0", body, 1)
    while not victim.heard and time.monotonic() < deadline:
        time.sleep(0.1)
    assert victim.heard == ["chimata/v1/receipts/node-9"]
    assert all(topic.endswith("/node-1") for topic in client.heard)
    for each in (victim, client):
        each.close()
