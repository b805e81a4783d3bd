"""What is installed, and whether the database answers."""

from typing import Any

from fastapi import APIRouter, Request, Response

import domains
from api.problems import documented
from api.schemas import Health, Sectors
from consent import door, queries
from consent.decide import read_by_class
from core.errors import CityError
from core.sector import ObservedProperty, Sector, all_formats

router = APIRouter()
health = APIRouter()


@health.get(
    "/healthz", tags=["platform"], response_model=Health, responses=documented("unavailable")
)
def read_health(request: Request) -> Response:
    """Ready for requests: the database answers."""
    door.gate_of(request).check_health()
    return door.current({"status": "ok"})


@router.get("/v1/sectors", tags=["platform"], response_model=Sectors)
def read_sectors(request: Request) -> Response:
    """Every installed sector: its properties, units, formats, data class, and visible Things."""
    listed = [
        _summary(sector, _count(request, sector)) for sector in map(domains.sector, domains.names())
    ]
    return door.cacheable(request, {"sectors": listed})


def _count(request: Request, sector: Sector) -> int:
    """Visible Things; 0 where the caller may not read, without asking for personal ones."""
    if not read_by_class(sector):
        return 0
    try:
        with door.reading(request, sector) as connection:
            return queries.count_things(connection)
    except CityError as error:
        if error.slug in {"unauthenticated", "forbidden"}:
            return 0
        raise


def _summary(sector: Sector, things: int) -> dict[str, Any]:
    return {
        "name": sector.name,
        "title": {"ja": sector.title_ja, "en": sector.title_en},
        "thing_title": {"ja": sector.thing_title_ja, "en": sector.thing_title_en},
        "colour": sector.colour,
        "data_class": sector.data_class.value,
        "formats": all_formats(sector),
        "things": things,
        "properties": [_property(declared) for declared in sector.properties],
    }


def _property(declared: ObservedProperty) -> dict[str, Any]:
    return {
        "name": declared.name,
        "title": {"ja": declared.title_ja, "en": declared.title_en},
        "unit": declared.unit,
        "kind": declared.kind.value,
        "minimum": declared.minimum,
        "maximum": declared.maximum,
        "vocabulary": declared.vocabulary,
    }
