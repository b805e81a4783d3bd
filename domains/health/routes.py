"""The health sector's own words: none; /v1/health/personal/observations comes with every sector."""

from fastapi import APIRouter

router = APIRouter()
