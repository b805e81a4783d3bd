"""kafka-python's network client, without two things that cost a core under load.

Version 3.0 reads a socket 4 KiB at a time, giving up the interpreter to other threads each time,
and its producer spins while as many requests are under way as may be.
"""

from typing import Any

from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

READ_BYTES = 256 * 1024
LOOK_AGAIN_MILLISECONDS = 20.0


class WideSocket:
    """A socket of which each read asks for READ_BYTES."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def recv(self, size: int) -> bytes:
        """As a socket's, but more than `size` where more has come."""
        received: bytes = self._socket.recv(max(size, READ_BYTES))
        return received

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class Connections(KafkaConnectionManager):  # type: ignore[misc]
    """Connections over wide sockets."""

    async def _build_transport(self, *args: Any, **options: Any) -> Any:
        transport = await super()._build_transport(*args, **options)
        transport._sock = WideSocket(transport._sock)
        return transport


class KafkaClient(KafkaNetClient):  # type: ignore[misc]
    """For the option `kafka_client` of KafkaConsumer and KafkaProducer."""

    def __init__(self, **config: Any) -> None:
        net = NetworkSelector(**config)
        super().__init__(net, Connections(net, **config), **config)

    def connection_delay(self, node_id: Any) -> float:
        """Milliseconds until the producer looks again at a node that takes no more for now.

        It is told seconds, and 0 for a node that is merely busy; an answer ends the wait.
        """
        if self.connected(node_id):
            return LOOK_AGAIN_MILLISECONDS
        seconds: float = super().connection_delay(node_id)
        return seconds * 1000
