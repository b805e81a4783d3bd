"""A run of loose messages ends as each of them would have ended alone, whatever is in it."""

import math
from collections import defaultdict
from typing import Any

import cbor2
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import domains
from core.clock import to_iso
from core.formats import reader
from core.sensorthings import Decoded, Numbers, Positions, ResultKind, kinds_of
from core.settings import Settings
from core.storage.message import Message
from ingest import runs
from ingest.check import result_at
from ingest.clocks import Clocks
from ingest.decoding import Decoder, runs_of, sector_of
from ingest.raw import RUN_MESSAGES_MAX, Run

NOW = 1_790_000_000_000_000
FORMATS = ("json", "senml-json", "senml-cbor")
GATEWAYS = ("g1", "g2", "g3")

names = st.sampled_from(["t1", "t2", "t3"]) | st.text(max_size=5)
moments = st.one_of(
    st.none(),
    st.integers(-2, 2).map(lambda s: to_iso(NOW + s * 1_000_000)),
    st.sampled_from([to_iso(NOW + 10**10), "2026-01-01T00:00:00", "yesterday", to_iso(-1)]),
)
results = st.one_of(
    st.floats(-50, 50),
    st.booleans(),
    st.none(),
    st.sampled_from(["moored", "a\0b", "x" * 20, "online", "red"]),
    st.sampled_from([{"longitude": 139.7, "latitude": 35.6}, {"longitude": 500, "latitude": 0}]),
    st.just({"a": [1, 2]}),
    st.just(10**400),
)


def json_item(property_names: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {"thing": names, "property": property_names, "result": results}
    return st.fixed_dictionaries(
        fields,
        optional={
            "phenomenon_time": moments,
            "unit": st.sampled_from(["Cel", "K", "m", "nonsense", ""]),
            "observations": st.just([]),
        },
    )


record = st.fixed_dictionaries(
    {},
    optional={
        "bn": st.sampled_from(["urn:dev:x:", "t1/", "!", ""]),
        "bt": st.sampled_from([NOW / 10**6, 0.0, 9e11]),
        "n": st.sampled_from(["temperature", "position/x", "speed", "a b", ""]),
        "u": st.sampled_from(["Cel", "lon", "lat", "m/s", "wrong"]),
        "v": st.floats(-90, 90),
        "vs": st.sampled_from(["moored", "a\0b"]),
        "vb": st.booleans(),
        "t": st.sampled_from([0.0, -10.0, 1.0, 1e300]),
        "bver": st.sampled_from([10, 99]),
        "must_": st.just(1),
    },
)
packs = st.lists(record, max_size=4)


@st.composite
def payload(draw: st.DrawFn, form: str, properties: tuple[str, ...]) -> bytes:
    """Mostly what a device sends, now and then anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.binary(max_size=12) | st.sampled_from([b"", b"[]", b"{}", b"null", b'{"a":'])
        )
    if form == "senml-json":
        return orjson.dumps(draw(packs))
    if form == "senml-cbor":
        return bytes(cbor2.dumps(draw(packs)))
    good = st.fixed_dictionaries({
        "thing": st.sampled_from(["t1", "t2"]),
        "property": st.sampled_from(properties),
        "result": st.floats(0, 50),
    })  # fmt: skip
    item = good | good | good | json_item(st.sampled_from((*properties, "undeclared")) | names)
    one = draw(item)
    body: Any = draw(st.sampled_from(["one", "one", "one", "list", "envelope"]))
    value = {"one": one, "list": [one, draw(item)], "envelope": {"observations": [one]}}[body]
    return (
        orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
        if not _huge(value)
        else _dumps(value)
    )


def _huge(value: Any) -> bool:
    return "result" in str(value) and "0" * 300 in str(value)


def _dumps(value: Any) -> bytes:
    import json

    return json.dumps(value).encode()


def told(messages: list[Message], sector: str) -> dict[str, Any]:
    """What became of messages, by gateway, in order: all that storage and account make of it."""
    kept: dict[str, Any] = defaultdict(
        lambda: {"rows": defaultdict(list), "rejected": [], "messages": 0, "unchanged": 0,
                 "heard": {}, "received": 0}
    )  # fmt: skip
    for message in messages:
        of, decoded = kept[message.gateway], message.decoded
        of["messages"] += decoded.messages
        of["unchanged"] += decoded.unchanged
        of["received"] += decoded.received
        of["rejected"] += [(r.reason, r.detail, r.payload, r.item) for r in decoded.rejected]
        for columns, kind in kinds_of(decoded):
            quality = columns.quality
            for at, stream in enumerate(columns.stream.tolist()):
                of["rows"][kind].append((
                    decoded.streams[stream], int(columns.phenomenon_time[at]), row(columns, at),
                    0 if quality is None else int(quality[at]),
                ))  # fmt: skip
        for heard in decoded.heard:
            latest = of["heard"].get(heard.thing, -math.inf)
            of["heard"][heard.thing] = max(latest, heard.phenomenon_time)
        assert message.format in (*FORMATS, "unknown") and message.channel == "test"
        assert not decoded.things
    return {gateway: {**of, "rows": dict(of["rows"])} for gateway, of in kept.items()}


def row(columns: Any, at: int) -> Any:
    if isinstance(columns, Positions):
        parts = (columns.longitude, columns.latitude, columns.speed, columns.course)
        return tuple(repr(float(part[at])) for part in parts)
    result = result_at(columns, at)
    return repr(result) if isinstance(columns, Numbers) else result


@pytest.mark.parametrize("sector", domains.names())
@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_run_is_each_message_alone(sector: str, form: str, data: st.DataObject) -> None:
    declared = sector_of(sector)
    if not runs_of(sector, "g1", form):
        pytest.skip(f"{sector} decodes {form} itself")
    numbers = [p.name for p in declared.properties if p.kind is ResultKind.NUMBER]
    properties = (*numbers[:6], "undeclared")
    bodies = data.draw(st.lists(payload(form, properties), min_size=2, max_size=12))
    run = Run("test", sector, form)
    for index, body in enumerate(bodies):
        run.add(data.draw(st.sampled_from(GATEWAYS)), body, NOW + index, index)
    together, alone = Clocks(), Clocks()
    read = reader(form)
    assert read is not None
    list(runs.decode(declared, run, read, 900.0, Clocks()))  # not caught: it never raises
    joint = Decoder(declared, Settings(), together).messages(run)
    single = Decoder(declared, Settings(), alone)
    apart = [single.message(run.alone(index)) for index in range(len(run))]
    assert told(joint, sector) == told(apart, sector)
    # The order in which each gateway's messages reach a key decides which correction wins.
    assert {g: each.last_at for g, each in together._heard.items()}.keys() == (alone._heard.keys())


def test_a_time_to_come_takes_no_others_place() -> None:
    """t1 was heard now, by the first message; what the second says of tomorrow is no sign of it."""
    run = Run("test", "farms", "json")
    now = {"thing": "t1", "property": "soil-moisture", "result": 1.0}
    for index, body in enumerate([now, {**now, "phenomenon_time": to_iso(NOW + 10**10)}]):
        run.add("g1", orjson.dumps(body), NOW + index, index)
    messages = Decoder(sector_of("farms"), Settings(), Clocks()).messages(run)
    assert told(messages, "farms")["g1"]["heard"] == {"t1": NOW}


def test_good_messages_of_one_gateway_are_one() -> None:
    run = Run("test", "ports", "json")
    for number in range(100):
        body = orjson.dumps({"thing": f"{number:09d}", "property": "heading", "result": number})
        run.add(GATEWAYS[number % 2], body, NOW + number, number)
    messages = Decoder(sector_of("ports"), Settings(), Clocks()).messages(run)
    assert [(m.gateway, m.decoded.messages, m.decoded.observations) for m in messages] == [
        ("g1", 50, 50),
        ("g2", 50, 50),
    ]
    # What names no time of its own has its own receipt's, and no other's.
    times = [t for m in messages for t in _times(m.decoded)]
    assert sorted(times) == list(range(NOW, NOW + 100))


def _times(decoded: Decoded) -> list[int]:
    return [t for columns, _ in kinds_of(decoded) for t in columns.phenomenon_time.tolist()]


def test_a_bad_message_stands_alone_between_its_neighbours() -> None:
    run = Run("test", "ports", "json")
    good = b'{"thing":"431000001","property":"heading","result":1}'
    for number, body in enumerate((good, good, b"{", good)):
        run.add("g1", body, NOW + number, number)
    messages = Decoder(sector_of("ports"), Settings(), Clocks()).messages(run)
    assert [len(m.decoded.rejected) for m in messages] == [0, 1, 0]
    assert [m.decoded.observations for m in messages] == [2, 0, 1]
    assert messages[1].payload == b"{"


def test_runs_grow_to_their_bound_and_no_further() -> None:
    def run_of(count: int, **changes: Any) -> Run:
        run = Run(**{"channel": "test", "sector": "ports", "format": "json", **changes})
        for number in range(count):
            run.add("g1", b"{}", NOW + number, number)
        return run

    run = run_of(RUN_MESSAGES_MAX - 1)
    assert run.join(run_of(1)) and len(run) == RUN_MESSAGES_MAX
    assert not run.join(run_of(1)) and len(run) == RUN_MESSAGES_MAX
    for other in ({"sector": "farms"}, {"format": "senml-json"}, {"tag": 2}, {"channel": "x"}):
        assert not run_of(1).join(run_of(1, **other))
    left, right = run.halves()
    assert (left.tags, right.tags) == (list(range(500)), [*range(500, 999), 0])
    assert left.size + right.size == run.size


@pytest.mark.parametrize(
    ("sector", "gateway", "form", "fits"),
    [
        ("ports", "g1", "json", True),
        ("ports", "g1", "senml-cbor", True),
        ("ports", "g1", "arrow", False),
        ("ports", "g1", "nmea", False),
        ("ports", "G 1", "json", False),
        ("nowhere", "g1", "json", False),
        ("ports", "g1", "made-up", False),
    ],
)
def test_what_may_be_part_of_a_run(sector: str, gateway: str, form: str, fits: bool) -> None:
    assert runs_of(sector, gateway, form) is fits
