"""A real Mosquitto for the MQTT tests, and a peer that answers batches with receipts."""

import json
import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import paho.mqtt.client as paho
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

START_SECONDS_MAX = 10.0


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, key.pem beside it; its path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path = folder / "certificate.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


class Mosquitto:
    """One broker process on loopback; started again it keeps its port."""

    def __init__(self, program: Path, folder: Path, *, tls: bool = False) -> None:
        self._program, self._folder, self.port = program, folder, free_port()
        self.ca_file = write_certificate(folder) if tls else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt{'s' if self.ca_file else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = self._folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            "max_queued_messages 0\nmax_packet_size 16777216\n"
            # As root it would become a user who may not read the test's folder.
            + ("user root\n" if os.geteuid() == 0 else "")
            + (
                f"certfile {self.ca_file}\nkeyfile {self._folder / 'key.pem'}\n"
                if self.ca_file
                else ""
            )
        )
        self._process = subprocess.Popen(
            [self._program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError("mosquitto does not listen")

    def kill(self) -> None:
        """kill -9: nothing that it only held in memory survives."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass
class Peer:
    """Stands where the ingestor does: keeps each batch once, and answers with receipts.

    `silent` of the first copies get no answer, as when an ingestor dies before its commit;
    sequences in `refuse` are refused.
    """

    port: int
    ca_file: Path | None = None
    silent: int = 0
    refuse: frozenset[int] = frozenset()
    batches: dict[tuple[str, str, int], bytes] = field(default_factory=dict)
    topics: list[str] = field(default_factory=list)
    order: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ready = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, "ingest", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_connect = lambda client, *_: client.subscribe("chimata/v1/#", qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(0.05, 0.2)
        if self.ca_file:
            self._client.tls_set(str(self.ca_file))
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        parts = message.topic.split("/")
        if parts[2] == "receipts":
            return
        gateway = parts[3]
        if len(parts) == 7:
            boot, seq = parts[5], int(parts[6])
        else:
            properties = dict(message.properties.UserProperty)
            boot, seq = properties["boot"], int(properties["seq"])
        self.topics.append(message.topic)
        self.order.append(seq)
        if self.silent:
            self.silent -= 1
            return
        client.publish(
            f"chimata/v1/receipts/{gateway}", self._answer(gateway, boot, seq, message), qos=1
        )

    def _answer(self, gateway: str, boot: str, seq: int, message: paho.MQTTMessage) -> str:
        known = self.batches.get((gateway, boot, seq))
        result = "duplicate" if known is not None else "stored"
        if seq in self.refuse:
            result = "refused"
        else:
            self.batches[gateway, boot, seq] = bytes(message.payload)
        answer = {
            "gateway": gateway,
            "boot": boot,
            "stored": [] if result == "refused" else [[seq, seq]],
            "batches": [
                {
                    "seq": seq,
                    "result": result,
                    "received": 1,
                    "stored": int(result == "stored"),
                    "duplicate": int(result == "duplicate"),
                    "rejected": 0,
                    "reason": "batch-conflict" if result == "refused" else None,
                    "detail": None,
                }
            ],
        }
        return json.dumps(answer)
