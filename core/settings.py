"""Every knob: read from CHIMATA_* once, frozen, passed down."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from core.errors import CityError

PREFIX = "CHIMATA_"


@dataclass(frozen=True, slots=True)
class Settings:
    """One field = one environment variable, CHIMATA_ + its upper-case name."""

    database_url: str = ""
    """PostgreSQL >= 15, as a libpq URL."""
    cells: str = ""
    """Databases that one read API spans: NAME=URL;NAME=URL; empty means CHIMATA_DATABASE_URL."""
    mqtt_url: str = "mqtt://127.0.0.1:1883"
    """MQTT broker; user and password in it are the ingestor's; mqtts:// for TLS."""
    mqtt_version: int = 5
    """Protocol of the ingestor's session: 5, or 4 for MQTT 3.1.1."""
    mqtt_client_id: str = "chimata-ingest"
    """Name of the ingestor's durable session; each process of a shared subscription has its own."""
    mqtt_shared: bool = True
    """Use a shared subscription ($share); the embedded broker has none."""
    kafka_bootstrap: str = ""
    """Kafka bootstrap servers, host:port,host:port; empty means no Kafka."""
    kafka_group: str = "chimata-ingest"
    """Consumer group of the Kafka ingestor."""
    http: str = "127.0.0.1:8000"
    """Where the API listens."""
    data: Path = Path("data")
    """Folder of everything that one machine keeps: database, broker, keys."""
    ingest_secret: str = ""
    """Base64 secret from which the gateways' Kafka keys are derived; `data` keeps one otherwise."""
    oidc_issuer: str = ""
    """Accepted `iss` of tokens from an outside OIDC issuer."""
    oidc_jwks_url: str = ""
    """Where that issuer publishes its keys."""
    audience: str = "chimata"
    """Expected `aud` of every token."""
    body_bytes_max: int = 8 * 1024 * 1024
    """Largest payload taken by HTTP, MQTT and Kafka."""
    queue_bytes_max: int = 32 * 1024 * 1024
    """Payload bytes an ingestor holds before it stops reading."""
    batch_rows_max: int = 400_000
    """Observations in one storage transaction."""
    batch_seconds_max: float = 0.05
    """Longest wait before a partly filled batch is stored."""
    retention: str = ""
    """What is let go, and when: `signals=90d,*:shared=365d,*/minute=400d`; empty keeps all."""
    columnstore_hours: float = 192.0
    """On TimescaleDB rows go to the columnstore so long after their chunk has closed."""
    archive: str = ""
    """Folder for Parquet: retention drops a day only once it is there; empty means no archive."""
    ledger_days: int = 90
    """Identities of batches older than this are forgotten; 0 keeps all."""
    rejection_items_max: int = 10_000
    """Open rejections kept singly, a gateway and sector; more are counted by hour and reason."""
    rejection_bytes_max: int = 64 * 1024 * 1024
    """Payload bytes kept of them; above it a rejection keeps its hash, reason and count."""
    rejection_days: int = 30
    """After this a rejection lets its payload go: hash, reason and count stay; 0 keeps all."""
    seal_public_key: str = ""
    """Base64 X25519 key to which personal rejections are sealed; `data` keeps a pair otherwise."""
    page_rows_max: int = 10_000
    """Largest `limit` of a page."""
    sse_clients_max: int = 1_000
    """Live subscribers a process."""
    future_seconds_max: float = 900.0
    """An observation further ahead of the receiver's clock than this is rejected."""
    controller: str = ""
    """Who runs this city, as records of consent name it: `name;address;contact`."""
    notice_seconds_max: float = 86_400.0
    """A stop notice that is not acknowledged for so long is escalated."""
    notice_networks: str = ""
    """Networks that are not public to which stop notices may go, also by http: `10.1.0.0/16,…`."""
    tsa_url: str = ""
    """Timestamping authority (RFC 3161) for checkpoints of disclosures; empty means none."""
    tsa_certificates: Path = Path()
    """PEM file of the certificates above the authority's own."""
    tsa_seconds: float = 60.0
    """A checkpoint is timestamped at most so often."""
    pool_connections_max: int = 8
    """Connections a pool, one pool a database role."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read CHIMATA_*; a value of the wrong type is an error that names its variable."""
        source = os.environ if environment is None else environment
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for knob in fields(cls):
            name = PREFIX + knob.name.upper()
            if name in source:
                values[knob.name] = _convert(name, source[name], hints[knob.name])
        return cls(**values)


_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_ALLOWED = {"CHIMATA_MQTT_VERSION": (4, 5)}


def _convert(name: str, text: str, wanted: type) -> Any:
    try:
        value = _BOOLEANS[text.lower()] if wanted is bool else wanted(text)
    except (ValueError, KeyError) as error:
        raise CityError("invalid", f"{name}: {text!r} is not a valid {wanted.__name__}") from error
    if isinstance(value, int | float) and not 0 <= value < math.inf:  # NaN is in no range
        raise CityError("invalid", f"{name}: {text!r} must be a number from 0 up")
    if name in _ALLOWED and value not in _ALLOWED[name]:
        raise CityError("invalid", f"{name}: {text!r} is none of {_ALLOWED[name]}")
    return value
