"""SPaT and MAP to observations: changes only, both formats alike, garbage named and survived."""

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import parse_iso, to_datetime, to_iso
from core.sector import Context
from core.sensorthings import Decoded
from domains.signals import rules, wire
from domains.signals.decode import decode

SECOND = 1_000_000
NOW = parse_iso("2026-06-01T12:59:50Z")
GREEN, AMBER, RED = "protected-Movement-Allowed", "protected-clearance", "stop-And-Remain"
FOLDER = Path("traffic-signals")


def context(memory: dict[Any, Any] | None = None, at: int = NOW, gateway: str = "g") -> Context:
    return Context(gateway, at, {} if memory is None else memory)


def spat(at: int, *groups: tuple[int, str, int | None, int | None], **more: Any) -> bytes:
    return wire.build_spat(intersection_id=7, moment_us=at, groups=groups, **more)


def told(decoded: Decoded) -> list[tuple[str, str, int, Any]]:
    """All observations as (thing, property, time, result), in order of time and property."""
    found = [
        (decoded.streams[stream].thing, decoded.streams[stream].property, int(time), result)
        for columns in (decoded.numbers, decoded.categories)
        if columns is not None
        for stream, time, result in zip(
            columns.stream, columns.phenomenon_time, columns.result, strict=True
        )
    ]
    return sorted(found, key=lambda each: (each[2], each[0], each[1]))


def results(decoded: Decoded) -> dict[str, Any]:
    return {name: result for _, name, _, result in told(decoded)}


# --- what changed -------------------------------------------------------------------------------


def test_a_repeat_is_unchanged_and_heard() -> None:
    memory: dict[Any, Any] = {}
    end = NOW + 20 * SECOND
    first = decode("j2735", spat(NOW, (1, GREEN, end, None), (2, RED, end, end)), context(memory))
    assert results(first) == {
        "signal-state/1": GREEN, "minimum-end/1": end / SECOND,
        "signal-state/2": RED, "minimum-end/2": end / SECOND, "maximum-end/2": end / SECOND,
    }  # fmt: skip
    later = NOW + 15 * SECOND  # the next hour: the same marks are the same moments
    again = b"".join(
        spat(at, (1, GREEN, end, None), (2, RED, end, end), revision=at // SECOND % 100)
        for at in range(NOW + 100_000, later, 100_000)
    )
    second = decode("j2735", again, context(memory, later))
    assert (second.messages, second.unchanged, second.observations) == (149, 149, 0)
    assert [heard.phenomenon_time for heard in second.heard] == [later - 100_000]
    changed = decode("j2735", spat(later, (1, AMBER, end, None), (2, RED, end, end)),
                     context(memory, later))  # fmt: skip
    assert results(changed) == {"signal-state/1": AMBER, "minimum-end/1": end / SECOND}


def test_only_the_end_that_moved_is_told() -> None:
    memory: dict[Any, Any] = {}
    end = NOW + 20 * SECOND
    decode("j2735", spat(NOW, (1, GREEN, end, end)), context(memory))
    moved = decode("j2735", spat(NOW + SECOND, (1, GREEN, end, end + SECOND)), context(memory))
    assert results(moved) == {"maximum-end/1": (end + SECOND) / SECOND}


def test_an_end_that_is_no_longer_known_ends_its_validity() -> None:
    """The state is told again, which leaves the end behind (rules.current_state)."""
    memory: dict[Any, Any] = {}
    end = NOW + 20 * SECOND
    decode("j2735", spat(NOW, (1, GREEN, end, end)), context(memory))
    lost = decode("j2735", spat(NOW + SECOND, (1, GREEN, end, None)), context(memory))
    assert results(lost) == {"signal-state/1": GREEN, "minimum-end/1": end / SECOND}


def test_a_group_that_left_is_unavailable() -> None:
    memory: dict[Any, Any] = {}
    decode("j2735", spat(NOW, (1, GREEN, None, None), (2, RED, None, None)), context(memory))
    left = decode("j2735", spat(NOW + SECOND, (2, RED, None, None)), context(memory))
    assert results(left) == {"signal-state/1": "unavailable"}


def test_a_resting_mark_stays_the_same_moment() -> None:
    """A mark 40 min in the past is not one 20 min ahead, if it was heard all the while."""
    memory: dict[Any, Any] = {}
    end = NOW + 5 * SECOND
    mark = wire.us_to_mark(end, NOW)
    for minutes in range(0, 50, 5):
        at = NOW + minutes * 60 * SECOND
        state = {"id": {"id": 7}, "moy": wire.minute_and_millisecond(at)[0], "timeStamp": 50_000,
                 "states": [{"signalGroup": 1, "stateTimeSpeed": [
                     {"eventState": "dark", "timing": {"minEndTime": mark, "maxEndTime": minutes}}
                 ]}]}  # fmt: skip
        record = {"payload": {"data": {"intersectionStateList": [state]}}}
        found = results(decode("ode-json", orjson.dumps(record), context(memory, at)))
        assert found.get("minimum-end/1", end / SECOND) == end / SECOND


def test_after_a_gap_everything_is_told_again() -> None:
    memory: dict[Any, Any] = {}
    decode("j2735", spat(NOW, (1, RED, None, None)), context(memory))
    at = NOW + 601 * SECOND
    again = decode("j2735", spat(at, (1, RED, None, None)), context(memory, at))
    assert results(again) == {"signal-state/1": RED}


def test_late_frames_are_history_and_never_the_newest() -> None:
    memory: dict[Any, Any] = {}
    frames = [spat(NOW + n * SECOND, (1, GREEN if n % 4 else RED, None, None)) for n in range(8)]
    decode("j2735", frames[7], context(memory))
    late = decode("j2735", b"".join(frames[2:6]), context(memory))
    assert [(at - NOW, state) for _, _, at, state in told(late)] == [
        (2 * SECOND, GREEN), (4 * SECOND, RED), (5 * SECOND, GREEN),
    ]  # fmt: skip
    newest = decode("j2735", spat(NOW + 9 * SECOND, (1, GREEN, None, None)), context(memory))
    assert (newest.observations, newest.unchanged) == (0, 1)


def test_a_redelivered_batch_decodes_to_all_that_it_held() -> None:
    """The commit failed, the process lives: nothing may be taken for known."""
    memory: dict[Any, Any] = {}
    batch = b"".join(
        spat(NOW + n * SECOND, (1, GREEN if n % 3 else RED, None, None)) for n in range(9)
    )
    first = decode("j2735", batch, context(memory))
    decode("j2735", spat(NOW + 20 * SECOND, (1, AMBER, None, None)), context(memory))
    assert told(decode("j2735", batch, context(memory))) == told(first)
    assert told(decode("j2735", batch, context({}))) == told(first)


def test_gateways_do_not_share_memory_and_a_glitch_does_not_shut_out() -> None:
    memory: dict[Any, Any] = {}
    assert decode("j2735", spat(NOW, (1, RED, None, None)), context(memory)).observations == 1
    other = context(memory, gateway="h")
    assert decode("j2735", spat(NOW, (1, RED, None, None)), other).observations == 1
    wild = decode("j2735", spat(NOW + 3600 * SECOND, (1, GREEN, None, None)), context(memory))
    assert (wild.observations, wild.heard) == (1, ())
    after = decode("j2735", spat(NOW + SECOND, (1, RED, None, None)), context(memory))
    assert (after.observations, after.unchanged, len(after.heard)) == (0, 1, 1)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "INTERSECTIONS_MAX", 10)
    memory: dict[Any, Any] = {}
    for number in range(30):
        frame = wire.build_spat(
            intersection_id=number, moment_us=NOW, groups=[(1, RED, None, None)]
        )
        geometry = wire.build_map(intersection_id=number, longitude=1.0, latitude=1.0, lanes=LANES)
        decode("j2735", frame + geometry, context(memory))
    assert {name: len(kept) for name, kept in memory.items()} == {
        "spat": 10, "map": 10, "map-frames": 10,
    }  # fmt: skip


LANES = [{"id": 1, "approach": 1, "path": [(1.0, 1.0), (1.0001, 1.0)], "connections": [(2, 3)]}]


def test_a_map_is_told_when_it_changes() -> None:
    memory: dict[Any, Any] = {}

    def seen(at: int = NOW, **more: Any) -> Decoded:
        payload = wire.build_map(
            intersection_id=7, longitude=1.0, latitude=1.0, lanes=LANES, **more
        )
        return decode("j2735", payload, context(memory, at))

    first, again, other, back = seen(), seen(), seen(name="B"), seen()
    assert [d.unchanged for d in (first, again, other, back)] == [0, 1, 0, 0]
    assert [len(d.things) for d in (first, again, other, back)] == [1, 0, 1, 1]
    # A MAP is not a sign that the signals work.
    assert first.heard == ()
    # The first description may have been lost with its transaction.
    much_later = seen(NOW + rules.MAP_AGAIN_US)
    assert (much_later.unchanged, len(much_later.things)) == (1, 1)
    (thing,) = first.things
    assert (thing.thing, thing.location) == ("7", (1.0, 1.0))
    assert thing.geometry == {
        "type": "MultiLineString", "coordinates": [[[1.0, 1.0], [1.0001, 1.0]]],
    }  # fmt: skip
    assert thing.properties["lanes"][0]["signal_groups"] == [3]


def test_messages_about_people_are_refused_and_not_kept() -> None:
    bsm = wire.message_frame(20, b"secret")
    for payload, format_name in (
        (bsm, "j2735"),
        (orjson.dumps({"payload": {"data": {"bytes": bsm.hex()}}}), "ode-json"),
        (b'{"metadata":{"recordType":"bsmTx"},"payload":{"data":{"coreData":{}}}}', "ode-json"),
    ):
        (rejected,) = decode(format_name, payload, context()).rejected
        assert (rejected.reason, rejected.payload) == ("unsupported-message", b"")
        assert rejected.detail.startswith("BSM")
    (rejected,) = decode("j2735", wire.message_frame(31, b"abc"), context()).rejected
    assert rejected.detail.startswith("TIM")
    assert rejected.payload == wire.message_frame(31, b"abc")


@pytest.mark.parametrize(
    ("record", "reason", "words"),
    [
        (b"{", "invalid-json", "record"),
        (b"[1]", "invalid-field", "record: an object"),
        (b"{}", "unknown-record", "record"),
        (b'{"payload":{"data":{"bytes":"0g"}}}', "invalid-field", "payload.data.bytes"),
        (b'{"payload":{"data":{"intersectionStateList":5}}}', "invalid-field",
         "intersectionStateList"),
        (b'{"payload":{"data":{"intersectionStateList":[{"id":{"id":"x"},"states":[]}]}}}',
         "invalid-field", "id.id"),
        (b'{"payload":{"data":{"intersectionStateList":[{"id":{"id":1},"states":['
         b'{"signalGroup":2,"state_time_speed":[{"eventState":"BLUE"}]}]}]}}}',
         "invalid-field", "signalGroup 2: eventState 'BLUE'"),
        (b'{"intersectionId":1,"states":[],"utcTimeStamp":"@ISO_DATE_TIME@"}', "invalid-field",
         "utcTimeStamp: '@ISO_DATE_TIME@'"),
        (b'{"intersectionId":1,"states":[],"utcTimeStamp":1e300}', "invalid-field",
         "utcTimeStamp"),
    ],
)  # fmt: skip
def test_a_bad_record_names_its_field(record: bytes, reason: str, words: str) -> None:
    decoded = decode("ode-json", record, context())
    (rejected,) = decoded.rejected
    assert (decoded.messages, rejected.reason) == (1, reason), rejected
    assert words in rejected.detail
    good = b'{"intersectionId":1,"utcTimeStamp":"2026-06-01T12:00:00Z","states":[]}'
    both = decode("ode-json", good + b"\n\n" + record + b"\n", context())
    assert (both.messages, [r.item for r in both.rejected]) == (2, [1])
    assert both.rejected[0].payload == record


# --- recordings ---------------------------------------------------------------------------------


def filled(path: Path, start: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The records of a CV script with their placeholders filled: (type, time, record)."""
    for line in path.read_text("utf-8").splitlines():
        kind, offset, text = line.split(",", 2)
        at = start + int(offset) * 1000
        minute, millisecond = wire.minute_and_millisecond(at)
        text = text.replace('"@MINUTE_OF_YEAR@"', str(minute)).replace(
            "@ISO_DATE_TIME@", to_iso(at)
        )
        text = text.replace('"@MILLI_OF_MINUTE@"', f'"{millisecond}"').replace("@TEMP_ID@", "00")
        text = re.sub(
            r"@OFFSET_SECONDS_(-?[\d.]+)@",
            lambda m, at=at: to_iso(at + round(float(m[1]) * SECOND)),
            text,
        )
        yield kind.partition(";")[0], at, json.loads(text)


def scripts(shared_data: Path) -> list[Path]:
    return sorted((shared_data / FOLDER / "jpo-conflictmonitor").glob("*.csv"))


def naive_groups(kind: str, record: dict[str, Any], at: int) -> dict[int, tuple[Any, ...]]:
    """The groups of a record read plainly: state as ODE writes it, ends as µs."""
    found: dict[int, tuple[Any, ...]] = {}
    if kind == "SPAT":
        (state,) = record["payload"]["data"]["intersectionStateList"]["intersectionStatelist"]
        hour = datetime.fromisoformat(to_iso(at)).replace(minute=0, second=0, microsecond=0)
        for each in state["states"]["movementList"]:
            event = each["state_time_speed"]["movementEventList"][0]
            ends = []
            for name in ("minEndTime", "maxEndTime"):
                tenths = event["timing"][name]
                candidates = [hour.timestamp() + h * 3600 + tenths / 10 for h in (-1, 0, 1)]
                ends.append(min(candidates, key=lambda end: abs(end - at / SECOND)))
            found[each["signalGroup"]] = (event["eventState"], *ends)
    else:
        for each in record["states"]:
            event = each["stateTimeSpeed"][0]
            ends = [event["timing"][name] for name in ("minEndTime", "maxEndTime")]
            found[each["signalGroup"]] = (
                event["eventState"],
                *(None if end is None else datetime.fromisoformat(end).timestamp() for end in ends),
            )
    return found


def test_scripts_agree_with_a_plain_reading(shared_data: Path) -> None:
    """After every frame, what was observed adds up to what that frame says, in all its groups."""
    start = parse_iso("2026-03-02T12:59:58Z")  # over an hour's end
    spats = 0
    for path in scripts(shared_data):
        memory: dict[Any, Any] = {}
        now: dict[str, dict[str, Any]] = {}
        for kind, at, record in filled(path, start):
            decoded = decode("ode-json", orjson.dumps(record), context(memory, at + SECOND))
            assert decoded.messages == 1
            if kind == "BSM":
                assert [r.reason for r in decoded.rejected] == ["unsupported-message"]
                continue
            assert decoded.rejected == (), decoded.rejected
            for thing, name, time, result in told(decoded):
                assert time == at
                now.setdefault(thing, {})[name] = result
            if kind == "MAP":
                continue
            spats += 1
            (heard,) = decoded.heard
            assert heard.phenomenon_time == at
            for number, (state, earliest, latest) in naive_groups(kind, record, at).items():
                held = now[heard.thing]
                assert held[f"signal-state/{number}"].replace("-", "_").upper() == state
                assert held[f"minimum-end/{number}"] == pytest.approx(earliest, abs=1e-3)
                if latest is not None:
                    assert held[f"maximum-end/{number}"] == pytest.approx(latest, abs=1e-3)
    assert spats == 34 + 57 + 56 + 29 + 39 + 40


def to_uper(record: dict[str, Any]) -> bytes:
    """A decoded SPaT record as pycrate encodes it, field by field."""
    (state,) = record["payload"]["data"]["intersectionStateList"]["intersectionStatelist"]
    names = {name.replace("-", "_").upper(): name for name in wire.PHASE_STATES}
    value = {
        "id": {"id": state["id"]["id"]}, "revision": state["revision"], "status": (0, 16),
        "moy": int(state["moy"]), "timeStamp": int(state["timeStamp"]),
        "states": [{
            "signalGroup": each["signalGroup"],
            "state-time-speed": [{
                "eventState": names[event["eventState"]],
                "timing": {k: v for k, v in event["timing"].items() if v is not None},
            } for event in each["state_time_speed"]["movementEventList"]],
        } for each in state["states"]["movementList"]],
    }  # fmt: skip
    return wire.message_frame(wire.SPAT_MESSAGE, wire._encode("SPAT", {"intersections": [value]}))


def test_uper_and_json_of_the_same_frames_decode_alike(shared_data: Path) -> None:
    """Same observations, same unchanged, same heard: also where repeats skip the decode."""
    start = parse_iso("2026-03-02T12:59:58Z")
    for path in scripts(shared_data):
        records = [record for kind, _, record in filled(path, start) if kind == "SPAT"]
        if not records:
            continue
        at = start + 30 * SECOND
        ndjson = b"\n".join(map(orjson.dumps, records))
        left = decode("ode-json", ndjson, context(at=at))
        right = decode("j2735", b"".join(map(to_uper, records)), context(at=at))
        assert told(left) == told(right)
        assert (left.messages, left.unchanged) == (right.messages, right.unchanged)
        assert left.heard == right.heard


def test_ode_pairs_agree(shared_data: Path) -> None:
    """Each validation case: its input, and the record that ODE made of it, say the same."""
    folder = shared_data / FOLDER / "jpo-ode"
    cases = json.loads((folder / "UDPMAP_To_EncodedJSON_Validation.json").read_bytes())["cases"]
    for case in cases:
        left = decode("j2735", bytes.fromhex(case["input"]), context())
        right = decode("ode-json", orjson.dumps(case["expected"]), context())
        assert [r.reason for r in left.rejected[:1]] == [r.reason for r in right.rejected]
        assert left.things == right.things
    path = folder / "JSONEncodedMAP_to_Asn1DecoderInput_Validation.json"
    whole = decode("ode-json", path.read_bytes(), context())
    assert (whole.messages, whole.rejected) == (5, ())
    assert [t.thing for t in whole.things] == ["8802", "8805", "8808", "12113", "12112"]
    for case, thing in zip(json.loads(path.read_bytes())["cases"], whole.things, strict=True):
        expected = re.search(r"<bytes>([0-9A-F]+)</bytes>", case["expected"])
        assert expected is not None
        assert decode("j2735", bytes.fromhex(expected[1]), context()).things == (thing,)
    two = (folder / "UDPMAP_To_EncodedJSON_Validation.json").read_bytes()
    assert decode("ode-json", two, context()).messages == 2


def test_recorded_map_json(shared_data: Path) -> None:
    """28 lanes around a crossing in Littleton, all within 500 m of its reference point."""
    payload = (shared_data / FOLDER / "jpo-conflictmonitor" / "MAP.json").read_bytes()
    decoded = decode("ode-json", payload, context())
    (thing,) = decoded.things
    assert (thing.thing, thing.location) == ("12110", (-105.0914122, 39.5952649))
    lanes = thing.properties["lanes"]
    assert len(lanes) == 28
    first = lanes[0]
    assert (first["id"], first["signal_groups"], first["connects_to"]) == (2, [4], [19])
    assert (first["direction"], first["type"], first["width_cm"]) == ("ingress", "vehicle", 366)
    assert thing.geometry is not None
    for line in thing.geometry["coordinates"]:
        for longitude, latitude in line:
            assert abs(longitude - -105.0914122) < 0.006
            assert abs(latitude - 39.5952649) < 0.005


def test_recorded_spat_in_an_ode_record(shared_data: Path) -> None:
    """The year and minute come from odeReceivedAt: 2024, whatever the receiver's clock says."""
    payload = (shared_data / FOLDER / "jpo-ode" / "decoder-input-spat.json").read_bytes()
    decoded = decode("ode-json", payload, context())
    (heard,) = decoded.heard
    assert (heard.thing, to_iso(heard.phenomenon_time)) == ("8804", "2024-03-15T19:42:58.423000Z")
    found = results(decoded)
    assert found["signal-state/2"] == GREEN
    assert to_datetime(round(found["minimum-end/2"] * SECOND)) == datetime(
        2024, 3, 15, 19, 30, 2, 400_000, tzinfo=UTC
    )


# --- garbage ------------------------------------------------------------------------------------


quick = settings(max_examples=100, deadline=None)


def check(decoded: Decoded) -> None:
    assert decoded.messages >= len(decoded.rejected)
    assert decoded.received == decoded.observations + len(decoded.rejected)
    assert all(rejected.reason and rejected.detail for rejected in decoded.rejected)


@quick
@given(st.binary(max_size=400), st.sampled_from(["j2735", "ode-json"]))
def test_arbitrary_bytes(payload: bytes, format_name: str) -> None:
    check(decode(format_name, payload, context()))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@quick
@given(st.data())
def test_mutated_records(shared_data: Path, data: st.DataObject) -> None:
    """One value of a real record is replaced by any other JSON value."""
    path = data.draw(st.sampled_from(scripts(shared_data)))
    kinds = {kind: record for kind, _, record in filled(path, NOW)}
    record = kinds[data.draw(st.sampled_from(sorted(kinds)))]
    spot: Any = record
    while True:
        keys = list(spot) if isinstance(spot, dict) else range(len(spot))
        if not keys:
            break
        key = data.draw(st.sampled_from(list(keys)))
        inner = spot[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 9)) == 0:
            spot[key] = data.draw(json_values)
            break
        spot = inner
    memory: dict[Any, Any] = {}
    payload = json.dumps(record).encode()
    for _ in range(2):
        check(decode("ode-json", payload, context(memory)))


@quick
@given(st.integers(0, 10**9), st.sampled_from(["spat", "map", "envelope"]))
def test_mutated_frames(shared_data: Path, seed: int, kind: str) -> None:
    """Real frames with bits flipped, bytes cut out, doubled and cut off."""
    folder = shared_data / FOLDER / "jpo-ode"
    payload = {
        "spat": lambda: bytes.fromhex((folder / "spat_udp_example.hex").read_text()),
        "map": lambda: bytes.fromhex(
            json.loads((folder / "UDPMAP_To_EncodedJSON_Validation.json").read_bytes())["cases"][0][
                "input"
            ]
        ),
        "envelope": lambda: bytes.fromhex(
            json.loads((folder / "decoder-input-bsm.json").read_bytes())["payload"]["data"]["bytes"]
        ),
    }[kind]()
    random_ = random.Random(seed)
    mutated = bytearray(payload * 2)
    for _ in range(random_.randint(1, 6)):
        at = random_.randrange(len(mutated))
        match random_.randrange(4):
            case 0:
                mutated[at] ^= 1 << random_.randrange(8)
            case 1:
                del mutated[at : at + random_.randint(1, 9)]
            case 2:
                mutated[at:at] = mutated[at : at + random_.randint(1, 9)]
            case _:
                del mutated[max(at, 1) :]
        if not mutated:
            mutated = bytearray(payload)
    memory: dict[Any, Any] = {}
    for _ in range(2):
        check(decode("j2735", bytes(mutated), context(memory)))


def test_many_tiny_frames_are_bounded() -> None:
    payload = b"\x00\x13\x00" * 300_000
    decoded = decode("j2735", payload, context())
    assert decoded.messages == 20_001
    assert decoded.rejected[-1].reason == "too-large"


def test_examples() -> None:
    """What the folder's examples say they decode to."""
    examples = Path(decode.__code__.co_filename).parent / "examples"
    for path in sorted(examples.glob("*.json")):
        source = path.with_suffix("")
        expected = json.loads(path.read_bytes())
        at = parse_iso("2026-01-01T00:00:00Z")
        decoded = decode(source.suffix[1:], source.read_bytes(), Context("example", at))
        assert (decoded.messages, decoded.unchanged) == (
            expected["messages"],
            expected["unchanged"],
        )
        assert [r.reason for r in decoded.rejected] == expected["rejected"]
        listed = {
            (o["thing"], o["property"], parse_iso(o["phenomenon_time"]), o["result"])
            for o in expected["observations"]
        }
        assert set(told(decoded)) == listed
        assert len(listed) == decoded.observations
