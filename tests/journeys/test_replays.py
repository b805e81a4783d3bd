"""Every recording replays over MQTT, AIS over Kafka and HTTP too: counted alike, stored once."""

import csv
import json
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cbor2
import pytest

from core.tokens import Role, issue, load_keys
from gateways.replay import ReplayResult, replay
from tests.journeys import replays
from tests.journeys.replays import Sent
from tests.kafka_server import KafkaServer
from tests.platform import CHIMATA, Platform

pytestmark = [pytest.mark.shared_data, pytest.mark.timeout(280)]

SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
KNOT = 1852 / 3600
SECOND = 1_000_000
FOLDERS = ("traffic-signals", "ais", "cellular-5g", "farm-sensors", "lorawan", "senml")
NO_RECORDINGS = (
    "traffic-signals/sumo/*/*",  # road networks for a simulator
    "ais/libais/*.json",  # what another decoder found in the .nmea beside it
    "farm-sensors/*/*.txt",
    "senml/*.txt",
    "senml/*.xml",
    "senml/*.exi",
)
NEW_SINCE = """
SELECT b.gateway, t.key, d.property, o.phenomenon_time, to_jsonb(o)
FROM (SELECT append_id, datastream_id, phenomenon_time, to_jsonb(o) FROM observation o
      UNION ALL SELECT append_id, datastream_id, phenomenon_time, to_jsonb(o)
      FROM observation_position o) AS o
JOIN datastream d ON d.id = o.datastream_id JOIN thing t ON t.id = d.thing_id
JOIN batch b ON b.append_id = o.append_id AND b.sector = t.sector
WHERE b.gateway LIKE %s AND o.phenomenon_time < b.received_at - interval '1 second' LIMIT 20
"""


# -- counting native messages straight from the files, knowing nothing of our readers -------------


def count_lines(path: Path) -> int:
    """Lines that are neither blank nor a # comment."""
    lines = (line.strip() for line in path.read_bytes().split(b"\n"))
    return sum(1 for line in lines if line and not line.startswith(b"#"))


def count_csv(path: Path) -> int:
    """Rows after the header, as the csv module sees them."""
    with path.open(newline="", encoding="utf-8") as file:
        return sum(1 for row in csv.reader(file) if row) - 1


def count_ode(path: Path) -> int:
    """One record, or one a test case."""
    value = json.loads(path.read_bytes())
    return len(value["cases"]) if "cases" in value else 1


def count_uplinks(path: Path) -> int:
    """Codec examples."""
    return sum(len(device["examples"]) for device in json.loads(path.read_bytes())["devices"])


def count_senml(path: Path) -> int:
    """Records of a pack that have a value (RFC 8428, 4.2: others only set base fields)."""
    cbor = path.suffix == ".cbor"
    names = {2, 3, 4, 5, 8} if cbor else {"v", "vs", "vb", "s", "vd"}
    pack = cbor2.loads(path.read_bytes()) if cbor else json.loads(path.read_bytes())
    return sum(1 for record in pack if names & record.keys())


@dataclass(frozen=True)
class Kind:
    """Files of one kind: how they are sent and how their messages are counted."""

    name: str
    sector: str
    form: str
    patterns: tuple[str, ...]
    count: Callable[[Path], int]
    together: bool = False
    """All files in one replay: many tiny ones."""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("script", "signals", "cm-script", ("traffic-signals/jpo-conflictmonitor/*.csv",),
             count_lines),
        Kind("ode", "signals", "ode-json",
             ("traffic-signals/jpo-ode/*.json", "traffic-signals/jpo-conflictmonitor/*.json"),
             count_ode),
        Kind("hex", "signals", "j2735", ("traffic-signals/jpo-ode/*.hex",), count_lines),
        Kind("nmea", "ports", "nmea",
             ("ais/libais/*.nmea", "ais/libais/*.aivdm", "ais/pyais/*", "ais/signalk/*"),
             count_lines),
        Kind("ais-csv", "ports", "csv", ("ais/noaa/*.csv",), count_csv),
        Kind("modem", "edge", "csv", ("cellular-5g/*/*.csv",), count_csv),
        Kind("logger", "farms", "csv", ("farm-sensors/*/*.csv",), count_csv),
        Kind("uplinks", "farms", "lorawan", ("lorawan/*.json",), count_uplinks),
        Kind("senml", "farms", "senml-json", ("senml/*.json",), count_senml, together=True),
        Kind("senml-cbor", "farms", "senml-cbor", ("senml/*.cbor",), count_senml, together=True),
    )
}  # fmt: skip


def matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def gateway_of(kind: Kind, path: Path) -> str:
    return re.sub("[^a-z0-9]+", "-", f"{kind.name}-{path.stem}".lower())[:60].strip("-")


@dataclass
class Replays:
    """What has been sent so far: each kind once, on first use."""

    platform: Platform
    folder: Path
    outboxes: Path
    sent: dict[str, dict[str, tuple[list[Path], Sent]]] = field(default_factory=dict)

    def jobs(self, kind: Kind) -> dict[str, list[Path]]:
        """Files by gateway."""
        files = matching(self.folder, kind.patterns)
        assert files, f"no recordings of {kind.name}"
        if kind.together:
            return {kind.name: files}
        return {gateway_of(kind, path): [path] for path in files}

    def start_of(self, kind: Kind, number: int) -> str:
        """Scripts are of the same crossings: each gets a day of its own."""
        return f"2024-02-{number + 1:02d}T00:00:00Z" if kind.form == "cm-script" else "recorded"

    def send(self, kind: Kind) -> dict[str, tuple[list[Path], Sent]]:
        """Send all files of a kind, two at a time."""

        def one(job: tuple[int, tuple[str, list[Path]]]) -> tuple[str, tuple[list[Path], Sent]]:
            number, (gateway, files) = job
            sent = replays.replay(
                self.platform, files, "--start", self.start_of(kind, number),
                sector=kind.sector, form=kind.form, gateway=gateway, state=self.outboxes,
            )  # fmt: skip
            return gateway, (files, sent)

        with ThreadPoolExecutor(2) as pool:
            return dict(pool.map(one, enumerate(self.jobs(kind).items())))

    def send_again(self, kind: Kind) -> dict[str, ReplayResult]:
        """The same once more, by what the command calls: saves the starting of many processes."""
        keys = load_keys(self.platform.data / "keys")
        return {
            gateway: replay(
                sector=kind.sector,
                format=kind.form,
                files=files,
                to=self.platform.mqtt,
                gateway=gateway,
                token=issue(keys, Role.GATEWAY, gateway=gateway),
                start=self.start_of(kind, number),
                outbox_folder=self.outboxes / "again",
            )
            for number, (gateway, files) in enumerate(self.jobs(kind).items())
        }

    def once(self, name: str) -> dict[str, tuple[list[Path], Sent]]:
        """The first replay of every file of this kind."""
        if name not in self.sent:
            self.sent[name] = self.send(KINDS[name])
        return self.sent[name]


@pytest.fixture(scope="module")
def replayed(platform: Platform, shared_data: Path, outboxes: Path) -> Replays:
    """One platform for all recordings."""
    return Replays(platform, shared_data, outboxes)


def test_every_file_is_a_recording_or_known_not_to_be(shared_data: Path) -> None:
    claimed = [path for kind in KINDS.values() for path in matching(shared_data, kind.patterns)]
    claimed += matching(shared_data, NO_RECORDINGS)
    every = {path for name in FOLDERS for path in (shared_data / name).rglob("*") if path.is_file()}
    assert len(claimed) == len(set(claimed))
    assert set(claimed) == every


@pytest.mark.parametrize("name", KINDS)
def test_a_recording_is_counted_as_sent_and_stored_once(replayed: Replays, name: str) -> None:
    """The sender's count, the account's and one straight from the file agree; twice is once."""
    kind, platform = KINDS[name], replayed.platform
    first = replayed.once(name)
    before = replays.account(platform)
    rows_before = replays.rows(platform, replays.ROWS)
    for gateway, (files, sent) in first.items():
        expected = sum(map(kind.count, files))
        check_sent(sent, expected)
        row = before[gateway]
        assert row["sector"] == kind.sector
        assert row["messages"] == expected, gateway
        assert row["missing"] == row["held"] == 0
        assert row["stored"] == sent.stored, gateway
        assert row["received"] >= sent.observations
        if not sent.refused:
            assert row["received"] == sent.observations
        assert row["received"] == row["stored"] + row["duplicate"] + row["rejected"]
        check_rejections(platform, gateway, row, files)
    again = replayed.send_again(kind)
    after = replays.account(platform)
    for gateway, (files, sent) in first.items():
        second = again[gateway]
        assert (second.sent, second.received) == (sent.batches, sent.batches)
        assert second.messages == second.messages_received == sent.messages
        assert second.stored == second.rejected == second.refused == 0
        row = after[gateway]
        assert row["messages"] == 2 * before[gateway]["messages"]
        assert (row["stored"], row["rejected"], row["missing"]) == (
            before[gateway]["stored"], before[gateway]["rejected"], 0,
        )  # fmt: skip
        check_rejections(platform, gateway, row, files)
    assert replays.rows(platform, replays.ROWS) == rows_before
    with replays.database(platform) as connection:
        replays.check_nothing_twice(connection)


def check_sent(sent: Sent, messages: int) -> None:
    """The replay ended well, and every batch has its receipt."""
    assert sent.code == 0, sent.said
    assert sent.messages == messages, sent.said
    assert sent.batches == sent.received + sent.refused > 0, sent.said
    assert sent.messages == sent.messages_received + sent.messages_refused
    assert sent.observations == sent.stored + sent.duplicate + sent.rejected


def check_rejections(
    platform: Platform, gateway: str, row: Mapping[str, Any], files: list[Path]
) -> None:
    """Every rejection is kept with its reason, and those of text formats with their very line."""
    found = replays.rows(
        platform,
        "SELECT reason, detail, payload, count FROM rejection WHERE gateway = %s",
        gateway,
    )
    assert sum(count for *_, count in found) == row["rejected"], gateway
    for reason, detail, payload, _ in found:
        assert SLUG.fullmatch(reason), reason
        assert detail.strip()
        assert bytes(payload) or "not kept" in detail
    if row["format"] == "nmea":
        # Untimed lines get a tag block before them: the recorded line is the payload's end.
        lines = {line.strip() for path in files for line in path.read_bytes().split(b"\n")}
        for _, detail, payload, _ in found:
            for part in bytes(payload).split(b"\n"):
                told = part.strip()
                assert told in lines or told.rpartition(b"\\")[2] in lines, (detail, told)


# -- values against independent decoders ----------------------------------------------------------


@pytest.mark.parametrize("name", ["tagblock", "typeexamples"])
def test_ships_are_where_libais_sees_them(replayed: Replays, name: str) -> None:
    """Longitude, latitude, speed and course of every position report."""
    sent = replayed.once("nmea")
    assert any(name in gateway for gateway in sent)
    told = (replayed.folder / "ais" / "libais" / f"{name}.json").read_text().splitlines()
    found = defaultdict(list)
    for mmsi, _time, *values in replays.rows(replayed.platform, replays.POSITIONS, "ports"):
        found[int(mmsi)].append(values)
    checked = 0
    for message in map(json.loads, filter(str.strip, told)):
        if message["type"] not in {1, 2, 3, 18, 19}:
            continue
        if abs(message["lon"]) > 180 or abs(message["lat"]) > 90:
            assert not any(abs(latitude) > 90 for _, latitude, *_ in found[message["mmsi"]])
            continue
        checked += 1
        assert any(
            longitude == pytest.approx(message["lon"], abs=2e-5)
            and latitude == pytest.approx(message["lat"], abs=2e-5)
            and speed == pytest.approx(message["speed"] * KNOT, abs=1e-3)
            and course == pytest.approx(message["course"], abs=1e-2)
            for longitude, latitude, speed, course in found[message["mmsi"]]
        ), message
    assert checked >= 3


def test_marine_cadastre_rows_are_all_there(replayed: Replays) -> None:
    """Each row of the CSV is a position at its own time."""
    replayed.once("ais-csv")
    found = {
        (int(mmsi), time): values
        for mmsi, time, *values in replays.rows(replayed.platform, replays.POSITIONS, "ports")
    }
    (path,) = matching(replayed.folder, KINDS["ais-csv"].patterns)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            moment = datetime.fromisoformat(row["BaseDateTime"]).replace(tzinfo=UTC)
            longitude, latitude, speed, _ = found[
                int(row["MMSI"]), round(moment.timestamp() * SECOND)
            ]
            assert (longitude, latitude) == (float(row["LON"]), float(row["LAT"]))
            if float(row["SOG"]) < 102.3:  # ITU-R M.1371: 102.3 is "not available"
                assert speed == pytest.approx(float(row["SOG"]) * KNOT, abs=1e-3)


def test_modems_report_what_the_table_says(replayed: Replays) -> None:
    """Signal strength and bytes sent, row by row of every file; a second row of a time corrects."""
    replayed.once("modem")
    stored = {
        (thing, name, time): result
        for thing, name, time, result in replays.rows(replayed.platform, replays.NUMBERS, "edge")
    }
    checked = 0
    for path in matching(replayed.folder, KINDS["modem"].patterns):
        gateway = gateway_of(KINDS["modem"], path)
        told = defaultdict(set)
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                moment = datetime.strptime(row["Time"], "%a %b %d %H:%M:%S %Z %Y")
                time = round(moment.replace(tzinfo=UTC).timestamp() * SECOND)
                told["rsrp", time].add(float(row["rsrp(dBm)"]))
                told["sent-bytes", time].add(float(row["Sent Bytes"]))
        for (name, time), values in told.items():
            result = stored.get((gateway, name, time))
            if result is None:
                # 0 dBm is what these modems say without a cell.
                assert (name, values) == ("rsrp", {0.0}), (gateway, time, values)
            else:
                assert result in values
                checked += 1
    assert checked > 10_000


def test_loggers_keep_every_value_and_no_gap(replayed: Replays) -> None:
    """Soil sensors: as many results as cells with a number, each the cell's."""
    replayed.once("logger")
    (path,) = (p for p in matching(replayed.folder, KINDS["logger"].patterns) if "state" in p.name)
    names = {
        "Soil Volumetric Water Content": "soil-moisture",
        "Soil Temperature": "soil-temperature",
    }
    stored = {
        (thing, name.partition("/")[0], time): result
        for thing, name, time, result in replays.rows(replayed.platform, replays.NUMBERS, "farms")
        if thing.endswith("-sensor")
    }
    told = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["Value"] in {"", "NA", "NaN"}:
                continue
            thing = f"{row['Experimental Plot']} {row['Sensor']}".lower().replace(" ", "-")
            moment = datetime.fromisoformat(row["date"]).replace(tzinfo=UTC)
            time = round(moment.timestamp() * SECOND)
            told[thing, names[row["Variable"]], time] = float(row["Value"])
    assert len(told) > 5_000
    assert stored == told


def test_uplinks_hold_what_the_makers_decoder_says(replayed: Replays) -> None:
    """Every number of the codec examples is a result of that uplink, in its unit or ours."""
    replayed.once("uplinks")
    ((path, _),) = [(files[0], sent) for files, sent in replayed.once("uplinks").values()]
    stored = defaultdict(list)
    for _thing, _name, time, result in replays.rows(replayed.platform, replays.NUMBERS, "farms"):
        stored[time].append(result)
    examples = [
        e for device in json.loads(path.read_bytes())["devices"] for e in device["examples"]
    ]
    start = round(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * SECOND)
    checked = 0
    for number, example in enumerate(examples):
        results = stored[start + number * 60 * SECOND]
        if "errors" in example:
            assert results == []
            continue
        for name, value in example["data"].items():
            if name in {"protocol_version", "device_id"}:
                continue
            told = float(value["value"] if isinstance(value, dict) else value)
            # m³/m³ -> %, kPa -> hPa
            assert any(
                result == pytest.approx(told * factor, abs=1e-6)
                for result in results
                for factor in (1, 10, 100)
            ), (name, told, results)
            checked += 1
    assert checked > 25


@pytest.mark.parametrize("kind", ["senml", "senml-cbor"])
def test_packs_are_resolved_as_the_standard_resolves_them(replayed: Replays, kind: str) -> None:
    """RFC 8428's own resolved examples: name, time and value of every record with its own time."""
    replayed.once("senml")
    sent = replayed.once(kind)
    stems = {path.name.split(".")[0] for files, _ in sent.values() for path in files}
    stored = defaultdict(set)
    for query in (replays.NUMBERS, replays.DOCUMENTS):
        for thing, name, time, result in replays.rows(replayed.platform, query, "farms"):
            if isinstance(result, int | float | str):
                stored[joined(thing, name), time].add(result)
    # Two examples say different things of one sensor and time: the later one corrects the other.
    for thing, name, time, result in replays.rows(replayed.platform, replays.SUPERSEDED, "farms"):
        stored[joined(thing, name), time].add(result)
    positions = {
        (key, time): (longitude, latitude)
        for key, time, longitude, latitude, *_ in replays.rows(
            replayed.platform, replays.POSITIONS, "farms"
        )
    }
    checked = 0
    for path in sorted((replayed.folder / "senml").glob("*.resolved.json")):
        if path.name.split(".")[0] not in stems:
            continue
        for record in json.loads(path.read_bytes()):
            time = round(record["t"] * SECOND)
            value = record.get("v", record.get("vs", record.get("vb")))
            if value is None:
                continue
            checked += 1
            if record.get("u") in {"lon", "lat"}:
                place = positions[record["n"], time]
                assert place[record["u"] == "lat"] == value
                continue
            found = {result for key in keys_of(record) for result in stored[key, time]}
            assert value in found, (path.name, record, found)
    assert checked >= 10


def joined(thing: str, name: str) -> str:
    return f"{thing} {name}"


UNIT_NAMES = {"Cel": "temperature", "%RH": "humidity", "%EL": "battery"}


def keys_of(record: Mapping[str, Any]) -> Iterator[str]:
    """Where a resolved name may stand: as Thing and property, or as Thing named by its unit."""
    name = record["n"]
    for separator in ":/":
        thing, found, last = name.rpartition(separator)
        if found:
            yield joined(thing, last)
    yield joined(name, UNIT_NAMES.get(record.get("u", ""), "value"))


def test_signal_states_at_every_frame(replayed: Replays) -> None:
    """At each SPaT's own time every signal group is in the state that the frame says."""
    replayed.once("script")
    changes = defaultdict(list)
    for thing, name, time, text in replays.rows(replayed.platform, replays.CATEGORIES, "signals"):
        if name.startswith("signal-state/"):
            changes[thing, int(name.partition("/")[2])].append((time, text))
    checked = 0
    files = matching(replayed.folder, KINDS["script"].patterns)
    for number, path in enumerate(files):
        start = round(datetime(2024, 2, number + 1, tzinfo=UTC).timestamp() * SECOND)
        for line in path.read_text("utf-8").splitlines():
            head, _, rest = line.partition(",")
            offset, _, text = rest.partition(",")
            if head != "SPAT":
                continue
            time = start + int(offset) * 1000
            states = json.loads(text)["payload"]["data"]["intersectionStateList"]
            for state in states["intersectionStatelist"]:
                for movement in state["states"]["movementList"]:
                    told = movement["state_time_speed"]["movementEventList"][0]["eventState"]
                    key = (str(state["id"]["id"]), movement["signalGroup"])
                    _, stored = max(each for each in changes[key] if each[0] <= time)
                    assert words(stored) == words(told), (path.name, offset, key)
                    checked += 1
    assert checked > 500


def words(state: str) -> str:
    return re.sub("[^a-z]", "", state.lower())


def test_uper_frames_hold_their_intersections(replayed: Replays) -> None:
    """The five MAP frames' intersections are placed, and the SPaT's has its eight groups."""
    sent = {gateway: each for gateway, (_, each) in replayed.once("ode").items()}
    replayed.once("hex")
    # One of two MAPs is broken: the batch is taken all the same, and the broken one is a rejection.
    (pair,) = (each for gateway, each in sent.items() if "udpmap" in gateway)
    assert (pair.messages, pair.rejected, pair.refused) == (2, 1, 0)
    placed = dict(
        replays.rows(
            replayed.platform,
            "SELECT key, longitude IS NOT NULL FROM thing WHERE sector = 'signals'",
        )
    )
    for key in ("8802", "8805", "8808", "12112", "12113"):
        assert placed[key]
    groups = {
        name
        for thing, name, *_ in replays.rows(replayed.platform, replays.CATEGORIES, "signals")
        if thing == "8804" and name.startswith("signal-state/")
    }
    assert len(groups) >= 8


# -- AIS over the other ways in -------------------------------------------------------------------


def check_other_way(replayed: Replays, way: str, to: str) -> None:
    """All AIS recordings that MQTT has taken, by another way: counted the same, stored nothing."""
    platform = replayed.platform
    over_mqtt = {**replayed.once("nmea"), **replayed.once("ais-csv")}
    jobs = [(name, kind) for kind in ("nmea", "ais-csv") for name in replayed.jobs(KINDS[kind])]

    def send(job: tuple[str, str]) -> Sent:
        gateway, kind = job
        files = over_mqtt[gateway][0]
        return replays.replay(
            platform, files, sector="ports", form=KINDS[kind].form, to=to,
            gateway=f"{way}-{gateway}", state=replayed.outboxes,
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        sent = dict(zip(jobs, pool.map(send, jobs), strict=True))
    told = replays.account(platform)
    for (gateway, kind), each in sent.items():
        files = over_mqtt[gateway][0]
        check_sent(each, sum(map(KINDS[kind].count, files)))
        row, first = told[f"{way}-{gateway}"], told[gateway]
        assert row["messages"] == each.messages
        assert row["missing"] == row["held"] == 0
        assert row["rejected"] == first["rejected"]
        check_rejections(platform, f"{way}-{gateway}", row, files)
        repeated = send((gateway, kind)) if "test" in gateway else None
        assert repeated is None or (repeated.code, repeated.stored) == (0, 0)
    # Another way, the same observations: all were there but those that bear no time of their own.
    # (Documents are left out: static data is told once a change, so it depends on who came first.)
    assert replays.rows(platform, NEW_SINCE, f"{way}-%") == []
    with replays.database(platform) as connection:
        replays.check_nothing_twice(connection)


def test_ais_over_http(replayed: Replays) -> None:
    check_other_way(replayed, "http", replayed.platform.url)


@contextmanager
def kafka_ingestor(platform: Platform, kafka: KafkaServer, folder: Path) -> Iterator[None]:
    """`chimata ingest kafka` as its own process, on the platform's database."""
    with replays.database(platform) as connection:
        url = connection.info.dsn
        password = connection.info.password
    assert password
    environment = {
        **os.environ,
        "CHIMATA_DATABASE_URL": f"{url} password={password}",
        "CHIMATA_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "CHIMATA_DATA": str(platform.data),
    }
    with (folder / "kafka.err").open("wb") as err:
        process = subprocess.Popen(
            [str(CHIMATA), "ingest", "kafka"], env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", (folder / "kafka.err").read_text()
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.kafka
def test_ais_over_kafka(replayed: Replays, kafka_server: KafkaServer, tmp_path: Path) -> None:
    kafka_server.clear()
    with kafka_ingestor(replayed.platform, kafka_server, tmp_path):
        check_other_way(replayed, "kafka", f"kafka://{kafka_server.bootstrap}")
