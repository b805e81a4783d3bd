"""Which ways of OpenStreetMap one walks on, and which of them not with a wheelchair.

As Key:highway, Key:foot, Key:access, Key:sidewalk, Key:kerb of its wiki and its table of access
restrictions say.
"""

from collections.abc import Mapping

Tags = Mapping[str, str]

MAIN = frozenset(("trunk", "trunk_link", "primary", "primary_link"))
"""Roads on which one walks beside the cars alone: not where they have no sidewalk of their own."""
HIGHWAYS = MAIN | frozenset(
    ("secondary", "secondary_link", "tertiary", "tertiary_link", "unclassified", "residential",
     "living_street", "service", "road", "pedestrian", "footway", "path", "steps", "track",
     "cycleway", "corridor", "elevator", "platform")
)  # fmt: skip
"""Walked on unless other tags forbid it."""
BY_LEAVE = frozenset(("bridleway", "busway", "bus_guideway", "raceway", "escape"))
"""Walked on where `foot` says so."""
FORBIDDEN = frozenset(
    ("no", "private", "permit", "delivery", "agricultural", "forestry", "military", "emergency",
     "use_sidepath", "discouraged")
)  # fmt: skip
ALLOWED = frozenset(("yes", "designated", "permissive", "official", "destination", "customers",
                     "public"))  # fmt: skip
NO_SIDEWALK = frozenset(("no", "none", "separate"))
ROUGH = frozenset(("very_bad", "horrible", "very_horrible", "impassable"))
HIGH_KERBS = frozenset(("raised", "regular", "yes"))
BARRIERS = frozenset(("stile", "turnstile", "kissing_gate", "full-height_turnstile", "kerb", "log",
                      "step", "steps", "block", "chain", "cycle_barrier"))  # fmt: skip
"""Barriers at a point that stop a wheelchair; a kerb unless it is lowered or flush."""


def walkable(tags: Tags) -> bool:
    """Whether everybody may walk there."""
    highway, foot = tags.get("highway", ""), tags.get("foot", "")
    if foot in FORBIDDEN or tags.get("motorroad") == "yes":
        return False
    if foot in ALLOWED:
        return highway in HIGHWAYS or highway in BY_LEAVE
    if tags.get("access", "") in FORBIDDEN or highway not in HIGHWAYS:
        return False
    return not (highway in MAIN and sidewalk(tags) in NO_SIDEWALK)


def sidewalk(tags: Tags) -> str:
    """What is said of both sides; of two sides that differ, the one that has a sidewalk."""
    sides = [tags[key] for key in ("sidewalk", "sidewalk:both") if key in tags]
    sides += [tags[key] for key in ("sidewalk:left", "sidewalk:right") if key in tags]
    return next((side for side in sides if side not in NO_SIDEWALK), sides[0] if sides else "")


def stepped(tags: Tags) -> bool:
    """Whether a way stops a wheelchair."""
    if tags.get("wheelchair") in {"yes", "designated", "limited"}:
        return False
    if tags.get("highway") == "steps":
        return tags.get("ramp:wheelchair") != "yes"
    return tags.get("wheelchair") == "no" or tags.get("smoothness") in ROUGH


def crossing(tags: Tags) -> bool:
    """Whether a way leads over a street: at a kerb's point it is the one that goes over it."""
    return "crossing" in {tags.get("footway"), tags.get("path"), tags.get("cycleway")}


def closed(tags: Tags) -> bool:
    """Whether a point, a locked gate say, lets nobody through."""
    if "barrier" not in tags:
        return False
    foot = tags.get("foot") or tags.get("access", "")
    return foot in FORBIDDEN or (tags.get("locked") == "yes" and foot not in ALLOWED)


def raised(tags: Tags) -> bool:
    """Whether a point stops a wheelchair."""
    if tags.get("wheelchair") in {"yes", "designated", "limited"}:
        return False
    kerb = tags.get("kerb")
    if kerb is not None:
        return kerb in HIGH_KERBS
    return tags.get("barrier") in BARRIERS
