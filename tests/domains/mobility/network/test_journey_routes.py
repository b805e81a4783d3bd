"""GET /v1/mobility/journeys and /isochrones: what is answered, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.databases import DatabaseFactory
from tests.domains.mobility.feeds import SMALL, import_recorded, imported, packed
from tests.domains.serving import client_of

JOURNEYS, ISOCHRONES = "/v1/mobility/journeys", "/v1/mobility/isochrones"
MORNING = "2026-11-24T07:30:00+09:00"
