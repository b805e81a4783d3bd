"""The dashboard's built files: precompressed, hashed ones immutable; a clear page when missing."""

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

DIST = Path(__file__).parent / "web" / "dist"
ENCODINGS = {"br": ".br", "gzip": ".gz"}
"""In the order of preference."""
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATED = "no-cache"
TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".geojson": "application/geo+json",
    ".pbf": "application/x-protobuf",
    ".mvt": "application/vnd.mapbox-vector-tile",
    ".woff2": "font/woff2",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
NOT_BUILT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Chimata 巷</title>
<main>
<h1>Chimata 巷</h1>
<p lang="ja">ダッシュボードはまだビルドされていません。<code>make setup</code> を実行してください。
API はこのまま使えます。</p>
<p>The dashboard has not been built yet: run <code>make setup</code>. The API works without it:
<a href="/docs">its documentation</a>, <a href="/v1/sectors">the sectors</a>.</p>
</main>
</html>
"""


@dataclass(frozen=True, slots=True)
class Asset:
    """One built file: its path, the precompressed ones beside it, and how it is cached."""

    path: Path
    encoded: dict[str, Path]
    media_type: str
    tag: str
    cache_control: str

    @classmethod
    def of(cls, root: Path, path: Path) -> "Asset":
        """Read once at start; Vite puts a content hash into the names under assets/."""
        beside = {name: path.with_name(path.name + end) for name, end in ENCODINGS.items()}
        guessed = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        hashed = path.relative_to(root).parts[0] == "assets"
        return cls(
            path,
            {name: file for name, file in beside.items() if file.is_file()},
            TYPES.get(path.suffix, guessed),
            hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(),
            IMMUTABLE if hashed else REVALIDATED,
        )


def found(root: Path) -> dict[str, Asset]:
    """Every built file by its URL path: only what is listed here is ever served."""
    suffixes = tuple(ENCODINGS.values())
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix not in suffixes)
    return {path.relative_to(root).as_posix(): Asset.of(root, path) for path in files}


def accepted(header: str) -> set[str]:
    """The encodings that an Accept-Encoding header takes (RFC 9110, 12.5.3)."""
    taken = set()
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        if weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}:
            taken.add(name.strip())
    return taken


def answer(request: Request, asset: Asset) -> Response:
    """The file in the best encoding that the caller takes, or 304."""
    takes = accepted(request.headers.get("accept-encoding", ""))
    encoding = next((name for name in asset.encoded if name in takes or "*" in takes), None)
    tag = f'"{asset.tag}{"-" + encoding if encoding else ""}"'
    headers = {"Cache-Control": asset.cache_control, "ETag": tag, "Vary": "Accept-Encoding"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if encoding:
        headers["Content-Encoding"] = encoding
    # Read here, not streamed: the files are small and this runs in a worker thread.
    body = (asset.encoded[encoding] if encoding else asset.path).read_bytes()
    return Response(body, media_type=asset.media_type, headers=headers)


def router(root: Path = DIST) -> APIRouter:
    """Routes of the dashboard; put them last, since they take every path that is left."""
    routes = APIRouter(include_in_schema=False)
    assets = found(root)

    @routes.api_route("/", methods=["GET", "HEAD"])
    def read_index(request: Request) -> Response:
        asset = assets.get("index.html")
        if asset is None:
            headers = {"Cache-Control": "no-store"}
            return Response(NOT_BUILT, 503, headers, TYPES[".html"])
        return answer(request, asset)

    @routes.api_route("/{path:path}", methods=["GET", "HEAD"])
    def read_asset(request: Request, path: str) -> Response:
        asset = assets.get(path)
        if asset is None:
            raise HTTPException(404, f"there is nothing at /{path}")
        return answer(request, asset)

    return routes
