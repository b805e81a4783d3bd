"""Room on the disks that the platform writes to: told when it is gone, and when it is back."""

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOM_BYTES_MIN = 32 * 1024 * 1024
"""Less is full: a segment of the write-ahead log or the broker's store would not fit any more."""
LOOK_SECONDS = 1.0

Report = Callable[[str], None]


def is_full(folder: Path) -> bool:
    """Whether nothing more can be expected to fit; a folder that is not there is not full."""
    try:
        return shutil.disk_usage(folder).free < ROOM_BYTES_MIN
    except OSError:
        return False


@dataclass
class Room:
    """Watches the disks of some folders; `report` hears of every change."""

    folders: Iterable[Path]
    report: Report
    _full: list[Path] = field(default_factory=list)
    _looked_at: float = 0.0

    def look(self) -> None:
        """At most once in LOOK_SECONDS."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        full = [folder for folder in self.folders if is_full(folder)]
        for folder in full:
            if folder not in self._full:
                self.report(
                    f"the disk of {folder} is full: nothing is acknowledged until it is not"
                )
        for folder in self._full:
            if folder not in full:
                self.report(f"there is room again on the disk of {folder}")
        self._full = full

    def is_full(self) -> bool:
        """Whether one of the disks is full now."""
        return any(map(is_full, self.folders))
