"""`chimata import KIND`: data from files, once; each kind is a module of this folder.

A kind's `run(session, sources)` stores what the sources hold and says what it found, stored and
refused, by name; it recognises what was imported before. `OPTIONS` names those of a feed that it
takes.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from core.errors import invalid
from deploy.console import Data, Json, database, say

SHARING = ("collaborative", "competitive")
KINDS = tuple(
    sorted(p.stem.replace("_", "-") for p in Path(__file__).parent.glob("*.py") if p.stem[0] != "_")
)


def run(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=", ".join(KINDS), show_default=False)],
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE|URL...", help="What to import.", show_default=False)
    ],
    feed: Annotated[
        str | None, typer.Option(metavar="ID", help="Id of the feed; default: by its name.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option(metavar="SPDX|URL", help="Licence of the feed.")
    ] = None,
    sharing: Annotated[
        str | None, typer.Option(help="collaborative (open) or competitive (by contract).")
    ] = None,
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Import files: what was imported before is recognised, and stored no second time."""
    from core.storage.pool import DatabaseRole, open_session

    if kind not in KINDS:
        raise invalid("KIND", f"{kind!r} is none of {', '.join(KINDS)}")
    if sharing not in {None, *SHARING}:
        raise invalid("--sharing", f"{sharing!r} is none of {', '.join(SHARING)}")
    module = import_module(f"deploy.imports.{kind.replace('-', '_')}")
    given = {"feed": feed, "licence": licence, "sharing": sharing}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given.keys() - set(getattr(module, "OPTIONS", ())):
        raise invalid(f"--{name}", f"{kind} has no such option")
    with (
        database(data, create=True) as url,
        open_session(url, DatabaseRole.INGEST) as session,
    ):
        counts = module.run(session, sources, **given)
    if as_json:
        say(json.dumps({"kind": kind, **counts}, indent=2, ensure_ascii=False))
    else:
        say(", ".join(f"{name} {_plain(value)}" for name, value in counts.items()))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
