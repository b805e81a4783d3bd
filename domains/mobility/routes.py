"""The mobility sector's own words, part by part; personal trips are read by grants alone."""

from fastapi import APIRouter

from domains.mobility.catalogue.routes import router as catalogue
from domains.mobility.gtfs.routes import router as gtfs
from domains.mobility.network.journey_routes import router as journeys
from domains.mobility.network.routes import router as network

router = APIRouter()
for part in (catalogue, gtfs, network, journeys):
    router.include_router(part)
