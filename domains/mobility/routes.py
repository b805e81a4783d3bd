"""The mobility sector's own words, part by part; personal trips are read by grants alone."""

from fastapi import APIRouter

from domains.mobility.catalogue.routes import router as catalogue

router = APIRouter()
for part in (catalogue,):
    router.include_router(part)
