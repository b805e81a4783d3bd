"""Timestamps of checkpoints: what an authority says is believed only where all of it holds."""

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from consent import checks, receipts, timestamps
from consent.timestamps import Authority, load_certificates
from core.errors import CityError
from core.settings import Settings
from core.tokens import Role
from tests import tsa
from tests.api.conftest import serving
from tests.api.test_disclosures import disclose, receipts_of
from tests.api.town import DAY, Town
from tests.consent.oracle import Row
from tests.platform import CHIMATA

NOTE = "chimata/disclosures\n7\nAAAA\n"
SECONDS_MAX = 20.0


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[tsa.Authority]:
    with tsa.serving(tsa.make(tmp_path / "tsa")) as running:
        yield running


def client(authority: tsa.Authority) -> Authority:
    return Authority(authority.url, load_certificates(authority.roots))


def test_a_token_holds_for_its_note_and_under_its_root_alone(
    authority: tsa.Authority, tmp_path: Path
) -> None:
    at, token = client(authority).stamp(NOTE)
    assert abs(datetime.now(UTC) - at) < timedelta(seconds=10)
    roots = load_certificates(authority.roots)
    assert timestamps.check(token, NOTE, roots) == at
    other = load_certificates(tsa.make(tmp_path / "other").roots)
    own = load_certificates(authority.folder / "tsa.pem")
    spoilt = bytearray(token)
    spoilt[-5] ^= 1
    for given, note, certificates in (
        (token, NOTE + "x", roots),
        (token, NOTE, other),
        (token, NOTE, own),
        (token, NOTE, []),
        (bytes(spoilt), NOTE, roots),
        (token[:-1], NOTE, roots),
        (token + b"x", NOTE, roots),
        (b"", NOTE, roots),
        (b"junk", NOTE, roots),
    ):
        with pytest.raises(CityError) as caught:
            timestamps.check(given, note, certificates)
        assert caught.value.fields[0].name == "timestamp"


@pytest.mark.parametrize(
    ("mode", "slug"),
    [
        ("other-nonce", "invalid"),
        ("other-imprint", "invalid"),
        ("refused", "invalid"),
        ("cut", "invalid"),
        ("long", "invalid"),
        ("away", "unavailable"),
        ("slow", "unavailable"),
    ],
)
def test_an_authority_that_lies_is_not_believed(
    authority: tsa.Authority, mode: str, slug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timestamps, "ATTEMPT_SECONDS_MAX", 0.5)
    authority.mode = mode
    with pytest.raises(CityError) as caught:
        client(authority).stamp(NOTE)
    assert caught.value.slug == slug
    assert authority.asked == 1


def test_an_expired_certificate_stamps_nothing(tmp_path: Path) -> None:
    with tsa.serving(tsa.make(tmp_path, expired=True)) as expired, pytest.raises(CityError):
        client(expired).stamp(NOTE)


def test_a_clock_that_is_off_is_not_believed(
    authority: tsa.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timestamps, "CLOCK", timedelta(seconds=-1))
    with pytest.raises(CityError, match="not now"):
        client(authority).stamp(NOTE)


def test_certificates_that_are_none_are_named(tmp_path: Path) -> None:
    for content in (None, b"nothing"):
        if content is not None:
            (tmp_path / "roots.pem").write_bytes(content)
        with pytest.raises(CityError, match=r"roots\.pem"):
            load_certificates(tmp_path / "roots.pem")


@pytest.fixture
def town(database_url: str, tmp_path: Path, authority: tsa.Authority) -> Iterator[Town]:
    settings = Settings(
        database_url=database_url, data=tmp_path / "data", tsa_url=authority.url,
        tsa_certificates=authority.roots, tsa_seconds=0.1,
    )  # fmt: skip
    with serving(settings) as served, psycopg.connect(database_url, autocommit=True) as connection:
        town = Town(served, connection)
        town.register("clinic")
        town.bind("band", ["ai"], (DAY, None))
        town.grant("ai")
        town.store(Row(("band", "heart-rate"), DAY, 1.0))
        yield town


def receipt_of(town: Town, disclosure: str, *, stamped: bool) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        (found,) = receipts_of(town, disclosure, Role.CITIZEN, "ai")
        if bool(found["timestamp"]) == stamped:
            return found
        assert time.monotonic() < deadline, "no timestamp"
        time.sleep(0.05)


def test_a_receipt_carries_the_earliest_timestamp_that_covers_it(
    town: Town, authority: tsa.Authority, tmp_path: Path
) -> None:
    first = disclose(town, "clinic")
    receipt = receipt_of(town, first, stamped=True)
    receipt_of(town, disclose(town, "clinic"), stamped=True)
    assert receipt_of(town, first, stamped=True) == receipt
    told = town.send("GET", "/v1/disclosures/checkpoint", Role.CITIZEN, "ai").json()
    roots = load_certificates(authority.roots)
    key = receipts.public_key(told["key"])
    content = orjson.dumps(receipt)
    (held,) = checks.check(content, checks.Known(key, roots))
    assert "(timestamped 20" in held
    assert "not checked" in next(checks.check(content, checks.Known(key)))
    other = load_certificates(tsa.make(tmp_path / "other").roots)
    later = receipt_of(town, disclose(town, "clinic"), stamped=True)
    for forged, certificates in (
        (receipt, other),
        ({**receipt, "timestamp": later["timestamp"]}, roots),
        ({**receipt, "timestamp": "AAAA"}, roots),
        ({**receipt, "timestamp": "?"}, roots),
    ):
        with pytest.raises(CityError):
            list(checks.check(orjson.dumps(forged), checks.Known(key, certificates)))
    file = tmp_path / "receipt.json"
    file.write_bytes(content)
    done = subprocess.run(
        [str(CHIMATA), "verify", str(file), "--key", told["key"], "--tsa", str(authority.roots)],
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "timestamped" in done.stdout


@pytest.mark.parametrize("mode", ["away", "slow", "other-nonce", "other-imprint"])
def test_nothing_waits_for_an_authority_and_what_it_says_wrongly_is_not_kept(
    town: Town, authority: tsa.Authority, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Receipts come as fast; once it is well again, the newest checkpoint covers them all."""
    monkeypatch.setattr(timestamps, "ATTEMPT_SECONDS_MAX", 1.0)
    authority.mode = mode
    first, second = disclose(town, "clinic"), disclose(town, "clinic")
    for disclosure in (first, second):
        receipt_of(town, disclosure, stamped=False)
    deadline = time.monotonic() + SECONDS_MAX
    while authority.asked < 2:
        assert time.monotonic() < deadline, "it is not asked again"
        time.sleep(0.05)
    assert town.connection.execute("SELECT count(*) FROM audit.timestamp").fetchone() == (0,)
    authority.mode = "ok"
    authority.ended.set()
    receipt_of(town, first, stamped=True)
    receipt_of(town, second, stamped=True)


def test_tokens_are_append_only(town: Town) -> None:
    receipt_of(town, disclose(town, "clinic"), stamped=True)
    for change in ("DELETE FROM", "TRUNCATE"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            town.connection.execute(f"{change} audit.timestamp".encode())
