"""The dashboard's files: encodings, caching, and nothing but what was built."""

import asyncio
import gzip
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from api import problems, static

SCRIPT = b"console.log('chimata');" * 50


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A build like Vite's."""
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_bytes(b"<!doctype html><title>city</title>")
    (folder / "favicon.svg").write_bytes(b"<svg/>")
    script = folder / "assets" / "index-B4d.js"
    script.write_bytes(SCRIPT)
    (folder / "assets" / "index-B4d.js.gz").write_bytes(gzip.compress(SCRIPT))
    (folder / "assets" / "index-B4d.js.br").write_bytes(b"brotli bytes")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    return folder


@pytest.fixture
def app(dist: Path) -> FastAPI:
    """Nothing but the dashboard."""
    made = FastAPI()
    problems.install(made)
    made.include_router(static.router(dist))
    return made


def get(app: FastAPI, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """One request, and the bytes as they were sent."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}

    async def ask() -> tuple[httpx.Response, bytes]:
        transport = httpx.ASGITransport(app)
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://city") as client,
            client.stream("GET", "http://city" + path, headers=sent) as answer,
        ):
            return answer, b"".join([part async for part in answer.aiter_raw()])

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("br, gzip", "br"), ("gzip", "gzip"), ("gzip, br;q=0", "gzip"), ("identity", None), ("", None),
     ("*", "br"), ("GZIP;q=0.5", "gzip")],
)  # fmt: skip
def test_the_best_encoding_is_sent(app: FastAPI, accepted: str, encoding: str | None) -> None:
    answer, raw = get(app, "/assets/index-B4d.js", Accept_Encoding=accepted)
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    expected = {"br": b"brotli bytes", None: SCRIPT}
    assert (gzip.decompress(raw) if encoding == "gzip" else raw) == expected.get(encoding, SCRIPT)


def test_hashed_files_are_immutable_and_pages_are_not(app: FastAPI) -> None:
    answer, _ = get(app, "/assets/index-B4d.js", Accept_Encoding="gzip")
    assert "immutable" in answer.headers["cache-control"]
    for path in ("/", "/index.html", "/favicon.svg"):
        assert get(app, path)[0].headers["cache-control"] == "no-cache"


def test_an_unchanged_page_is_not_sent_again(app: FastAPI) -> None:
    tag = get(app, "/")[0].headers["etag"]
    answer, body = get(app, "/", If_None_Match=tag)
    assert (answer.status_code, body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["/secret.txt", "/../secret.txt", "/..%2fsecret.txt", "/assets/../../secret.txt",
     "/assets/%2e%2e/%2e%2e/secret.txt", "/assets", "/assets/", "//etc/passwd",
     "/assets/index-B4d.js.gz"],
)  # fmt: skip
def test_only_built_files_are_served(app: FastAPI, path: str) -> None:
    answer, body = get(app, path)
    assert answer.status_code == 404
    assert b"secret" not in body.replace(b"secret.txt", b"")


def test_a_missing_build_says_what_to_do(tmp_path: Path) -> None:
    app = FastAPI()
    app.include_router(static.router(tmp_path / "none"))
    answer, body = get(app, "/")
    assert answer.status_code == 503
    assert b"make setup" in body
