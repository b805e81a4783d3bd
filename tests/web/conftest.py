"""Fixtures of the page tests: Chromium, and pages that must stay free of errors."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from deploy import web
from tests.platform import Platform
from tests.require import require

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-default-apps", "--disable-domain-reliability", "--no-first-run",
    "--no-pings", "--disable-features=OptimizationHints,MediaRouter,Translate",
)  # fmt: skip
MAP_MILLISECONDS_MAX = 30_000
LAYERS_MILLISECONDS_MAX = 60_000
SECTORS = ("signals", "ports", "edge", "farms")
# WebGL is drawn in software here: a smaller window makes for faster tests.
WIDE = {"width": 1100, "height": 720}


@dataclass
class Watched:
    """What a page did besides showing: requests to other hosts, errors on its console."""

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class OpenPage(Protocol):
    """Opens the dashboard; `url` is the platform's."""

    def __call__(self, url: str, **options: Any) -> Page: ...


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """The page as its present sources make it; a no-op when nothing changed."""
    web.build()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium without a screen, drawing WebGL in software.

    Not a session's: while Playwright is open its event loop runs in this thread, where the tests of
    other files run loops of their own.
    """
    chromium = require("chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[tuple[Page, Watched]]:
    """The dashboard once its map has drawn; what it asked for and complained of is kept."""
    path = options.pop("path", "/")
    settings: dict[str, Any] = {"viewport": WIDE, "locale": "ja-JP"}
    settings |= {"timezone_id": "Asia/Tokyo", "bypass_csp": True, **options}
    context = browser.new_context(**settings)
    watched = Watched()
    page = context.new_page()
    page.on("request", lambda r: _note_outside(watched, url, r.url))
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on("console", lambda m: _note_error(watched, m.type, m.text))
    try:
        page.goto(url + path)
        page.wait_for_selector(".map[data-state=ready]", timeout=MAP_MILLISECONDS_MAX)
        yield page, watched
    finally:
        context.close()


def _note_outside(watched: Watched, origin: str, address: str) -> None:
    if not address.startswith((origin, "blob:", "data:")):
        watched.outside.append(address)


def _note_error(watched: Watched, kind: str, text: str) -> None:
    # The browser itself logs a 401: that is how the page learns that a sector is shared.
    if kind == "error" and "status of 401" not in text:
        watched.errors.append(text)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages; at the end none may have asked another host or logged an error."""
    stack: list[tuple[Any, Watched]] = []

    def open_one(url: str, **options: Any) -> Page:
        manager = opened(browser, url, **options)
        page, watched = manager.__enter__()
        stack.append((manager, watched))
        return page

    yield open_one
    for manager, _ in stack:
        manager.__exit__(None, None, None)
    for _, watched in stack:
        assert watched.outside == [], "the page asked another host"
        assert watched.errors == []


@pytest.fixture
def city_page(open_page: OpenPage, demo: Platform) -> Page:
    """The demo city, all four layers drawn."""
    page = open_page(demo.url)
    wait_for_layers(page)
    return page


def wait_for_layers(page: Page) -> None:
    """Until the map draws at least one symbol of every sector."""
    page.wait_for_function(
        """sectors => sectors.every(sector => chimataMap.getLayer(`things-${sector}`) &&
             chimataMap.queryRenderedFeatures({layers: [`things-${sector}`]}).length > 0)""",
        arg=list(SECTORS),
        timeout=LAYERS_MILLISECONDS_MAX,
    )


def show_only(page: Page, sector: str) -> None:
    """Switch every other layer off."""
    for other in SECTORS:
        page.locator(f'.layers li[data-sector="{other}"] input').set_checked(other == sector)


@pytest.fixture(scope="session")
def axe() -> Callable[[Page], list[str]]:
    """Runs axe-core on the page as it is; one line a violation."""
    script = (web.WEB / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")

    def run(page: Page) -> list[str]:
        page.evaluate(script)
        found = page.evaluate(
            """() => axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa",
                 "wcag22aa", "best-practice"]})"""
        )
        return [
            f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:3]]}"
            for each in found["violations"]
        ]

    return run


@pytest.fixture
def screenshot_file(root: Path, tmp_path: Path) -> Path:
    """README's picture: kept when it is missing or asked for, else only looked at."""
    import os

    kept = root / "docs" / "screenshot.png"
    wanted = os.environ.get("CHIMATA_SCREENSHOT") or not kept.exists()
    return kept if wanted else tmp_path / "screenshot.png"
