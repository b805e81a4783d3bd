"""What AIS values mean beyond their bits: ship types, stations, destinations, years of ETAs."""

import re
from datetime import UTC, datetime, timedelta
from typing import Literal

from core.sensorthings import Decoded

_FIRST_DIGIT = {
    2: "Wing in ground",
    4: "High-speed craft",
    6: "Passenger",
    7: "Cargo",
    8: "Tanker",
    9: "Other type",
}
_SECOND_DIGIT = {
    1: ", hazardous category A",
    2: ", hazardous category B",
    3: ", hazardous category C",
    4: ", hazardous category D",
}
_SPECIAL = {
    30: "Fishing",
    31: "Towing",
    32: "Towing, length over 200 m or breadth over 25 m",
    33: "Dredging or underwater operations",
    34: "Diving operations",
    35: "Military operations",
    36: "Sailing",
    37: "Pleasure craft",
    50: "Pilot vessel",
    51: "Search and rescue vessel",
    52: "Tug",
    53: "Port tender",
    54: "Anti-pollution equipment",
    55: "Law enforcement",
    58: "Medical transport",
    59: "Ship of a State not party to an armed conflict",
}

Station = Literal[
    "vessel",
    "coast-station",
    "aid-to-navigation",
    "sar-aircraft",
    "ais-sart",
    "man-overboard",
    "epirb",
    "craft-of-a-ship",
]

# ITU-R M.585-9: what the first digits of an MMSI say; the longest prefix wins.
_STATIONS: tuple[tuple[str, Station], ...] = (
    ("111", "sar-aircraft"),
    ("970", "ais-sart"),
    ("972", "man-overboard"),
    ("974", "epirb"),
    ("00", "coast-station"),
    ("98", "craft-of-a-ship"),
    ("99", "aid-to-navigation"),
)

# IMO SN.1/Circ.244: "JP TYO", or where from and where to as "JP TYO>US LAX".
_CODE = r"[A-Z]{2} ?[A-Z2-9]{3}"
_VOYAGE = re.compile(rf"({_CODE}|\?\? \?\?\?)? ?>+ ?({_CODE})")
_PLACE = re.compile(r"[A-Z]{2} [A-Z2-9]{3}")


def derive(decoded: Decoded) -> Decoded:
    """Nothing is derived: speeds and courses are measured on board."""
    return decoded


def ship_type_text(code: int) -> str:
    """The type of ship and cargo in words (ITU-R M.1371-5 table 53); "" for not available."""
    special = _SPECIAL.get(code)
    if special:
        return special
    kind = _FIRST_DIGIT.get(code // 10)
    return kind + _SECOND_DIGIT.get(code % 10, "") if kind else ""


def station_kind(mmsi: str) -> Station:
    """What kind of station an MMSI belongs to (ITU-R M.585-9)."""
    return next((kind for prefix, kind in _STATIONS if mmsi.startswith(prefix)), "vessel")


def voyage_codes(destination: str) -> dict[str, str]:
    """UN/LOCODEs under `from` and `to`, where the crew wrote them as IMO SN.1/Circ.244 asks."""
    text = destination.strip().upper()
    if _PLACE.fullmatch(text):
        return {"to": text.replace(" ", "")}
    found = _VOYAGE.fullmatch(text)
    if not found:
        return {}
    codes = {"from": found[1] or "", "to": found[2]}
    return {end: code.replace(" ", "") for end, code in codes.items() if code and "?" not in code}


def eta_time(month: int, day: int, hour: int, minute: int, said_at: datetime) -> datetime | None:
    """The UTC time an ETA without a year means: the one nearest to when it was said."""
    candidates = []
    for year in (said_at.year - 1, said_at.year, said_at.year + 1):
        try:
            candidates.append(datetime(year, month, day, hour, minute, tzinfo=UTC))
        except ValueError:  # 29 February, or no such time at all
            continue
    nearest = min(candidates, key=lambda time: abs(time - said_at), default=None)
    if nearest is None or abs(nearest - said_at) > timedelta(days=184):
        return None
    return nearest
