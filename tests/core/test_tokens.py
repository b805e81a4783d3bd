"""Tokens and batch signatures: what is accepted, and that nothing forged ever is."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey
from joserfc.jws import JWSRegistry

from api.auth import fetch_jwks
from core.errors import CityError
from core.settings import Settings
from core.tokens import (
    LEEWAY_SECONDS,
    Keys,
    Role,
    Verifier,
    check_batch_signature,
    issue,
    load_keys,
    load_secret,
    sign_batch,
)

TOPIC = "chimata.farms.json"
OUTSIDE = "https://issuer.example"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return load_keys(tmp_path / "keys", create=True)


@pytest.fixture
def verifier(keys: Keys) -> Verifier:
    return Verifier(keys.signing)


def encoded(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    middle = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return found


def refused(verifier: Verifier, token: str) -> str:
    with pytest.raises(CityError) as caught:
        verifier.verify(token)
    assert caught.value.slug == "unauthenticated"
    return str(caught.value)


# -- own issuer ----


def test_a_gateway_token_speaks_for_that_gateway_alone(keys: Keys, verifier: Verifier) -> None:
    principal = verifier.verify(issue(keys, Role.GATEWAY, gateway="g-1"))
    assert (principal.role, principal.gateway, principal.subject) == (Role.GATEWAY, "g-1", None)
    assert principal.scopes == {"publish"}
    operator = verifier.verify(issue(keys, Role.OPERATOR))
    assert operator.gateway is None
    assert "publish" not in operator.scopes


def test_a_citizen_token_names_its_subject(keys: Keys, verifier: Verifier) -> None:
    assert verifier.verify(issue(keys, Role.CITIZEN, subject="s1")).subject == "s1"
    with pytest.raises(CityError, match="subject"):
        issue(keys, Role.CITIZEN)


@pytest.mark.parametrize("name", ["", "G1", "a b", "+", "#", "a/b", "a.b", "é", "x" * 65, "a\n"])
def test_a_gateway_id_that_would_widen_permissions_is_not_issued(keys: Keys, name: str) -> None:
    with pytest.raises(CityError, match="gateway"):
        issue(keys, Role.GATEWAY, gateway=name)


def test_an_expired_token_is_refused_after_the_leeway(keys: Keys, verifier: Verifier) -> None:
    just = issue(keys, Role.OPERATOR, lifetime_seconds=-LEEWAY_SECONDS // 2)
    assert verifier.verify(just).role is Role.OPERATOR
    late = issue(keys, Role.OPERATOR, lifetime_seconds=-LEEWAY_SECONDS - 2)
    assert "Expired" in refused(verifier, late)


def test_another_audience_is_refused(keys: Keys, verifier: Verifier) -> None:
    refused(verifier, issue(keys, Role.OPERATOR, audience="another-city"))
    assert Verifier(keys.signing, audience="another-city").verify(
        issue(keys, Role.OPERATOR, audience="another-city")
    )


def test_another_machine_is_refused(verifier: Verifier, tmp_path: Path) -> None:
    other = load_keys(tmp_path / "other", create=True)
    refused(verifier, issue(other, Role.OPERATOR))


@pytest.mark.parametrize("field", ["exp", "aud", "iss", "role"])
def test_a_token_without_what_limits_it_is_refused(
    keys: Keys, verifier: Verifier, field: str
) -> None:
    claims = claims_of(issue(keys, Role.OPERATOR))
    del claims[field]
    header = {"alg": "Ed25519", "kid": keys.signing.kid}
    refused(verifier, jwt.encode(header, claims, keys.signing, algorithms=["Ed25519"]))


def test_a_token_not_yet_valid_is_refused(keys: Keys, verifier: Verifier) -> None:
    claims = claims_of(issue(keys, Role.OPERATOR)) | {"nbf": int(time.time()) + 3600}
    header = {"alg": "Ed25519", "kid": keys.signing.kid}
    refused(verifier, jwt.encode(header, claims, keys.signing, algorithms=["Ed25519"]))


def test_a_role_takes_no_scope_beyond_its_own(keys: Keys, verifier: Verifier) -> None:
    claims = claims_of(issue(keys, Role.STAFF)) | {"scope": "publish read:shared read:own"}
    header = {"alg": "Ed25519", "kid": keys.signing.kid}
    token = jwt.encode(header, claims, keys.signing, algorithms=["Ed25519"])
    assert verifier.verify(token).scopes == {"read:shared"}


def test_no_signature_is_no_token(keys: Keys, verifier: Verifier) -> None:
    header, payload, _ = issue(keys, Role.OPERATOR).split(".")
    for name in ("none", "None", "NONE", ""):
        refused(verifier, f"{encoded({'alg': name})}.{payload}.")
    refused(verifier, f"{header}.{payload}.")


def test_the_public_key_is_no_secret_for_hs256(keys: Keys, verifier: Verifier) -> None:
    """The classic confusion: an HMAC made with the public key, which everybody knows."""
    _, payload, _ = issue(keys, Role.OPERATOR).split(".")
    public = keys.signing.as_dict(private=False)
    secrets = [
        json.dumps(public).encode(),
        str(public["x"]).encode(),
        base64.urlsafe_b64decode(str(public["x"]) + "="),
        keys.signing.as_pem(private=False),
    ]
    for secret in secrets:
        signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{payload}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        refused(verifier, f"{signed}.{encoded(mac)}")


def test_changed_claims_are_refused(keys: Keys, verifier: Verifier) -> None:
    token = issue(keys, Role.GATEWAY, gateway="g1")
    header, _, signature = token.split(".")
    forged = encoded(claims_of(token) | {"gateway": "g2"})
    refused(verifier, f"{header}.{forged}.{signature}")


def test_a_key_inside_the_token_is_not_trusted(keys: Keys, verifier: Verifier) -> None:
    attacker = OKPKey.generate_key("Ed25519")
    header = {"alg": "Ed25519", "jwk": attacker.as_dict(private=False)}
    claims = claims_of(issue(keys, Role.OPERATOR))
    registry = JWSRegistry(algorithms=["Ed25519"], strict_check_header=False)
    refused(verifier, jwt.encode(header, claims, attacker, registry=registry))


ODD_PARTS = st.one_of(
    st.binary(max_size=20).map(encoded),
    st.sampled_from([[], "x", 1, None, {}, {"iss": "chimata"}, {"iss": []}]).map(encoded),
    st.sampled_from([{"alg": "Ed25519"}, {"alg": 1}, [], {"alg": "Ed25519", "kid": {}}]).map(
        encoded
    ),
    st.text(max_size=8),
)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.lists(ODD_PARTS, max_size=5).map(".".join), st.text(max_size=40)))
def test_garbage_is_refused_and_never_an_exception_of_another_kind(token: str) -> None:
    verifier = Verifier(_ANY_KEY, outside_issuer=OUTSIDE)
    refused(verifier, token)


@pytest.mark.parametrize("payload", [[], "x", 1, None, {"iss": []}, {"iss": {}}, b"", b"{"])
@pytest.mark.parametrize("header", [{"alg": "Ed25519"}, {"alg": 1}, [], "x", {"kid": []}, b""])
def test_a_token_of_the_wrong_shape_is_refused(
    verifier: Verifier, header: Any, payload: Any
) -> None:
    refused(verifier, f"{encoded(header)}.{encoded(payload)}.{encoded(b'x' * 64)}")


_ANY_KEY = OKPKey.generate_key("Ed25519", {"kid": "k"})


# -- an outside OIDC issuer ----


class Issuer:
    """An OIDC issuer's key set, served over HTTP by this test."""

    def __init__(self) -> None:
        self.keys: list[ECKey] = [self.new_key("k1")]
        self.asked = 0
        self.broken = False
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                body = json.dumps({"keys": [k.as_dict(private=False) for k in issuer.keys]})
                self.send_response(500 if issuer.broken else 200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @staticmethod
    def new_key(name: str) -> ECKey:
        return ECKey.generate_key("P-256", {"kid": name, "use": "sig", "alg": "ES256"})

    def token(self, key: ECKey | None = None, **changes: Any) -> str:
        signing = key or self.keys[-1]
        claims = {
            "iss": OUTSIDE,
            "aud": "chimata",
            "exp": int(time.time()) + 600,
            "role": "staff",
            "scope": "read:shared",
            "sub": "someone",
        }
        return jwt.encode({"alg": "ES256", "kid": signing.kid}, claims | changes, signing)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    running = Issuer()
    yield running
    running.server.shutdown()
    running.server.server_close()


def outside(issuer: Issuer, keys: Keys) -> Verifier:
    return Verifier(keys.signing, outside_issuer=OUTSIDE, fetch=lambda: fetch_jwks(issuer.url))


def test_an_outside_issuer_is_believed_by_its_key_set(issuer: Issuer, keys: Keys) -> None:
    verifier = outside(issuer, keys)
    assert verifier.verify(issuer.token()).role is Role.STAFF
    assert verifier.verify(issuer.token()).name == "someone"
    assert issuer.asked == 1
    refused(verifier, issuer.token(iss="https://another.example"))
    refused(verifier, issuer.token(aud="another"))
    refused(verifier, issuer.token(exp=int(time.time()) - 600))
    refused(verifier, issuer.token(Issuer.new_key("k1")))  # the name of a key, not the key
    assert verifier.verify(issue(keys, Role.OPERATOR)).role is Role.OPERATOR


def test_an_outside_issuer_may_not_speak_as_this_machine(issuer: Issuer, keys: Keys) -> None:
    refused(outside(issuer, keys), issuer.token(iss="chimata", role="operator"))


def test_a_new_key_is_fetched_and_unknown_ones_do_not_flood_the_issuer(
    issuer: Issuer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = outside(issuer, keys)
    verifier.verify(issuer.token())
    monkeypatch.setattr(Verifier, "REFETCH_SECONDS_MIN", 0.0)
    issuer.keys.append(Issuer.new_key("k2"))
    assert verifier.verify(issuer.token()).role is Role.STAFF
    assert issuer.asked == 2
    monkeypatch.undo()
    for number in range(20):
        refused(verifier, issuer.token(Issuer.new_key(f"made-up-{number}")))
    assert issuer.asked == 2


def test_a_key_that_the_issuer_withdrew_is_not_believed_for_ever(
    issuer: Issuer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = outside(issuer, keys)
    token = issuer.token()
    verifier.verify(token)
    issuer.keys = [Issuer.new_key("k2")]
    monkeypatch.setattr(Verifier, "KEYS_SECONDS_MAX", 0.0)
    monkeypatch.setattr(Verifier, "REFETCH_SECONDS_MIN", 0.0)
    refused(verifier, token)


def test_an_issuer_that_is_away_is_said_so_and_asked_again(
    issuer: Issuer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = outside(issuer, keys)
    issuer.broken = True
    with pytest.raises(CityError) as caught:
        verifier.verify(issuer.token())
    assert caught.value.slug in ("unavailable", "unauthenticated")
    issuer.broken = False
    monkeypatch.setattr(Verifier, "REFETCH_SECONDS_MIN", 0.0)
    assert verifier.verify(issuer.token()).role is Role.STAFF


def test_an_issuer_that_goes_away_later_locks_nobody_out(
    issuer: Issuer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = outside(issuer, keys)
    verifier.verify(issuer.token())
    issuer.broken = True
    monkeypatch.setattr(Verifier, "KEYS_SECONDS_MAX", 0.0)
    monkeypatch.setattr(Verifier, "REFETCH_SECONDS_MIN", 0.0)
    assert verifier.verify(issuer.token()).role is Role.STAFF
    assert issuer.asked == 2


def test_many_at_once_before_the_first_fetch_are_all_let_in(issuer: Issuer, keys: Keys) -> None:
    verifier = outside(issuer, keys)
    token = issuer.token()
    roles: list[Role | None] = []
    threads = [
        threading.Thread(target=lambda: roles.append(verifier.verify(token).role)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert roles == [Role.STAFF] * 8
    assert issuer.asked == 1


# -- key files ----


def test_key_files_are_private_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "街 データ" / "keys"
    first = load_keys(folder, create=True)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == [
        "ingest.secret",
        "seal.key",
        "signing.jwk",
    ]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    again = load_keys(folder, create=True)
    assert again.secret == first.secret
    assert again.signing.as_dict(private=True) == first.signing.as_dict(private=True)


RACE = """
import sys
from pathlib import Path
from core.tokens import load_keys
sys.stdin.readline()
keys = load_keys(Path(sys.argv[1]), create=True)
print(keys.secret.hex(), keys.signing.as_dict(private=True)["d"])
"""


def test_racing_starts_agree_on_the_keys(tmp_path: Path, root: Path) -> None:
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / "keys")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        for _ in range(4)
    ]
    time.sleep(1.0)  # all have imported and wait for the word
    for start in starts:
        assert start.stdin is not None
        start.stdin.write("go\n")
        start.stdin.flush()
    assert len({start.communicate(timeout=60)[0] for start in starts}) == 1
    assert len(list((tmp_path / "keys").iterdir())) == 3  # no drafts left


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"kty":"RSA"}', b'"x"'])
def test_damaged_keys_are_one_clear_error(tmp_path: Path, content: bytes) -> None:
    load_keys(tmp_path, create=True)
    (tmp_path / "signing.jwk").write_bytes(content)
    with pytest.raises(CityError) as caught:
        load_keys(tmp_path)
    assert caught.value.slug == "unavailable"
    assert str(tmp_path) in str(caught.value)


def test_missing_keys_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CityError, match="no usable keys"):
        load_keys(tmp_path / "nowhere")


def test_the_secret_may_come_from_the_environment(tmp_path: Path, keys: Keys) -> None:
    given_ = base64.b64encode(b"s" * 32).decode()
    assert load_secret(Settings(ingest_secret=given_, data=tmp_path)) == b"s" * 32
    assert load_secret(Settings(data=tmp_path)) == keys.secret
    with pytest.raises(CityError, match="CHIMATA_INGEST_SECRET"):
        load_secret(Settings(ingest_secret="not base64!"))


@pytest.mark.parametrize("weak", ["", base64.b64encode(b"short").decode()])
def test_a_short_secret_is_refused(tmp_path: Path, weak: str) -> None:
    load_keys(tmp_path / "keys", create=True)
    (tmp_path / "keys" / "ingest.secret").write_text(weak)
    with pytest.raises(CityError):
        load_secret(Settings(data=tmp_path))
    if weak:
        with pytest.raises(CityError, match="CHIMATA_INGEST_SECRET"):
            load_secret(Settings(ingest_secret=weak))


# -- batch signatures ----


def accepts(
    keys: Keys,
    header: str,
    *,
    topic: str = TOPIC,
    gateway: str = "g1",
    boot: str = "b1",
    seq: int = 7,
    payload: bytes = b"payload",
) -> bool:
    try:
        check_batch_signature(keys.secret, topic, gateway, boot, seq, payload, header)
    except CityError as error:
        assert error.slug == "unauthenticated"
        return False
    return True


def test_a_signature_binds_the_batch_to_its_place(keys: Keys) -> None:
    header = sign_batch(issue(keys, Role.GATEWAY, gateway="g1"), TOPIC, "b1", 7, b"payload")
    assert accepts(keys, header)
    assert not accepts(keys, header, topic="chimata.ports.json")
    assert not accepts(keys, header, gateway="g2")
    assert not accepts(keys, header, boot="b2")
    assert not accepts(keys, header, seq=8)
    assert not accepts(keys, header, payload=b"payloae")


def test_a_signature_ends_with_its_token(keys: Keys) -> None:
    token = issue(keys, Role.GATEWAY, gateway="g1", lifetime_seconds=-LEEWAY_SECONDS - 2)
    header = sign_batch(token, TOPIC, "b1", 7, b"payload")
    assert not accepts(keys, header)
    _, token_id, expires, mac = header.split(".")
    assert not accepts(keys, f"v1.{token_id}.{int(expires) + 3600}.{mac}")


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.tuples(st.text("0123456789٣", max_size=6), st.text(max_size=70)).map(
            lambda parts: f"v1.x.{parts[0]}.{parts[1]}"
        ),
        st.just(f"v1.x.{'9' * 5000}.aa"),
        st.just(f"v1.x.{'9' * 12}.é"),
    )
)
def test_garbage_is_never_a_signature(header: str) -> None:
    assert not accepts(Keys(_ANY_KEY, b"s" * 32), header)
