"""Replays over a real Mosquitto: every batch gets its receipt, over broken connections too."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from core.errors import CityError
from gateways.delivery import Window
from gateways.replay import ReplayResult, replay
from tests.gateways.mosquitto import Mosquitto, Peer
from tests.require import require

pytestmark = pytest.mark.mosquitto


def recording(folder: Path, lines: int = 6_000) -> Path:
    """A CSV recording of so many rows: a batch a thousand."""
    path = folder / "recording.csv"
    rows = [f"2024-01-01T00:{i // 60 % 60:02d}:{i % 60:02d}Z,n{i},{i}\n" for i in range(lines)]
    path.write_text("time,node,rsrp\n" + "".join(rows))
    return path


def run(broker: Mosquitto, folder: Path, file: Path, **options: object) -> ReplayResult:
    arguments: dict[str, object] = {"rate": "max", "timeout_seconds": 30.0, "to": broker.url}
    return replay(
        sector="edge",
        format="csv",
        files=[file],
        gateway="g1",
        token="unused",
        outbox_folder=folder / "outbox",
        **(arguments | options),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("version", ["5", "4", "auto"])
def test_every_batch_arrives_and_is_counted(
    broker: Mosquitto, peer: Peer, tmp_path: Path, version: str
) -> None:
    result = run(broker, tmp_path, recording(tmp_path), to=f"{broker.url}?version={version}")
    assert (result.sent, result.received, result.refused) == (6, 6, 0)
    assert result.messages == result.messages_received == 6_000
    assert sorted(seq for _, _, seq in peer.batches) == list(range(6))
    levels = 7 if version == "4" else 5
    assert {len(topic.split("/")) for topic in peer.topics} == {levels}
    payloads = [peer.batches["g1", result.boot, seq] for seq in range(6)]
    assert all(payload.startswith(b"time,node,rsrp\n") for payload in payloads)
    assert sum(payload.count(b"\n") - 1 for payload in payloads) == 6_000


def test_a_second_replay_sends_the_same_batches(
    broker: Mosquitto, peer: Peer, tmp_path: Path
) -> None:
    file = recording(tmp_path)
    first, before = run(broker, tmp_path, file), dict(peer.batches)
    second = run(broker, tmp_path, file)
    assert second.boot == first.boot
    assert peer.batches == before
    assert (first.stored, first.duplicate) == (6, 0)
    assert (second.stored, second.duplicate) == (0, 6)


def test_now_is_a_new_boot(broker: Mosquitto, peer: Peer, tmp_path: Path) -> None:
    file = recording(tmp_path)
    assert run(broker, tmp_path, file, start="now").boot != run(broker, tmp_path, file).boot


def test_what_has_no_receipt_is_sent_again(broker: Mosquitto, peer: Peer, tmp_path: Path) -> None:
    peer.silent = 3
    impatient = Window(receipt_seconds=0.5, receipt_seconds_max=2.0)
    result = run(broker, tmp_path, recording(tmp_path), window=impatient)
    assert result.received == 6
    assert len(peer.order) > 6


def test_a_refused_batch_is_reported_and_not_sent_again(
    broker: Mosquitto, peer: Peer, tmp_path: Path
) -> None:
    peer.refuse = frozenset({2})
    result = run(broker, tmp_path, recording(tmp_path))
    assert (result.sent, result.received, result.refused) == (6, 5, 1)
    assert [(refusal.seq, refusal.reason) for refusal in result.refusals] == [(2, "batch-conflict")]
    assert result.messages_refused == 1_000
    assert peer.order.count(2) == 1


def test_the_broker_is_killed_in_the_middle(broker: Mosquitto, peer: Peer, tmp_path: Path) -> None:
    def kill_and_restart() -> None:
        time.sleep(0.6)
        broker.kill()
        time.sleep(1.0)
        broker.start()

    restart = threading.Thread(target=kill_and_restart)
    restart.start()
    result = run(broker, tmp_path, recording(tmp_path, 40_000), rate="20000")
    restart.join()
    assert (result.sent, result.received, result.messages_received) == (40, 40, 40_000)
    assert sorted(seq for _, _, seq in peer.batches) == list(range(40))


def test_no_platform_is_one_clear_error_and_keeps_the_outbox(
    broker: Mosquitto, tmp_path: Path
) -> None:
    file = recording(tmp_path)
    with pytest.raises(CityError) as caught:
        run(broker, tmp_path, file, timeout_seconds=1.0)
    assert caught.value.slug == "unavailable"
    assert "6 batches wait" in str(caught.value)
    late = Peer(broker.port)
    try:
        assert run(broker, tmp_path, file).received == 6
    finally:
        late.close()
    assert not list((tmp_path / "outbox").glob("*.sqlite"))


CHILD = """
import sys
from pathlib import Path
from gateways.replay import replay
replay(sector="edge", format="csv", files=[Path(sys.argv[1])], gateway="g1", token="unused",
       to=sys.argv[2], outbox_folder=Path(sys.argv[3]), rate="10000")
"""


def test_a_killed_replay_is_taken_up_again(
    broker: Mosquitto, peer: Peer, tmp_path: Path, root: Path
) -> None:
    file = recording(tmp_path, 40_000)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, file, broker.url, tmp_path / "outbox"],
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    deadline = time.monotonic() + 20
    while len(peer.batches) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.kill()
    child.wait()
    before = dict(peer.batches)
    assert len(before) < 40
    result = run(broker, tmp_path, file)
    assert (result.sent, result.received, result.messages_received) == (40, 40, 40_000)
    assert len(peer.batches) == 40
    assert all(peer.batches[key] == payload for key, payload in before.items())


def test_over_tls(tmp_path: Path) -> None:
    broker = Mosquitto(require("mosquitto"), tmp_path, tls=True)
    broker.start()
    peer = Peer(broker.port, ca_file=broker.ca_file)
    try:
        result = run(broker, tmp_path, recording(tmp_path), to=f"{broker.url}?ca={broker.ca_file}")
        assert result.received == 6
        with pytest.raises(CityError, match="certificate"):
            run(broker, tmp_path, recording(tmp_path), timeout_seconds=1.0)
    finally:
        peer.close()
        broker.kill()
