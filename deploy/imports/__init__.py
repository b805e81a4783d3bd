"""`chimata import KIND`: data from files, once; each kind is a module of this folder.

A kind's `run(session, sources)` stores what the sources hold and says what it found, stored and
refused, by name; it recognises what was imported before.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from core.errors import invalid
from deploy.console import Data, Json, database, say

KINDS = tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem[0] != "_"))


def run(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=", ".join(KINDS), show_default=False)],
    sources: Annotated[
        list[str], typer.Argument(metavar="FILE|URL...", help="What to import.", show_default=False)
    ],
    as_json: Json = False,
    data: Data = None,
) -> None:
    """Import files: what was imported before is recognised, and stored no second time."""
    from core.storage.pool import DatabaseRole, open_session

    if kind not in KINDS:
        raise invalid("KIND", f"{kind!r} is none of {', '.join(KINDS)}")
    with database(data) as url, open_session(url, DatabaseRole.INGEST) as session:
        counts = import_module(f"deploy.imports.{kind}").run(session, sources)
    if as_json:
        say(json.dumps({"kind": kind, **counts}, indent=2))
    else:
        say(", ".join(f"{name} {number:,}" for name, number in counts.items()))
