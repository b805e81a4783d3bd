"""What is fetched for an import: it comes whole, or not at all with the reason."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from core.errors import CityError
from deploy.download import download

BODY = b"x" * 1000


class Handler(BaseHTTPRequestHandler):
    """/file, /moved to it, /loop to itself, /broken before its end."""

    def do_GET(self) -> None:
        if self.path in {"/moved", "/loop"}:
            self.send_response(302)
            self.send_header("Location", "/file" if self.path == "/moved" else "/loop")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        found = self.path.startswith(("/file", "/broken"))
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY if self.path != "/broken" else BODY[:9])

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/file", "/moved"])
def test_a_file_comes_whole(server: str, path: str, tmp_path: Path) -> None:
    assert download(server + path, tmp_path / "a", len(BODY)).read_bytes() == BODY


@pytest.mark.parametrize(
    ("path", "bytes_max", "slug", "reason"),
    [
        ("/other", 1000, "unavailable", "answers 404"),
        ("/loop", 1000, "unavailable", "TooManyRedirects"),
        ("/broken", 1000, "unavailable", "RemoteProtocolError"),
        ("/file?key=secret", 999, "too-large", "sends over"),
    ],
)
def test_what_does_not_come_whole_is_told(
    server: str, path: str, bytes_max: int, slug: str, reason: str, tmp_path: Path
) -> None:
    """Without the address, which may hold a key."""
    with pytest.raises(CityError, match=reason) as raised:
        download(server + path, tmp_path / "a", bytes_max)
    assert raised.value.slug == slug
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.com/a", "gtfs.zip"])
def test_only_the_web_is_fetched_from(url: str, tmp_path: Path) -> None:
    with pytest.raises(CityError, match="must begin with"):
        download(url, tmp_path / "a", 1)
