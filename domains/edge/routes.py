"""The edge sector's own words: nodes with their latest KPIs and whether they are up."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from consent import door
from domains.edge import queries, rules
from domains.edge.schemas import Kpi, Node, NodePosition, Nodes
from domains.edge.sector import SECTOR

router = APIRouter()

NODES_MAX = 1_000
Row = Mapping[str, Any]


@router.get("/nodes", response_model=Nodes, summary="Nodes with their latest KPIs")
def read_nodes(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=NODES_MAX)] = 200,
    after: Annotated[str, Query(max_length=200, description="id of the last node seen")] = "",
) -> Response:
    """Every node: latest KPIs, age of its heartbeat, and `down` after three missed ones."""
    with door.reading(request, SECTOR) as connection:
        rows = queries.select_nodes(connection, after, limit)
    nodes = list(nodes_of(rows, datetime.now(UTC)))
    following = None
    if len(nodes) == limit:
        query = urlencode({"limit": limit, "after": nodes[-1].id})
        following = f"{request.url.path}?{query}"
    return door.current(Nodes(nodes=nodes, next=following).model_dump())


def nodes_of(rows: Iterable[Row], now: datetime) -> Iterable[Node]:
    """Nodes from rows that are sorted by node."""
    for key, group in groupby(rows, itemgetter("key")):
        yield _node(str(key), list(group), now)


def _node(key: str, rows: list[Row], now: datetime) -> Node:
    first = rows[0]
    last_seen = first["last_seen"]
    age = None if last_seen is None else max((now - last_seen).total_seconds(), 0.0)
    told = [row for row in rows if row["phenomenon_time"] is not None]
    return Node(
        id=key,
        name=first["name"],
        status=rules.status(last_seen, now),
        last_seen=last_seen,
        heartbeat_age_seconds=age,
        position=_position(told) or _location(first),
        kpis={row["property"]: _kpi(row) for row in told if row["kind"] != "position"},
    )


def _kpi(row: Row) -> Kpi:
    result = row["text"] if row["kind"] == "category" else row["result"]
    if row["kind"] == "document":
        # Texts are stored as documents; anything deeper has its place in the generic endpoints.
        result = row["document"] if isinstance(row["document"], str) else None
    return Kpi(
        result=result,
        unit=row["unit"],
        phenomenon_time=row["phenomenon_time"],
        quality=row["quality"],
    )


def _position(rows: list[Row]) -> NodePosition | None:
    for row in rows:
        if row["kind"] == "position":
            return NodePosition(
                longitude=row["longitude"],
                latitude=row["latitude"],
                phenomenon_time=row["phenomenon_time"],
            )
    return None


def _location(row: Row) -> NodePosition | None:
    if row["fixed_longitude"] is None:
        return None
    return NodePosition(
        longitude=row["fixed_longitude"], latitude=row["fixed_latitude"], phenomenon_time=None
    )
