"""The edge sector's own words: nodes with their latest KPIs and whether they are up."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AwareDatetime

from consent import door
from consent.gate import PermittedConnection
from core.errors import CityError
from domains.edge import links, queries, rules
from domains.edge.schemas import (
    CutOff,
    Dependents,
    DependentsBody,
    Key,
    Kpi,
    NearNodes,
    Node,
    NodePosition,
    Nodes,
)
from domains.edge.sector import SECTOR

router = APIRouter()

NODES_MAX = 1_000
NEAREST_MAX = 100
CUT_OFF_MAX = 10_000
DEPENDENT_KINDS = {"signal": "signals", "gateway": "gateways", "cell": "cells"}
"""Kinds of what hangs on a node, and their lists in an answer."""
Row = Mapping[str, Any]
NodeId = Annotated[Key, Path(description="id of the node")]


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


@router.get("/nodes/nearest", response_model=NearNodes, summary="Healthy nodes near a point")
def read_nearest(
    request: Request,
    near: Annotated[
        str, Query(max_length=64, description="longitude,latitude", examples=["139.767,35.681"])
    ],
    limit: Annotated[int, Query(ge=1, le=NEAREST_MAX)] = 1,
) -> Response:
    """The nodes nearest to a point of which a sign of life came in the last 30 s."""
    point = rules.point(near)
    since = datetime.now(UTC) - timedelta(seconds=rules.SILENT_SECONDS)
    with door.reading(request, SECTOR) as connection:
        rows = queries.select_nearest(connection, point, since, limit)
    nodes = [{"id": row["key"], **{k: v for k, v in row.items() if k != "key"}} for row in rows]
    return door.current({"nodes": nodes})


@router.get("/nodes/{thing}/dependents", response_model=Dependents, summary="What hangs on a node")
def read_dependents(
    request: Request,
    thing: NodeId,
    when: Annotated[
        AwareDatetime | None, Query(description="What hung on it then; now, if left out")
    ] = None,
) -> Response:
    """The pole that carries a node, and the signals, gateways and cells that hang on it."""
    with door.reading(request, SECTOR) as connection:
        _check_class(connection)
        rows = queries.select_links(connection, thing, when)
    if rows is None:
        raise CityError("not-found", "no such node is registered")
    return door.current(_dependents(thing, when or datetime.now(UTC), rows))


@router.put("/nodes/{thing}/dependents", response_model=Dependents, summary="Say what hangs on it")
def put_dependents(request: Request, thing: NodeId, body: DependentsBody) -> Response:
    """Say which pole carries a node and what hangs on it from now on: scope `write:edge`.

    What is not named ends now and stays as history; the same again changes nothing.
    """
    told = {
        "pole": [body.pole] if body.pole else [],
        "signal": body.signals,
        "gateway": body.gateways,
        "cell": body.cells,
    }
    with door.having(request, "write:edge", "what hangs on a node", writes=True) as connection:
        at = links.replace_links(connection, thing, told)
    with door.reading(request, SECTOR) as permitted:
        rows = queries.select_links(permitted, thing, at)
    return door.current(_dependents(thing, at, rows or []))


def _dependents(node: str, at: datetime, rows: Sequence[Row]) -> dict[str, Any]:
    pole = next((row for row in rows if row["kind"] == "pole"), None)
    body: dict[str, Any] = {
        "node": node,
        "at": at,
        "pole": pole and pole["key"],
        "shares_pole_with": pole["others"] if pole else [],
    }
    for kind, title in DEPENDENT_KINDS.items():
        body[title] = [
            {"id": row["key"], "valid_from": row["valid_from"], "valid_to": row["valid_to"]}
            for row in rows
            if row["kind"] == kind
        ]
    return body


@router.get("/cut-off", response_model=CutOff, summary="What is cut off now")
def read_cut_off(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=CUT_OFF_MAX, description="of each kind")] = 1_000,
) -> Response:
    """Nodes without a sign of life for 30 s by the receiver's clock, and what hangs on them.

    What also hangs on a node that is heard is not cut off.
    """
    now = datetime.now(UTC)
    with door.reading(request, SECTOR) as connection:
        _check_class(connection)
        since = now - timedelta(seconds=rules.SILENT_SECONDS)
        rows = queries.select_cut_off(connection, since, limit)
    kinds = {"node": "nodes", **DEPENDENT_KINDS}
    lists: dict[str, list[dict[str, Any]]] = {title: [] for title in kinds.values()}
    counts = dict.fromkeys(lists, 0)
    for row in rows:
        title = kinds[row["kind"]]
        counts[title] = row["total"]
        lists[title].append({"id": row["key"], "since": row["last_seen"], "nodes": row["nodes"]})
    told = {"at": now, "silent_after_seconds": rules.SILENT_SECONDS, "counts": counts, **lists}
    return door.current(told)


def _check_class(connection: PermittedConnection) -> None:
    """CityError for who may not see links: an empty list would say that nothing is cut off."""
    if SECTOR.data_class.value not in connection.classes:
        raise CityError("unauthenticated", "what hangs on nodes is shared: send a bearer token")


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
