"""A full disk is told once, and so is its end."""

from pathlib import Path

import pytest

from deploy import disk


def test_every_change_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(disk, "LOOK_SECONDS", 0.0)
    room = disk.Room([tmp_path, tmp_path / "not-there"], told.append)
    for bytes_min in (0, 1 << 62, 1 << 62, 0, 0):
        monkeypatch.setattr(disk, "ROOM_BYTES_MIN", bytes_min)
        room.look()
        assert room.is_full() == (bytes_min > 0)
    full, free = told
    assert f"{tmp_path} is full" in full
    assert free == f"there is room again on the disk of {tmp_path}"
