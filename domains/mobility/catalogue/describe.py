"""From a row of the catalogue to what people and machines read of a feed; pure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from domains.mobility.catalogue.schemas import Coverage, Feed, Link, State, Streets

FRESH_SECONDS = {"gtfs": 7 * 86_400, "gtfs-rt": 90, "gbfs": 300}
"""Heard longer ago than this is stale: GTFS-Realtime Best Practices ask for 90 s, GBFS for 5 min;
a timetable that is polled once a day and was not for a week is not looked after."""

PB, JSON, ZIP = "application/x-protobuf", "application/json", "application/zip"
SCHEDULE, REALTIME = "https://gtfs.org/documentation/schedule/", "https://gtfs.org/realtime/"
GBFS = "https://gbfs.org/specification/"
LINKS: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "gtfs": (
        ("Timetable (GTFS)", "gtfs.zip", ZIP, SCHEDULE),
        ("Vehicle positions (GTFS-Realtime)", "vehicle-positions.pb", PB, REALTIME),
        ("Trip updates (GTFS-Realtime)", "trip-updates.pb", PB, REALTIME),
        ("Service alerts (GTFS-Realtime)", "alerts.pb", PB, REALTIME),
    ),
    "gtfs-rt": (),
    "gbfs": (
        ("Shared vehicles (GBFS 3.0)", "gbfs/3.0/gbfs.json", JSON, GBFS),
        ("Shared vehicles (GBFS 2.3)", "gbfs/2.3/gbfs.json", JSON, GBFS),
    ),
}
"""(title, path below the feed, media type, standard): a gtfs-rt feed leaves with its timetable."""


def feed_of(row: Mapping[str, Any], base: str, now: datetime) -> Feed:
    """One feed; `base` is the address of the sector, without a slash at its end."""
    heard = row["heard_at"] or row["imported_at"]
    age = None if heard is None else max((now - heard).total_seconds(), 0.0)
    box = row["box"]
    return Feed(
        id=row["id"], kind=row["kind"], title=row["title"], licence=row["licence"],
        attribution=row["attribution"], sharing=row["sharing"], state=state_of(row, age, now),
        heard_at=heard, changed_at=row["changed_at"] or row["imported_at"], age_seconds=age,
        error=row["error"], poll_seconds=row["poll_seconds"], timetable=row["static_feed"],
        coverage=Coverage(
            box=box if box and box[0] is not None else None,
            valid_from=row["valid_from"], valid_to=row["valid_to"],
        ),
        version=row["version"], version_name=row["name"], versions=row["versions"],
        language=row["language"], timezone=row["timezone"], counts=row["counts"] or {},
        refused=row["refused"] or {}, quality_score=(row["quality"] or {}).get("score"),
        links=[
            Link(title=title, href=f"{base}/feeds/{row['id']}/{path}", media_type=media,
                 conforms_to=standard)
            for title, path, media, standard in LINKS[row["kind"]]
        ],
    )  # fmt: skip


def state_of(row: Mapping[str, Any], age: float | None, now: datetime) -> State:
    """The worst that can be said of a feed."""
    if age is None:
        return "failing" if row["error"] else "empty"
    if row["kind"] == "gtfs" and _is_over(row, now):
        return "expired"
    if row["error"]:
        return "failing"
    # What nobody polls or pushes anew is no staler than its calendar.
    is_still = row["kind"] == "gtfs" and row["poll_seconds"] is None
    return "stale" if age > FRESH_SECONDS[row["kind"]] and not is_still else "fresh"


def _is_over(row: Mapping[str, Any], now: datetime) -> bool:
    if row["version"] is None:
        return False
    zone = ZoneInfo(row["timezone"])
    # Trips of the last day go on after midnight.
    today = (now.astimezone(zone) - timedelta(hours=6)).date()
    return row["valid_to"] is None or bool(row["valid_to"] < today)


# --- DCAT -----------------------------------------------------------------------------------------

CONTEXT = {
    "dcat": "http://www.w3.org/ns/dcat#",
    "dct": "http://purl.org/dc/terms/",
    "dqv": "http://www.w3.org/ns/dqv#",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "schema": "https://schema.org/",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
}
"""Inline: who reads the catalogue need not fetch a context from anybody."""
OPENSTREETMAP = "https://www.openstreetmap.org/"
SPDX = "https://spdx.org/licenses/"


def catalogue(
    feeds: list[Feed], base: str, title: Mapping[str, str], streets: Streets | None = None
) -> dict[str, Any]:
    """The feeds as a DCAT 3 catalogue in JSON-LD (W3C, 2024); the service names its streets."""
    walked = {}
    if streets is not None:
        walked = {"dct:rights": streets.attribution, "dct:source": {"@id": OPENSTREETMAP}}
    return {
        "@context": CONTEXT,
        "@id": f"{base}/catalogue.jsonld",
        "@type": "dcat:Catalog",
        "dct:title": [{"@language": tag, "@value": text} for tag, text in title.items()],
        "dcat:dataset": [dataset(feed, base) for feed in feeds],
        "dcat:service": {
            "@id": base,
            "@type": "dcat:DataService",
            "dct:title": "Mobility API",
            "dcat:endpointURL": {"@id": base},
            **walked,
        },
    }


def dataset(feed: Feed, base: str) -> dict[str, Any]:
    """One feed as a dcat:Dataset; what is not known is left out."""
    here = f"{base}/feeds/{feed.id}"
    found: dict[str, Any] = {
        "@id": here,
        "@type": "dcat:Dataset",
        "dct:identifier": feed.id,
        "dct:title": feed.title,
        "dct:publisher": {"@type": "foaf:Agent", "foaf:name": feed.attribution or feed.title},
        "dct:accessRights": "public" if feed.sharing == "collaborative" else "restricted",
        "dct:license": _licence(feed.licence),
        "dct:language": feed.language,
        "dct:modified": _typed(feed.changed_at, "dateTime"),
        "dct:temporal": _period(feed.coverage),
        "dct:spatial": _place(feed.coverage.box),
        "dct:accrualPeriodicity": feed.poll_seconds and f"PT{feed.poll_seconds}S",
        "dqv:hasQualityMeasurement": _quality(feed, here),
        "dcat:distribution": [
            {
                "@id": link.href,
                "@type": "dcat:Distribution",
                "dct:title": link.title,
                "dcat:accessURL": {"@id": link.href},
                "dcat:downloadURL": {"@id": link.href},
                "dcat:mediaType": link.media_type,
                "dct:conformsTo": {"@id": link.conforms_to},
                **({"dct:license": licence} if (licence := _licence(feed.licence)) else {}),
            }
            for link in feed.links
        ],
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def _licence(said: str | None) -> dict[str, str] | None:
    if not said:
        return None
    return {"@id": said if said.startswith(("http://", "https://")) else SPDX + said}


def _typed(moment: datetime | None, kind: str) -> dict[str, str] | None:
    if moment is None:
        return None
    return {"@type": f"xsd:{kind}", "@value": moment.astimezone(UTC).isoformat()}


def _period(coverage: Coverage) -> dict[str, Any] | None:
    if coverage.valid_from is None or coverage.valid_to is None:
        return None
    days = {"startDate": coverage.valid_from, "endDate": coverage.valid_to}
    told = {f"dcat:{k}": {"@type": "xsd:date", "@value": v.isoformat()} for k, v in days.items()}
    return {"@type": "dct:PeriodOfTime", **told}


def _place(box: list[float] | None) -> dict[str, Any] | None:
    if box is None:
        return None
    west, south, east, north = box
    corners = ((west, south), (east, south), (east, north), (west, north), (west, south))
    text = ", ".join(f"{x:.6f} {y:.6f}" for x, y in corners)
    geometry = {
        "@type": "http://www.opengis.net/ont/geosparql#wktLiteral",
        "@value": f"POLYGON(({text}))",
    }
    return {"@type": "dct:Location", "dcat:bbox": geometry}


def _quality(feed: Feed, here: str) -> dict[str, Any] | None:
    if feed.quality_score is None:
        return None
    return {
        "@type": "dqv:QualityMeasurement",
        "dqv:isMeasurementOf": {"@id": f"{here}/quality"},
        "dqv:value": feed.quality_score,
    }
