"""What was worked out once and will be asked for again, in bounded memory: oldest out first."""

import threading
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

STREAMS_MAX = 300_000
"""Streams whose names a process keeps worked out: all of a nation's, about 100 bytes each."""
STREAMS_MIN = 32
"""Fewer are worked out anew as fast as they are looked up."""


class Remembered(Generic[Key, Value]):
    """A dict of values with a size each; the oldest leave once all sizes are over `size_max`."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._size = 0
        self._values: dict[Key, tuple[int, Value]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value, or None."""
        found = self._values.get(key)
        return None if found is None else found[1]

    def put(self, key: Key, value: Value, size: int) -> Value:
        """Keep a value; one that is over the bound by itself is not kept. Returns it."""
        with self._lock:
            if size <= self._size_max and key not in self._values:
                self._values[key] = (size, value)
                self._size += size
                while self._size > self._size_max:
                    self._size -= self._values.pop(next(iter(self._values)))[0]
        return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self._size = 0
