"""Response models of the edge sector's own words."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

DEPENDENTS_MAX = 1_000
Key = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^/\x00-\x1f\x7f]+$")
]
Keys = Annotated[list[Key], Field(max_length=DEPENDENTS_MAX)]


class NodePosition(BaseModel):
    """Where a node is: its latest position if it moves, else where it is mounted."""

    longitude: float
    latitude: float
    phenomenon_time: datetime | None = Field(description="null: a fixed location")


class Kpi(BaseModel):
    """The latest value of one KPI."""

    result: float | str | None
    unit: str = Field(description="UCUM")
    phenomenon_time: datetime
    quality: int = Field(description="Flags: 0 good, 1 out of range, 2 undeclared, 4 suspect")


class Node(BaseModel):
    """One edge node with its latest KPIs."""

    id: str
    name: str | None
    status: Literal["up", "down"] = Field(description="down after 30 s without a sign of life")
    last_seen: datetime | None
    heartbeat_age_seconds: float | None
    position: NodePosition | None
    kpis: dict[str, Kpi]


class Nodes(BaseModel):
    """A page of nodes, by id."""

    nodes: list[Node]
    next: str | None = Field(description="The next page, or null")

    model_config = {
        "json_schema_extra": {
            "examples": [
                {
                    "nodes": [
                        {
                            "id": "node-001",
                            "name": None,
                            "status": "up",
                            "last_seen": "2026-01-01T00:00:00Z",
                            "heartbeat_age_seconds": 3.2,
                            "position": {
                                "longitude": 139.767,
                                "latitude": 35.681,
                                "phenomenon_time": "2026-01-01T00:00:00Z",
                            },
                            "kpis": {
                                "rsrp": {
                                    "result": -92.0,
                                    "unit": "dB{mW}",
                                    "phenomenon_time": "2026-01-01T00:00:00Z",
                                    "quality": 0,
                                }
                            },
                        }
                    ],
                    "next": None,
                }
            ]
        }
    }


class NearNode(BaseModel):
    """A healthy node and how far it is."""

    id: str
    name: str | None
    longitude: float
    latitude: float
    distance: float = Field(description="m, along the mean sphere")
    last_seen: datetime


class NearNodes(BaseModel):
    """Healthy nodes, nearest first."""

    nodes: list[NearNode]


class DependentsBody(BaseModel):
    """What hangs on a node from now on: what is not named here no longer does."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "pole": "9001",
                    "signals": ["9001", "9002"],
                    "gateways": ["gw-17"],
                    "cells": ["440-10-1"],
                }
            ]
        },
    )

    pole: Key | None = Field(None, description="The Thing whose pole carries it, such as a signal")
    signals: Keys = Field([], description="ids of Things of the signals sector")
    gateways: Keys = []
    cells: Keys = []


class Dependent(BaseModel):
    """One thing that hangs on a node."""

    id: str
    valid_from: datetime
    valid_to: datetime | None


class Dependents(BaseModel):
    """What hangs on a node at one time."""

    node: str
    at: datetime
    pole: str | None
    shares_pole_with: list[str] = Field(description="Other nodes on the same pole, 100 at most")
    signals: list[Dependent]
    gateways: list[Dependent]
    cells: list[Dependent]


class CutOffEntry(BaseModel):
    """What is cut off, and by the silence of which nodes."""

    id: str
    since: datetime | None = Field(
        description="Last sign of life of the last of its nodes; null: there never was one"
    )
    nodes: list[str]


class CutOff(BaseModel):
    """Registered nodes that are silent now, and what hangs on such nodes alone."""

    at: datetime
    silent_after_seconds: int
    counts: dict[str, int] = Field(description="How many there are, also beyond `limit`")
    nodes: list[CutOffEntry]
    signals: list[CutOffEntry]
    gateways: list[CutOffEntry]
    cells: list[CutOffEntry]
