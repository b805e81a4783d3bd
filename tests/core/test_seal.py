"""Sealing: only the key's holder opens it, in the context it was sealed for, and unchanged."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from core import seal
from core.errors import CityError
from core.settings import Settings
from core.tokens import load_keys

KEY, OTHER = X25519PrivateKey.generate(), X25519PrivateKey.generate()


@given(content=st.binary(max_size=2000), context=st.text(st.characters(codec="utf-8"), max_size=50))
def test_the_holder_reads_what_was_sealed(content: bytes, context: str) -> None:
    sealed = seal.seal(KEY.public_key(), content, context)
    assert seal.unseal(KEY, sealed, context) == content
    assert sealed != seal.seal(KEY.public_key(), content, context), "equal contents look equal"
    for key, changed, told in (
        (OTHER, sealed, context),
        (KEY, sealed, context + "x"),
        (KEY, sealed[:-1] + bytes([sealed[-1] ^ 1]), context),
        (KEY, sealed[:20], context),
        (KEY, b"", context),
    ):
        with pytest.raises(CityError, match="not sealed to the key"):
            seal.unseal(key, changed, told)


def test_the_key_lies_among_the_others_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    assert seal.public_key(settings) is None
    load_keys(tmp_path / "keys", create=True)
    file = tmp_path / "keys" / seal.FILE
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    load_keys(tmp_path / "keys", create=True)
    assert file.read_bytes() == before
    public = seal.public_key(settings)
    assert public is not None
    sealed = seal.seal(public, b"secret", "c")
    assert seal.unseal(seal.load_private_key(tmp_path / "keys"), sealed, "c") == b"secret"


def test_a_machine_without_the_private_key_seals_by_the_setting(tmp_path: Path) -> None:
    text = seal.public_text(KEY.public_key())
    public = seal.public_key(Settings(data=tmp_path, seal_public_key=text))
    assert public is not None
    assert seal.unseal(KEY, seal.seal(public, b"secret", "c"), "c") == b"secret"
    with pytest.raises(CityError, match=r"seal\.key"):
        seal.load_private_key(tmp_path / "keys")


@pytest.mark.parametrize("text", ["?", "abcd", base64.b64encode(bytes(31)).decode()])
def test_a_setting_that_is_no_key_is_named(text: str, tmp_path: Path) -> None:
    with pytest.raises(CityError, match="CHIMATA_SEAL_PUBLIC_KEY"):
        seal.public_key(Settings(data=tmp_path, seal_public_key=text))


def test_a_cut_off_key_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / seal.FILE).write_bytes(b"abc")
    with pytest.raises(CityError, match=r"seal\.key"):
        seal.load_private_key(tmp_path)
