"""`chimata soak`: the platform under load while parts of it are killed; nothing lost or twice."""

import bisect
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer

from core.clock import now_us
from core.errors import CityError, invalid
from deploy import child
from deploy.console import Json

MIB = 1024 * 1024
SETTLE_SECONDS_MAX = 300.0
"""Without any progress for so long after the load's end, what is still waiting counts as lost."""
GATEWAY_ENDS_MAX = 50
TICK_SECONDS = 0.05
MISSED_AGAIN_SECONDS = 5.0
BEGIN_BEFORE_SECONDS = 2 * 24 * 3600
LOOSE_SHARE = 0.01
"""Loose messages for each row sent in batches."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a soak was asked for."""

    minutes: float = 5.0
    kills: int = 20
    rate: float = 20_000.0
    seed: int = 1
    via: str = "mqtt"
    faults: tuple[str, ...] = ("kill", "cut", "hang", "clock")
    gateways: int = 2
    database: str = ""
    kafka: str = ""
    rows_a_batch: int = 500
    lag_blocks: int = 16
    disk_bytes: int = 2048 * MIB
    late_seconds: float = 100.0
    """How long loose messages are waited for: what a killed ingestor held, the embedded broker
    delivers again once its `ack_wait` of a minute is over."""


@dataclass
class Report:
    """What a soak found; `violations` must be empty."""

    seed: int
    seconds: float = 0.0
    strikes: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    """Strikes that found nothing to hit: the part was down at that moment."""
    kills: int = 0
    settle_seconds: float = 0.0
    starts: int = 0
    failed_starts: int = 0
    """`chimata up` ended with an error while it was starting, and was started again."""
    gateway_restarts: int = 0
    resent: int = 0
    outbox_held: int = 0
    """Times that an outbox could not be written."""
    ingestor_bytes_max: int = 0
    compared: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


Tell = Callable[[str], None]


class Soak:
    """One run: start, load and strikes, settling, comparison."""

    def __init__(self, options: Options, folder: Path, tell: Tell) -> None:
        from deploy.soak import faults
        from deploy.soak.city import City

        self._options, self._folder, self._tell = options, folder, tell
        without = faults.EMBEDDED_ONLY if options.database else ()
        self.plan = faults.plan(
            options.seed, options.minutes * 60, options.kills, options.faults, without=without
        )
        data = folder / "data"
        self._city = City(folder, data, database=options.database, kafka=options.kafka)
        self._ground = faults.Ground(
            self._city, [], {}, Random(options.seed)  # noqa: S311 - a load
        )  # fmt: skip
        self._specs: list[Any] = []
        self._undo: list[tuple[float, Callable[[], Any]]] = []
        self._begun = 0.0
        self._draining = False
        self._strikes: Counter[str] = Counter()
        self._missed: Counter[str] = Counter()
        self._seen_bytes = 0
        self.report = Report(options.seed)

    def run(self) -> Report:
        """The whole run; what it finds is in the report, also when it was cut short."""
        try:
            self._mount()
            self._city.start()
            self._city.wait_until_ready()
            self._start_gateways()
            self._load()
            settled = self._settle()
            self._compare(settled)
        finally:
            self._end()
        self.report.violations += self._city.surprises
        return self.report

    # -- its phases -------------------------------------------------------------------------------

    def _mount(self) -> None:
        from deploy.soak.faults import Disk

        if "disk" not in self._options.faults:
            return
        for name in ("postgres", "broker", "outbox"):
            parent = self._folder if name == "outbox" else self._folder / "data"
            disk = Disk(parent / name, self._options.disk_bytes)
            disk.mount()
            self._ground.disks[name] = disk

    def _start_gateways(self) -> None:
        from deploy.soak.gateway import Spec
        from deploy.soak.load import STEP_MS, Load

        options, city = self._options, self._city
        step_us = STEP_MS * 1000
        start_us = (now_us() - BEGIN_BEFORE_SECONDS * 1_000_000) // step_us * step_us
        to = {"mqtt": city.mqtt_url, "http": city.http_url, "kafka": city.kafka_url}[options.via]
        outbox = self._folder / "outbox"
        outbox.mkdir(mode=0o700, exist_ok=True)
        for number in range(options.gateways):
            name = f"soak-{options.seed}-{number}"
            load = Load(options.seed, name, start_us, options.rows_a_batch, options.lag_blocks)
            rate = options.rate / options.gateways
            spec = Spec(
                load, to, city.http_url if options.via == "http" else city.mqtt_url,
                city.token(name), rate, rate * LOOSE_SHARE,
                str(outbox / f"{name}.sqlite"), str(self._folder / f"{name}.journal"),
            )  # fmt: skip
            spec.write(self._folder / f"{name}.json")
            self._specs.append(spec)
            self._ground.gateways.append(self._start_gateway(number))

    def _start_gateway(self, number: int) -> "subprocess.Popen[bytes]":
        name = self._specs[number].load.gateway
        command = [sys.executable, "-m", "deploy.soak.gateway", str(self._folder / f"{name}.json"),
                   *(["drain"] if self._draining else [])]  # fmt: skip
        with (self._folder / f"{name}.log").open("ab") as log:
            return child.spawn(
                command, env=dict(os.environ), cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def _load(self) -> None:
        """Strike by the plan while the gateways send."""
        self._begun = time.monotonic()
        end = self._begun + self._options.minutes * 60
        waiting = list(self.plan)
        while (now := time.monotonic()) < end:
            if waiting and now >= self._begun + waiting[0].at:
                planned = waiting.pop(0)
                if not self._strike(planned):
                    # A kill that found its part down is owed; its turn comes once it is up again.
                    again = replace(planned, at=now - self._begun + MISSED_AGAIN_SECONDS)
                    bisect.insort(waiting, again, key=lambda each: each.at)
            self._keep(now)
            time.sleep(TICK_SECONDS)
        for _, undo in self._undo:
            undo()
        self._undo.clear()
        self.report.seconds = time.monotonic() - self._begun
        self.report.strikes, self.report.missed = dict(self._strikes), dict(self._missed)

    def _strike(self, planned: Any) -> bool:
        from deploy.soak.faults import FAULTS

        fault = FAULTS[planned.fault]
        undo = fault.strike(self._ground)
        at = time.monotonic() - self._begun
        if undo is None:
            self._missed[planned.fault] += 1
            return fault.group != "kill"
        self._strikes[planned.fault] += 1
        self.report.kills += fault.group == "kill"
        lasting = f" for {planned.seconds:.1f} s" if planned.seconds else ""
        self._tell(f"{at:7.1f} s  {planned.fault}{lasting}")
        self._undo.append((time.monotonic() + planned.seconds, undo))
        return True

    def _keep(self, now: float) -> None:
        """Undo what has lasted long enough; start again what ended, as a service manager does."""
        for entry in [each for each in self._undo if each[0] <= now]:
            self._undo.remove(entry)
            entry[1]()
        self._city.keep()
        for number, process in enumerate(self._ground.gateways):
            code = process.poll()
            if code is not None and code != 0:
                self.report.gateway_restarts += 1
                if self.report.gateway_restarts > GATEWAY_ENDS_MAX + self._options.kills:
                    raise CityError("unavailable", f"gateway {number} does not stay up")
                self._ground.gateways[number] = self._start_gateway(number)
        seen = self._city.memory_bytes("ingestor")
        self.report.ingestor_bytes_max = max(self.report.ingestor_bytes_max, seen)

    def _settle(self) -> bool:
        """Until every gateway has ended, its outbox empty; False when nothing moves any more."""
        begun = moved = time.monotonic()
        before = -1
        self._draining = True
        for process in self._ground.gateways:
            process.terminate()
        while any(process.poll() != 0 for process in self._ground.gateways):
            self._keep(time.monotonic())
            settled = sum(journal.settled + journal.loose for journal in self._journals())
            if settled != before:
                before, moved = settled, time.monotonic()
            if time.monotonic() - moved > SETTLE_SECONDS_MAX:
                waiting = sum(journal.waiting for journal in self._journals())
                self.report.violations.append(f"nothing moves: {waiting} batches have no receipt")
                return False
            time.sleep(TICK_SECONDS)
        self.report.settle_seconds = time.monotonic() - begun
        return True

    def _journals(self) -> list[Any]:
        from deploy.soak.gateway import Journal

        return [Journal.open(Path(spec.journal)) for spec in self._specs]

    def _compare(self, settled: bool) -> None:
        from deploy.soak import verify

        self._city.wait_until_ready()
        compared = verify.Compared()
        for spec, journal in zip(self._specs, self._journals(), strict=True):
            self.report.resent += journal.resent
            self.report.outbox_held += journal.held
            verify.wait_for_loose(
                self._city.database_url, spec.load, journal.loose, self._options.late_seconds
            )
            verify.compare(
                self._city.database_url, spec.load, journal.blocks, journal.loose,
                loose_has_receipts=self._options.via == "http", into=compared,
            )  # fmt: skip
        self.report.compared = asdict(compared)
        self.report.starts = self._city.starts
        self.report.failed_starts = self._city.failed_starts
        if settled:
            self.report.violations += compared.faults()

    def _end(self) -> None:
        for _, undo in self._undo:
            with contextlib.suppress(OSError, CityError):
                undo()
        for process in self._ground.gateways:
            if process.poll() is None:
                process.kill()
            process.wait()
        self._city.stop()
        for disk in self._ground.disks.values():
            disk.unmount()


def soak(
    minutes: Annotated[float, typer.Option(help="How long the load lasts.")] = 5.0,
    kills: Annotated[int, typer.Option(help="Kills at random; others come beside them.")] = 20,
    rate: Annotated[float, typer.Option(help="Rows a second, all gateways together.")] = 20_000.0,
    seed: Annotated[int, typer.Option(help="The same seed, the same load and strikes.")] = 1,
    via: Annotated[str, typer.Option(help="mqtt, kafka or http.")] = "mqtt",
    faults: Annotated[
        str, typer.Option(help="Any of kill,cut,hang,clock,disk; disk needs root.")
    ] = "kill,cut,hang,clock",
    database: Annotated[
        str, typer.Option(metavar="URL", help="Use this empty database; it is not killed itself.")
    ] = "",
    kafka: Annotated[str, typer.Option(metavar="HOST:PORT", help="A Kafka that runs.")] = "",
    gateways: Annotated[int, typer.Option(help="How many send.")] = 2,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave data and logs here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Shake a platform of its own under load, then compare row by row with what was sent.

    Exits 1 when anything with a receipt is lost, or is there twice, or the account does not fit.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    groups = tuple(filter(None, faults.split(",")))
    options = Options(
        minutes, kills, rate, seed, via, groups, gateways, database, kafka
    )  # fmt: skip
    report = run(options, keep, _on_stderr)
    if as_json:
        sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(lines(report)) + "\n")
    if report.violations:
        raise typer.Exit(1)


def run(options: Options, keep: Path | None = None, tell: Tell = lambda _line: None) -> Report:
    """One soak in a temporary folder, or in `keep`; CityError when it cannot begin."""
    check(options)
    if keep is not None:
        keep.mkdir(parents=True)
        return Soak(options, keep.resolve(), tell).run()
    with tempfile.TemporaryDirectory(prefix="chimata-soak-") as folder:
        return Soak(options, Path(folder), tell).run()


def check(options: Options) -> None:
    """CityError `invalid` for options that make no sense together."""
    if options.via not in {"mqtt", "kafka", "http"}:
        raise invalid("--via", f"{options.via!r} is not mqtt, kafka or http")
    if options.via == "kafka" and not options.kafka:
        raise invalid("--kafka", "HOST:PORT of a running Kafka is needed to send over it")
    if min(options.minutes, options.rate, options.gateways) <= 0:
        raise invalid("--minutes", "minutes, rate and gateways must be above 0")


def lines(report: Report) -> Sequence[str]:
    """The report for people."""
    compared = report.compared
    struck = ", ".join(f"{count} {name}" for name, count in sorted(report.strikes.items()))
    numbers = {name: f"{value:,}" for name, value in compared.items() if isinstance(value, int)}
    told = [
        f"seed {report.seed}: {report.seconds:.0f} s of load, then {report.settle_seconds:.0f} s"
        " until all had a receipt",
        f"struck: {struck or 'nothing'}; `chimata up` started {report.starts} times",
    ]
    if compared:
        told += [
            "rows: {sent} sent, {stored} stored, {corrected} corrected, {duplicate} came again,"
            " {rejected} messages rejected".format(**numbers),
            "with a receipt and lost: {lost}; twice: {twice}; not the newest: {wrong};"
            " without a receipt and gone: {loose_gone}".format(**numbers),
        ]
    told += [f"ingestor: at most {report.ingestor_bytes_max // MIB} MiB"]
    told += [f"  {example}" for example in compared.get("examples", [])]
    return [*told, *(f"VIOLATION {each}" for each in report.violations),
            "failed" if report.violations else "nothing lost, nothing twice"]  # fmt: skip


def _on_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
