"""Response models of the edge sector's own words."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field


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
