"""`chimata ingest mqtt --leave`: an instance that will not come back gives up its durable session.

A broker keeps a share of the messages for every member of a shared subscription whose session
lives, away or not (Mosquitto does). So what waits there is taken first, then the session is ended.
"""

import signal
import threading
import time
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from core.errors import CityError, invalid
from core.settings import Settings
from ingest.mqtt import SHARE, TOPICS, MqttIngestor

QUIET_SECONDS = 3.0
"""The session is empty once nothing was under way for so long."""
CONNECT_SECONDS_MAX = 30.0
TICK_SECONDS = 0.01


class Leaver(MqttIngestor):
    """Signs in to the instance's session, takes what waits in it, and ends it."""

    def __init__(self, settings: Settings) -> None:
        if settings.mqtt_version != MQTTProtocolVersion.MQTTv5:
            raise invalid("CHIMATA_MQTT_VERSION", "must be 5: before it nothing is shared")
        super().__init__(settings)
        self._unsubscribed = threading.Event()
        self._client.on_unsubscribe = lambda *_: self._unsubscribed.set()
        self.had_session = False

    def _connected(self, client: paho.Client, _data: Any, flags: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            return
        self._session += 1
        self.had_session = self.had_session or flags.session_present
        share = SHARE if self._settings.mqtt_shared else ""
        client.unsubscribe([share + topic for topic in TOPICS])

    def leave(self, stop: threading.Event) -> bool:
        """Whether there was a session; at `stop` what is left waits in it as before.

        CityError `unavailable` where the broker does not answer.
        """
        self.start()
        try:
            if not self._unsubscribed.wait(CONNECT_SECONDS_MAX):
                raise CityError("unavailable", "CHIMATA_MQTT_URL: the broker does not answer")
            self._wait_until_quiet(stop)
            if not stop.is_set():
                self._end_session()
        finally:
            self.stop()
        return self.had_session

    def _wait_until_quiet(self, stop: threading.Event) -> None:
        since = time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS and not stop.wait(TICK_SECONDS):
            if self._pipeline.budget.held:
                since = time.monotonic()

    def _end_session(self) -> None:
        properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 0
        self._client.disconnect(properties=properties)


def run(settings: Settings) -> bool:
    """Leave, until SIGINT or SIGTERM; whether there was a session."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return Leaver(settings).leave(stop)
