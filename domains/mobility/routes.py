"""The mobility sector's own words, one router a part of it."""

from fastapi import APIRouter

from domains.mobility.catalogue.routes import router as catalogue
from domains.mobility.gbfs.routes import router as gbfs
from domains.mobility.gtfs.routes import router as gtfs
from domains.mobility.network.journey_routes import router as journeys
from domains.mobility.network.routes import router as network
from domains.mobility.realtime.routes import router as realtime

router = APIRouter()
for part in (catalogue, gbfs, gtfs, network, journeys, realtime):
    router.include_router(part)
