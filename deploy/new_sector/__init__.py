"""`make new-sector NAME=water`: a sector that works at once, to be filled from there."""

import keyword
import re
from pathlib import Path

from core.errors import CityError, invalid

TEMPLATE = Path(__file__).parent / "template"
DOMAINS = Path(__file__).parents[2] / "domains"
PLACEHOLDER = "newsector"
PACKAGE = "deploy.new_sector.template"
NAME = re.compile(r"[a-z][a-z0-9]{1,30}")
# The other words that stand where a sector does, in a URL or a topic.
TAKEN = frozenset({"account", "ingest", "live", "receipts", "sectors", "template", PLACEHOLDER})


def create(name: str, domains: Path = DOMAINS) -> Path:
    """Copy the template to domains/NAME and return that folder.

    CityError `invalid` for a name that cannot stand in a topic, URL and import at once, `conflict`
    for one that exists. Nothing else changes: there is no registry.
    """
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or name in TAKEN:
        raise invalid("NAME", f"{name!r}: 2 to 31 of a-z and 0-9, a letter first, not a taken word")
    folder = domains / name
    if folder.exists():
        raise CityError("conflict", f"{folder} is there already")
    partial = domains / f".{name}.partial"
    for source in sorted(TEMPLATE.rglob("*")):
        if source.is_file() and "__pycache__" not in source.parts:
            target = partial / source.relative_to(TEMPLATE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(filled(source.read_text("utf-8"), name), "utf-8")
    partial.rename(folder)
    return folder


def filled(text: str, name: str) -> str:
    """The template's text for this sector."""
    text = text.replace(PACKAGE, f"domains.{name}")
    return text.replace(PLACEHOLDER, name).replace(PLACEHOLDER.capitalize(), name.capitalize())
