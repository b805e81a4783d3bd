"""Sending notices: whom one may call, how it is signed, and whose certificate is believed."""

import asyncio
import base64
import datetime
import ipaddress
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from consent import webhooks
from consent.webhooks import Refused, Sender, check_url, is_allowed, networks_of, signature
from core.errors import CityError
from tests.hooks import hook

HOST = "hooks.example"


def test_a_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's own libraries."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
    ],
)
def test_only_what_is_public_is_called(address: str, allowed: bool) -> None:
    parsed = ipaddress.ip_address(address)
    assert is_allowed(parsed, [], secure=True) is allowed
    assert not is_allowed(parsed, [], secure=False), "and nothing in the clear"


def test_networks_that_are_named_are_called_too() -> None:
    networks = networks_of("10.1.0.0/16, fd00::/8")
    for address, allowed in (("10.1.2.3", True), ("10.2.0.1", False), ("fd12::1", True)):
        parsed = ipaddress.ip_address(address)
        assert is_allowed(parsed, networks, secure=False) is allowed
    assert is_allowed(ipaddress.ip_address("::ffff:10.1.2.3"), networks, secure=True)
    assert networks_of("") == []
    with pytest.raises(CityError, match="CHIMATA_NOTICE_NETWORKS"):
        networks_of("10.1.0.0/99")


@pytest.mark.parametrize(
    "url",
    [
        "http://clinic.example/stops",
        "ftp://clinic.example/",
        "clinic.example",
        "https://",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "https://user:secret@clinic.example/",
        "https://clinic.example/#part",
        "https://clinic.example:25/",
        "https://clinic.example:99999/",
        "https://日本.example/",
        "https://clinic.example/\r\nx: y",
        "",
    ],
)
def test_an_address_that_no_notice_goes_to_is_refused(url: str) -> None:
    with pytest.raises(CityError) as caught:
        check_url(url, [])
    assert caught.value.fields[0].name == "url"


def test_an_address_may_be_any_public_one() -> None:
    for url in ("https://clinic.example", "https://clinic.example:8443/a?b=c", "https://9.9.9.9/"):
        check_url(url, [])
    check_url("http://127.0.0.1:8080/", networks_of("127.0.0.0/8"))


def test_waits_grow_and_end_somewhere() -> None:
    for failures in range(1, 60):
        longest = min(3600, 2 ** (failures - 1))
        seconds = webhooks.wait_after(failures).total_seconds()
        assert longest / 2 <= seconds <= longest
    assert len({webhooks.wait_after(9) for _ in range(9)}) > 1, "not all at once"


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def send(url: str, context: ssl.SSLContext) -> None:
    async def one() -> None:
        sender = Sender(networks_of("127.0.0.0/8"), context)
        try:
            await sender.send(url, b"secret", "id", b"{}")
        finally:
            await sender.close()

    asyncio.run(one())


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOST and another name stand for this machine."""

    def look_up(host: str, port: int, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_the_certificate_must_be_of_the_name_that_was_set(named: None, tmp_path: Path) -> None:
    """It connects to an address that was looked up and checked, and still asks for the name."""
    own, key = certificate(tmp_path, HOST)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(own, key)
    trusting = ssl.create_default_context(cafile=str(own))
    with hook(context=served) as endpoint:
        port = endpoint.url.rpartition(":")[2].partition("/")[0]
        send(f"https://{HOST}:{port}/stops?a=b", trusting)
        (notice,) = endpoint.notices
        assert notice.headers["host"] == f"{HOST}:{port}"
        assert notice.path == "/stops?a=b"
        for name, context in (
            ("other.example", trusting),
            (HOST, ssl.create_default_context()),
        ):
            with pytest.raises(Refused, match=r"(?i)certificate"):
                send(f"https://{name}:{port}/stops", context)
        assert len(endpoint.notices) == 1
