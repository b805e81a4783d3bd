"""A TCP proxy that a soak puts between two parts: it can cut every connection, or fall silent."""

import asyncio
import contextlib
import threading

CHUNK_BYTES = 1 << 16
START_SECONDS_MAX = 10.0


class Proxy(threading.Thread):
    """Forwards loopback `port` to `target` in a thread of its own."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(name="proxy", daemon=True)
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self.port = 0
        self.start()
        self._ready.wait(START_SECONDS_MAX)

    def run(self) -> None:
        """The thread's work."""
        with contextlib.suppress(RuntimeError):  # `close` stops the loop
            self._loop.run_until_complete(self._serve())

    def cut(self) -> None:
        """End every connection as a lost network does: at once, with whatever was under way."""
        self._loop.call_soon_threadsafe(self._cut)

    def stall(self) -> None:
        """Forward nothing from now on, and keep the connections."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def flow(self) -> None:
        """Forward again."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _serve(self) -> None:
        self._flows.set()
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve_forever()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        finally:
            self._writers -= {writer, back}

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                await self._flows.wait()
                sink.write(chunk)
                await sink.drain()
        sink.close()

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
