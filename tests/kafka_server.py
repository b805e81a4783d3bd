"""A real Apache Kafka (KRaft, one node) for the tests: run by Java from its Maven artifacts."""

import contextlib
import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.require import missing, require

VERSION = "4.1.0"
SCALA = "2.13"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chimata-kafka" / VERSION
MESSAGE_BYTES_MAX = 9 * 1024 * 1024
START_SECONDS_MAX = 90.0
FETCH_SECONDS_MAX = 600.0

POM = f"""<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>chimata.tests</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_{SCALA}</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def properties(port: int, controller_port: int, folder: Path) -> str:
    """server.properties of one node that is broker and controller, on loopback only.

    Topics are made on demand, as a fresh Kafka does; `create_topic` makes one with partitions.
    """
    return "\n".join(
        (
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}",
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names=CONTROLLER",
            "inter.broker.listener.name=PLAINTEXT",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            f"log.dirs={folder / 'log'}",
            "auto.create.topics.enable=true",
            "num.partitions=1",
            f"message.max.bytes={MESSAGE_BYTES_MAX}",
            f"replica.fetch.max.bytes={MESSAGE_BYTES_MAX}",
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=3",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "transaction.state.log.num.partitions=1",
            "group.initial.rebalance.delay.ms=0",
            "num.network.threads=2",
            "num.io.threads=2",
            "log.segment.bytes=67108864",
            "controlled.shutdown.enable=false",
            "",
        )
    )


def class_path() -> str:
    """The jars of the broker, fetched once by Maven into its own repository."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        return _class_path()


def _class_path() -> str:
    recorded = CACHE / "classpath"
    if recorded.is_file() and all(Path(jar).is_file() for jar in recorded.read_text().split(":")):
        return recorded.read_text()
    pom = CACHE / "pom.xml"
    pom.write_text(POM)
    partial = CACHE / f"classpath.{os.getpid()}"
    command = [
        str(require("kafka").parent / "mvn"), "-q", "-B", "-f", str(pom),
        "dependency:build-classpath", f"-Dmdep.outputFile={partial}",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=FETCH_SECONDS_MAX, check=False
    )
    if done.returncode != 0:
        missing(f"Maven did not fetch Kafka {VERSION}: {done.stdout[-500:]}{done.stderr[-500:]}")
    partial.replace(recorded)
    return recorded.read_text()


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class KafkaServer:
    """One running broker; `bootstrap` stays the same over kill() and restart()."""

    folder: Path
    port: int = field(default_factory=free_port)
    controller_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """What clients connect to: host:port."""
        return f"127.0.0.1:{self.port}"

    def java(self, *arguments: str) -> list[str]:
        """A command line of this broker's Java: a small heap, little log."""
        return [
            str(require("kafka")), "-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-Xshare:auto",
            "-XX:TieredStopAtLevel=1", f"-Dkafka.logs.dir={self.folder}",
            "-cp", class_path(), *arguments,
        ]  # fmt: skip

    def format(self) -> None:
        """Write the configuration and format the log folder, once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.properties"
        config.write_text(properties(self.port, self.controller_port, self.folder))
        done = subprocess.run(
            self.java(
                "kafka.tools.StorageTool", "format", "--standalone",
                "-t", "Y2hpbWF0YS10ZXN0cy0wMQ", "-c", str(config),
            ),
            capture_output=True, text=True, timeout=START_SECONDS_MAX, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Start the broker and wait until it answers a metadata request."""
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.java("kafka.Kafka", str(self.folder / "server.properties")),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / "server.log").read_text(errors="replace")[-3000:]
                raise AssertionError(f"Kafka did not start (code {self.process.poll()}):\n{tail}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                pass
            admin = KafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=5000)
        except (OSError, KafkaError):
            return False
        try:
            admin.list_topics()
        except KafkaError:
            return False
        finally:
            admin.close()
        return True

    def create_topic(self, name: str, *, partitions: int = 1) -> None:
        """Make a topic that takes the largest batches."""
        from kafka.admin import KafkaAdminClient, NewTopic

        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            admin.create_topics([NewTopic(name, partitions, 1)])
        finally:
            admin.close()

    def clear(self, prefix: str = "chimata.") -> None:
        """Delete what other tests left: an ingestor reads every topic of its name pattern."""
        from kafka.admin import KafkaAdminClient
        from kafka.errors import KafkaError

        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        deadline = time.monotonic() + START_SECONDS_MAX
        try:
            while left := [name for name in admin.list_topics() if name.startswith(prefix)]:
                if time.monotonic() > deadline:
                    raise AssertionError(f"Kafka still has {left}")
                with contextlib.suppress(KafkaError):  # one that is already being deleted
                    admin.delete_topics(left)
                time.sleep(0.2)
        finally:
            admin.close()

    def kill(self) -> None:
        """kill -9, as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=30)
            self.process = None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 20 s."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
            self.process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def restart(self) -> None:
        """kill -9 and start again on the same log folder and ports."""
        self.kill()
        self.start()


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """One Apache Kafka for the session: about 5 s to start, 300 MB. Use topics of your own."""
    require("kafka")
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.format()
    try:
        server.start()
        yield server
    finally:
        server.stop()
