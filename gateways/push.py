"""Which sender a URL asks for: mqtt[s]://, kafka[s]:// or http[s]://."""

from importlib import import_module
from typing import cast

from core.errors import invalid
from core.tokens import check_name
from gateways.delivery import Sender

SENDERS = {
    "mqtt": ("mqtt", "MqttSender"),
    "mqtts": ("mqtt", "MqttSender"),
    "kafka": ("kafka", "KafkaSender"),
    "kafkas": ("kafka", "KafkaSender"),
    "http": ("http", "HttpSender"),
    "https": ("http", "HttpSender"),
}


def sender(to: str, gateway: str, token: str) -> Sender:
    """A sender for the URL, not yet connected; CityError `invalid` for one that is not known."""
    scheme = to.partition("://")[0]
    if scheme not in SENDERS:
        raise invalid("to", f"{to!r} must begin with one of {', '.join(SENDERS)} and ://")
    module, name = SENDERS[scheme]
    made = getattr(import_module(f"gateways.senders.{module}"), name)
    return cast(Sender, made(to, check_name("gateway", gateway), token))
