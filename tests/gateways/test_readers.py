"""Readers over real recordings: same bytes twice, and the account's own message counts."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import domains
from core.errors import CityError
from core.formats import DECODERS
from core.sector import Context
from core.sensorthings import Decoded
from gateways.batches import Batch
from gateways.readers import FILE_FORMATS, file_format
from gateways.readers.cm_script import fill
from gateways.replay import Pace, parse_start, read_batches

RECEIVED_AT_US = 1_767_225_600_000_000
SUMMER_2025_US = 1_750_000_000_000_000


def files_of(*patterns: str) -> Callable[[Path], list[Path]]:
    return lambda folder: sorted(path for pattern in patterns for path in folder.glob(pattern))


# sector, format, files, native messages by an independent count (grep of lines, jq of records)
RECORDINGS = {
    "ais": (
        "ports",
        "nmea",
        files_of("ais/libais/*.nmea", "ais/libais/*.aivdm", "ais/pyais/*", "ais/signalk/*.log"),
    ),
    "ais-points": ("ports", "csv", files_of("ais/noaa/*.csv")),
    "modems": ("edge", "csv", files_of("cellular-5g/mtu-cork/*.csv")),
    "soil": ("farms", "csv", files_of("farm-sensors/drummondville/*.csv")),
    "uplinks": ("farms", "lorawan", files_of("lorawan/*.json")),
    "senml": ("farms", "senml-json", files_of("senml/*.json")),
    "senml-cbor": ("farms", "senml-cbor", files_of("senml/*.cbor")),
    "spat": ("signals", "j2735", files_of("traffic-signals/jpo-ode/*.hex")),
    "ode": (
        "signals",
        "ode-json",
        files_of("traffic-signals/jpo-ode/*.json", "traffic-signals/jpo-conflictmonitor/*.json"),
    ),
    "scripts": ("signals", "cm-script", files_of("traffic-signals/jpo-conflictmonitor/*.csv")),
}

MESSAGES = {
    "ais-points": 1_000,
    "modems": 363 + 640 + 906 + 433 + 612 + 9_035,
    "soil": 8_768 + 4_384 + 1_461,
    "uplinks": 6,
    "spat": 1,
    "ode": 5 + 2 + 4 + 1,
    "scripts": 34 + 63 + 97 + 4 + 44 + 39 + 40 + 32,
}


def decode(batch: Batch, context: Context) -> Decoded:
    if batch.format in DECODERS:
        return DECODERS[batch.format](batch.payload, context)
    decoded: Decoded = domains.load(batch.sector, "decode").decode(
        batch.format, batch.payload, context
    )
    return decoded


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_second_reading_makes_the_same_batches(shared_data: Path, name: str) -> None:
    sector, form, files = RECORDINGS[name]
    found = files(shared_data)
    assert found
    boot, batches = read_batches(sector, form, found, None)
    again_boot, again = read_batches(sector, form, found, None)
    everything = list(batches)
    assert boot == again_boot
    assert everything == list(again)
    assert [batch.seq for batch in everything] == list(range(len(everything)))


@pytest.mark.parametrize("name", RECORDINGS)
def test_the_platform_counts_the_messages_that_were_sent(shared_data: Path, name: str) -> None:
    sector, form, files = RECORDINGS[name]
    if sector not in domains.names() and form not in DECODERS:
        pytest.skip(f"sector {sector} is not installed")
    _, batches = read_batches(sector, form, files(shared_data), None)
    context = Context("g1", RECEIVED_AT_US)
    sent = 0
    for batch in batches:
        sent += batch.messages
        assert decode(batch, context).messages == batch.messages, batch.seq
    assert sent == MESSAGES.get(name, sent)
    assert sent > 0


def test_every_line_that_is_no_comment_is_sent(shared_data: Path) -> None:
    _, _, files = RECORDINGS["ais"]
    found = files(shared_data)
    _, batches = read_batches("ports", "nmea", found, None)
    lines = [line.strip() for path in found for line in path.read_bytes().splitlines()]
    expected = [line for line in lines if line and not line.startswith(b"#")]
    sent = b"".join(batch.payload for batch in batches).splitlines()
    assert len(sent) == len(expected)
    bodies = [line.rpartition(b"\\")[2] for line in sent]
    assert bodies == [line.rpartition(b"\\")[2] for line in expected]


def test_parts_of_one_message_share_a_batch(tmp_path: Path) -> None:
    single = "!AIVDM,1,1,,B,13F?Vv700<DJuLEtvep`iToV0<00,0*78"
    first = "!AIVDM,2,1,1,A,55?MbV02;H;s<HtKR20EHE:0@T4@Dn2222222216L961O5Gf0NSQEp6ClRp8,0*1C"
    second = "!AIVDM,2,2,1,A,88888888880,2*25"
    gatehouse = "$PGHP,1,2008,5,9,0,0,0,10,338,2,,1,09*17"
    for place in range(480, 520):
        lines = [single] * 1_200
        lines[place : place + 4] = [first, single, gatehouse, second]
        path = tmp_path / "a.nmea"
        path.write_text("\n".join(lines))
        _, batches = read_batches("ports", "nmea", [path], None)
        holding = [b for b in batches if b",2,1,1,A" in b.payload or b",2,2,1,A" in b.payload]
        assert len(holding) == 1
        assert b"$PGHP" in holding[0].payload


def test_a_line_without_time_gets_one_from_its_place_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.nmea"
    path.write_text(
        "# comment\n!AIVDM,1,1,,A,13HOI:0P0000VOHLCnHQKwvL05Ip,0*23\n"
        "!AIVDM,1,1,,B,15MC>W@01EIAn5VA4l`N2;>0015@,0*01,b2003669981,1272412825\n"
    )
    (batch,) = read_batches("ports", "nmea", [path], None)[1]
    made, timed = batch.payload.splitlines()
    assert made.startswith(b"\\c:1704067202*")  # 2024-01-01T00:00:00Z and two lines
    assert timed.endswith(b"1272412825")
    (moved,) = read_batches("ports", "nmea", [path], SUMMER_2025_US)[1]
    made, timed = moved.payload.splitlines()
    assert made.startswith(b"\\c:1750000002*")
    assert timed.endswith(b",1750000000")


@pytest.mark.parametrize("name", ["modems", "soil", "ais-points", "ais"])
def test_moved_times_keep_their_distances(shared_data: Path, name: str) -> None:
    sector, form, files = RECORDINGS[name]
    found = files(shared_data)[:1]
    recorded = list(read_batches(sector, form, found, None)[1])
    moved = list(read_batches(sector, form, found, SUMMER_2025_US)[1])
    assert sum(b.messages for b in recorded) == sum(b.messages for b in moved)
    first = recorded[0].time_us
    for before, after in zip(recorded, moved, strict=False):
        assert before.time_us is not None
        assert after.time_us is not None
        assert abs((after.time_us - SUMMER_2025_US) - (before.time_us - (first or 0))) < 86_400e6


def test_placeholders_become_numbers_and_times() -> None:
    template = (
        b'{"a":"@ISO_DATE_TIME@","b":"@MINUTE_OF_YEAR@","c":"@MILLI_OF_MINUTE@",'
        b'"d":"@OFFSET_SECONDS_-0.5@","e":"@UNKNOWN@","f":"at @ISO_DATE_TIME@"}'
    )
    filled = fill(template, 1_704_067_200_000_000 + 90_250_000)
    assert filled == (
        b'{"a":"2024-01-01T00:01:30.250000Z","b":1,"c":30250,'
        b'"d":"2024-01-01T00:01:29.750000Z","e":"@UNKNOWN@","f":"at 2024-01-01T00:01:30.250000Z"}'
    )


def test_no_placeholder_is_left_in_a_script(shared_data: Path) -> None:
    sector, form, files = RECORDINGS["scripts"]
    for batch in read_batches(sector, form, files(shared_data), None)[1]:
        assert b'"@' not in batch.payload


def test_arrow_rows_are_cut_and_kept(tmp_path: Path) -> None:
    table = pa.table(
        {
            "thing": pa.array(["n1"] * 25_000).dictionary_encode(),
            "property": pa.array(["rsrp"] * 25_000).dictionary_encode(),
            "phenomenon_time": pa.array(range(25_000), pa.timestamp("us", "UTC")),
            "result": pa.array([float(i) for i in range(25_000)]),
        }
    )
    for name, writer in (("s.arrows", pa.ipc.new_stream), ("f.arrow", pa.ipc.new_file)):
        with writer(tmp_path / name, table.schema) as out:
            out.write_table(table)
        batches = list(read_batches("edge", "arrow", [tmp_path / name], SUMMER_2025_US)[1])
        assert [batch.messages for batch in batches] == [10_000, 10_000, 5_000]
        rows = pa.concat_tables(
            pa.ipc.open_stream(batch.payload).read_all().unify_dictionaries() for batch in batches
        )
        assert rows["result"].to_pylist() == table["result"].to_pylist()
        assert rows["phenomenon_time"].cast(pa.int64())[0].as_py() == SUMMER_2025_US


@pytest.mark.parametrize("form", sorted(FILE_FORMATS))
def test_a_broken_file_is_sent_or_one_clear_error(tmp_path: Path, form: str) -> None:
    for content in (b"", b"\xff\xfe\x00garbage", b"{", b'"a\n"b', b"[1,2]", b"a,b\n1\n"):
        path = tmp_path / "broken"
        path.write_bytes(content)
        try:
            batches = list(read_batches("edge", form, [path], None)[1])
        except CityError as error:
            assert error.slug == "invalid"
        else:
            # What is broken is the platform's to reject and account: it is sent all the same.
            assert all(batch.payload for batch in batches)
            if form in DECODERS:
                context = Context("g1", RECEIVED_AT_US)
                assert [decode(b, context).messages for b in batches] == [
                    b.messages for b in batches
                ]


def test_a_missing_file_and_an_unknown_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(CityError, match="nothing"):
        read_batches("edge", "csv", [tmp_path / "nothing.csv"], None)
    with pytest.raises(CityError, match="morse"):
        read_batches("edge", "morse", [tmp_path], None)


FRAGMENTS = st.sampled_from(
    [
        b"!AIVDM,2,1,1,A,55?MbV02;H;s,0*1C", b"!AIVDM,2,2,1,A,88888888880,2*25",
        b"\\c:1*00\\!AIVDM,1", b'"',
        b"$PGHP,1,2008,5,9,0,0,0,10,338,2,,1,09*17", b"time,v", b"2024-01-01T00:00:00Z,1", b",",
        b"SPAT,12,{}", b"00133800", b'{"metadata":{"odeReceivedAt":"2024-01-01"}}', b"[{}]", b"{",
        b'{"cases":[{"input":1}]}', b'{"devices":[{"examples":[{}]}]}', b'[{"bt":"x","v":1}]', b"#",
        b"\x81\xa2\x00\x61a\x02\x01", b"9999-99-99", b"c:99999999999999", b"\xef\xbb\xbf",
    ]
)  # fmt: skip
CONTENT = st.lists(FRAGMENTS | st.binary(max_size=40), max_size=12).map(b"\n".join)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=CONTENT, form=st.sampled_from(sorted(FILE_FORMATS)), moved=st.booleans())
def test_no_content_breaks_a_reader(tmp_path: Path, content: bytes, form: str, moved: bool) -> None:
    path = tmp_path / "any"
    path.write_bytes(content)
    start_us = SUMMER_2025_US if moved else None
    try:
        batches = list(read_batches("edge", form, [path], start_us)[1])
    except CityError as error:
        assert error.slug == "invalid"
    else:
        assert batches == list(read_batches("edge", form, [path], start_us)[1])


def test_a_pace_is_kept_without_cutting_batches() -> None:
    batches = [
        Batch("edge", "csv", "r", seq, b"", 100, SUMMER_2025_US + seq * 500_000) for seq in range(3)
    ]
    for rate, gaps in (("max", [0, 0, 0]), ("50", [0, 2, 4]), ("real", [0, 0.5, 1])):
        pace = Pace(rate)
        waits = [pace.seconds_until(batch) for batch in batches]
        assert waits == pytest.approx(gaps, abs=0.1), rate
    for rate in ("often", "-1"):
        with pytest.raises(CityError, match="rate"):
            Pace(rate)


def test_a_start_is_recorded_now_or_a_time_with_a_zone() -> None:
    assert parse_start("recorded") is None
    assert parse_start("2025-06-15T15:06:40Z") == SUMMER_2025_US
    assert (parse_start("now") or 0) > SUMMER_2025_US
    with pytest.raises(CityError, match="start"):
        parse_start("2025-06-15T15:06:40")


def test_a_gatehouse_line_with_a_bad_checksum_gives_no_time(tmp_path: Path) -> None:
    """The platform will not believe it either: the sentence gets a time made from its place."""
    recording = tmp_path / "gatehouse.nmea"
    sentence = "!AIVDM,1,1,,B,15NBj>PP1gG>1PVKTDTUJOv00<0M,0*09"
    recording.write_text(f"$PGHP,1,2008,5,9,0,0,0,10,338,2,,1,09*18\n{sentence}\n")
    reader = file_format("nmea").reader()
    payload = reader.join([record.payload for record in reader.read([recording], None)])
    assert re.search(rb"\\c:17040672\d\d\*..\\!AIVDM", payload)
