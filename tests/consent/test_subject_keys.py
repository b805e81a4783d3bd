"""The keys of persons: one each, destroyed for ever, and nothing of them left in the file."""

import stat
import threading
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from consent.subject_keys import SubjectKeys, Tombstone, seal, unseal
from core.errors import CityError


def test_a_key_is_made_once_whoever_asks(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "subjects"
    codes = [uuid4() for _ in range(40)]
    found: list[dict[UUID, bytes]] = []
    threads = [
        threading.Thread(target=lambda: found.append(SubjectKeys(path).keys(codes)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads)
    assert all(each == found[0] for each in found)
    assert len({*found[0].values()}) == len(codes)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_property_22_a_destroyed_key_is_nowhere_and_comes_no_more(tmp_path: Path) -> None:
    keys = SubjectKeys(tmp_path / "subjects")
    ai, ken, never, act = uuid4(), uuid4(), uuid4(), uuid4()
    before = keys.keys([ai, ken])
    sealed = seal([before[ai]], b"words", "here")
    both = seal([before[ai], before[ken]], b"words of both", "here")
    assert unseal([before[ken], before[ai]], both, "here") == b"words of both"
    for code in (ai, ai, never):
        keys.destroy(code, act)
    assert keys.keys([ai, ken, never]) == {ken: before[ken]}
    told = {each.code: each for each in keys.tombstones()}
    assert told == {code: Tombstone(code, act) for code in (ai, never)}
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert before[ai] not in content
    assert before[ken] in content
    for key, what, context in (
        ([before[ken]], sealed, "here"),
        ([before[ken]], both, "here"),
        ([before[ai]], sealed, "there"),
        ([before[ai]], sealed[:-1], "here"),
    ):
        with pytest.raises(CityError):
            unseal(key, what, context)
