"""A file from the web into a folder: its size, time and redirects are bounded."""

import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from core.errors import CityError, invalid

REDIRECTS_MAX = 5
SECONDS_MAX = 300.0
WAIT_SECONDS_MAX = 30.0


def download(url: str, to: Path, bytes_max: int) -> Path:
    """GET over http or https; `unavailable` with the reason where it does not come whole."""
    if urlsplit(url).scheme not in {"http", "https"}:
        raise invalid("URL", "must begin with https:// or http://")
    # Never the whole address in an error: a key may be part of it.
    where = urlsplit(url).hostname
    until = time.monotonic() + SECONDS_MAX
    try:
        with (
            httpx.Client(
                follow_redirects=True, max_redirects=REDIRECTS_MAX, timeout=WAIT_SECONDS_MAX
            ) as client,
            client.stream("GET", url) as response,
            to.open("wb") as file,
        ):
            if response.status_code != httpx.codes.OK:
                raise CityError("unavailable", f"{where} answers {response.status_code}")
            for chunk in response.iter_bytes():
                if file.tell() + len(chunk) > bytes_max:
                    raise CityError("too-large", f"{where} sends over {bytes_max >> 20} MiB")
                if time.monotonic() > until:
                    raise CityError("unavailable", f"{where} takes over {SECONDS_MAX:.0f} s")
                file.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CityError("unavailable", f"{where}: {type(error).__name__}") from error
    return to
