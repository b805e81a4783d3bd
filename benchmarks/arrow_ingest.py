"""Arrow batches from a gateway's outbox to committed rows, against raw COPY of the same rows.

Everything is on: outbox with fsync, sign-in or signature, decode, checks, ledger, account, latest
values, live notices, receipts. Time runs from the call to the last receipt, and a query must
then find every row. The ceiling is COPY BINARY of the same rows, packed beforehand, by one
connection into a logged table without an index on the same server, before and after each run.
"""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psycopg
import pyarrow as pa

from benchmarks.result import Goal, Result, of_runs
from benchmarks.stack import Database, databases, ingestor
from core.storage.columns import NUMBER, Rows
from core.tokens import Role, Verifier, issue, load_keys
from deploy.broker import NatsBroker, free_port
from tests.kafka_server import KafkaServer
from tests.platform import CHIMATA

NEEDS = ("kafka",)
ROWS = 18_000_000
STREAMS = 1_000
HERTZ = 10
RUNS = 3
WARM_UP = 2_000 * STREAMS
CHUNK_ROWS = 100_000
GOAL = Goal("ratio", minimum=0.5)
TABLE = "CREATE TABLE IF NOT EXISTS raw_copy (LIKE observation)"
COPY = f"COPY raw_copy ({', '.join(NUMBER.columns)}) FROM STDIN (FORMAT binary)"


def recording(path: Path, number: int, rows: int) -> None:
    """So many rows of STREAMS Datastreams at HERTZ: minutes of the last two hours, in order.

    Of an open day: rows of a closed one go into a table that has its index already.
    """
    rng = np.random.default_rng(number + 1)
    turns = rows // STREAMS
    seconds = ROWS // STREAMS // HERTZ + 60
    start = (time.time_ns() // 1000) - (RUNS - number + 1) * seconds * 1_000_000
    stream = np.tile(np.arange(STREAMS, dtype=np.int32), turns)
    moment = start + np.repeat(np.arange(turns, dtype=np.int64), STREAMS) * (1_000_000 // HERTZ)
    things = pa.array([f"4310{i // 2:05d}" for i in range(STREAMS)])
    names = pa.array([("heading", "draught")[i % 2] for i in range(STREAMS)])
    table = pa.table(
        {
            "thing": pa.DictionaryArray.from_arrays(pa.array(stream), things),
            "property": pa.DictionaryArray.from_arrays(pa.array(stream), names),
            "phenomenon_time": pa.array(moment, pa.timestamp("us", "UTC")),
            "result": pa.array(rng.normal(10, 2, len(stream))),
        }
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)


def packed_rows(path: Path) -> list[bytes]:
    """The recording's own rows as COPY BINARY, in chunks: what no way in can be faster than."""
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    chunks = []
    for begin in range(0, len(table), CHUNK_ROWS):
        part = table.slice(begin, CHUNK_ROWS).combine_chunks()
        stream = part.column("thing").chunk(0).indices.to_numpy().astype(np.int32)
        time_us = part.column("phenomenon_time").cast(pa.int64()).to_numpy()
        result = part.column("result").to_numpy()
        none, first = np.zeros(len(part), np.int16), np.zeros(len(part), np.int32)
        chunks.append(Rows(NUMBER, stream, time_us, none, first, (result,)).pack(1))
    return chunks


def raw_copy(url: str, packed: Sequence[bytes], rows: int) -> float:
    """Rows a second of COPY alone."""
    with psycopg.connect(url) as connection:
        connection.execute(TABLE)
        connection.execute("TRUNCATE raw_copy")
        connection.commit()
        began = time.perf_counter()
        for chunk in packed:
            with connection.cursor().copy(COPY) as copy:
                copy.write(chunk)
            connection.commit()
        seconds = time.perf_counter() - began
        connection.execute("DROP TABLE raw_copy")
        connection.commit()
    return rows / seconds


@contextmanager
def over_mqtt(url: str, folder: Path) -> Iterator[str]:
    """The embedded broker and an MQTT ingestor; where to send to."""
    keys = load_keys(folder / "keys", create=True)
    broker = NatsBroker(
        folder / "broker", f"127.0.0.1:{free_port()}", Verifier(keys.signing).verify
    )
    broker.launch()
    try:
        environment = {"CHIMATA_DATABASE_URL": url, "CHIMATA_DATA": str(folder), **broker.settings}
        with ingestor("mqtt", environment, folder / "mqtt.log"):
            yield f"mqtt://{urlsplit(broker.url).netloc.rpartition('@')[2]}"
    finally:
        broker.stop()


@contextmanager
def over_kafka(url: str, folder: Path) -> Iterator[str]:
    """A one-node Apache Kafka and a Kafka ingestor; where to send to."""
    server = KafkaServer(folder / "kafka")
    server.format()
    server.start()
    load_keys(folder / "keys", create=True)
    environment = {
        "CHIMATA_DATABASE_URL": url,
        "CHIMATA_DATA": str(folder),
        "CHIMATA_KAFKA_BOOTSTRAP": server.bootstrap,
    }
    try:
        for sector in ("ports", "signals"):
            server.create_topic(f"chimata.{sector}.arrow")
        server.create_topic("chimata.receipts")
        with ingestor("kafka", environment, folder / "kafka.log"):
            yield f"kafka://{server.bootstrap}"
    finally:
        server.stop()


def replay(to: str, token: str, path: Path, folder: Path, rows: int) -> float:
    """Rows a second of `chimata gateway replay`, less its own start: until the last receipt."""
    code = (
        "import sys,time,pathlib;import gateways.readers.arrow;from gateways.replay import replay;"
        "began=time.perf_counter();"
        "r=replay(sector='ports',format='arrow',files=[pathlib.Path(sys.argv[1])],to=sys.argv[2],"
        "gateway='bench',token=sys.argv[3],outbox_folder=pathlib.Path(sys.argv[4]));"
        "print(r.stored, time.perf_counter()-began)"
    )
    command = [
        str(CHIMATA.parent / "python"),
        "-c",
        code,
        str(path),
        to,
        token,
        str(folder / "outbox"),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    stored, seconds = done.stdout.split()
    if int(stored) != rows:
        raise RuntimeError(f"{stored} of {rows} rows were stored")
    return rows / float(seconds)


def measure(
    name: str,
    database: Database,
    way: Callable[[str, Path], AbstractContextManager[str]],
    scale: float,
) -> Result:
    """RUNS replays of different recordings, each between two measurements of the ceiling."""
    runs = max(1, round(RUNS * scale))
    rows, first = (max(10, round(each * scale / STREAMS)) * STREAMS for each in (ROWS, WARM_UP))
    rates, ceilings, ratios = [], [], []
    with tempfile.TemporaryDirectory(prefix="chimata-bench-") as name_of_folder:
        folder = Path(name_of_folder)
        with database(folder) as url, way(url, folder) as to:
            token = issue(load_keys(folder / "keys"), Role.GATEWAY, gateway="bench")
            warm = folder / "warm.arrow"
            recording(warm, -1, first)  # what is loaded, made or compiled once is not the rate
            replay(to, token, warm, folder, first)
            for number in range(runs):
                path = folder / f"{number}.arrow"
                recording(path, number, rows)
                packed = packed_rows(path)
                before = raw_copy(url, packed, rows)
                rates.append(replay(to, token, path, folder, rows))
                ceilings.append((before + raw_copy(url, packed, rows)) / 2)
                ratios.append(rates[-1] / ceilings[-1])
            with psycopg.connect(url) as connection:
                row = connection.execute("SELECT count(*) FROM observation").fetchone()
            if not row or row[0] != runs * rows + first:
                raise RuntimeError(f"a query finds {row}, not {runs * rows + first} rows")
    ratios.sort()
    return of_runs(
        name,
        "rows/s",
        rates,
        ratio=ratios[len(ratios) // 2],
        ratio_to="raw COPY of the same rows",
        goal=GOAL,
        note=f"{runs} runs of {rows} rows in batches of 10,000; COPY {min(ceilings):,.0f} to "
        f"{max(ceilings):,.0f} rows/s; ratios {ratios[0]:.2f} to {ratios[-1]:.2f}",
    )


def run(scale: float = 1.0) -> Iterator[Result]:
    """Embedded PostgreSQL, and TimescaleDB where there is one; MQTT, and Kafka."""
    for label, database in databases().items():
        yield measure(f"arrow_mqtt_{label}", database, over_mqtt, scale)
        yield measure(f"arrow_kafka_{label}", database, over_kafka, scale)
