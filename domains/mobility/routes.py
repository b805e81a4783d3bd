"""The mobility sector's own words: none; /v1/mobility/personal/observations comes with it."""

from fastapi import APIRouter

router = APIRouter()
