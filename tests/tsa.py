"""A timestamping authority of this machine (openssl ts), which can be away, slow, or lie."""

import datetime
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.require import program

CONFIG = """
[t]
serial = serial
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""
YEAR = datetime.timedelta(days=365)
SLOW_SECONDS = 30.0


@dataclass
class Authority:
    """`mode`: ok, away, slow, long, other-nonce, other-imprint, refused, cut."""

    folder: Path
    url: str = ""
    mode: str = "ok"
    asked: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    alone: threading.Lock = field(default_factory=threading.Lock)

    @property
    def roots(self) -> Path:
        return self.folder / "root.pem"

    def reply(self, request: bytes) -> bytes:
        """What the authority says to a request."""
        query, answer = self.folder / "query.tsq", self.folder / "answer.tsr"
        with self.alone:  # its serial number is a file
            query.write_bytes(request)
            subprocess.run(
                ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-section", "t",
                 "-queryfile", query.name, "-out", answer.name],
                cwd=self.folder, check=True, capture_output=True,
            )  # fmt: skip
            return answer.read_bytes()


def make(folder: Path, *, expired: bool = False) -> Authority:
    """Its keys and certificates; `expired`: its own certificate held until yesterday."""
    program("openssl")
    folder.mkdir(parents=True, exist_ok=True)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name, name = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("Root", "TSA")
    )
    now = datetime.datetime.now(datetime.UTC)
    root = (
        x509.CertificateBuilder()
        .subject_name(root_name).issuer_name(root_name).public_key(root_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - YEAR).not_valid_after(now + YEAR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), False)
        .sign(root_key, hashes.SHA256())
    )  # fmt: skip
    ends = now - datetime.timedelta(days=1) if expired else now + YEAR
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(root_name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - YEAR).not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False
        )
        .sign(root_key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    (folder / "root.pem").write_bytes(root.public_bytes(pem))
    (folder / "tsa.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "tsa.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "tsa.cnf").write_text(CONFIG)
    (folder / "serial").write_text("01")
    return Authority(folder)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates,
        crl_sign=signs_certificates, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def altered(request: bytes, mode: str) -> bytes:
    """The request with another imprint or nonce of the same length."""
    digest = request.index(b"\x04\x20") + 2  # the only octet string of 32 bytes
    if mode == "other-imprint":
        return request[:digest] + bytes(32) + request[digest + 32 :]
    nonce = digest + 32 + 2  # INTEGER and its length follow
    last = nonce + request[digest + 33] - 1
    return request[:last] + bytes([request[last] ^ 1]) + request[last + 1 :]


@contextmanager
def serving(authority: Authority) -> Iterator[Authority]:
    """On a free port for the length of a block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["content-length"]))
            authority.asked += 1
            mode = authority.mode
            if mode == "slow":
                authority.ended.wait(SLOW_SECONDS)
                return
            body = b"x" * 200_000
            if mode == "refused":
                body = authority.reply(b"no request")
            elif mode != "long":
                sent = altered(request, mode) if mode.startswith("other") else request
                body = authority.reply(sent)[: -3 if mode == "cut" else None]
            self.send_response(503 if mode == "away" else 200)
            self.send_header("content-type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    authority.url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        yield authority
    finally:
        authority.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
