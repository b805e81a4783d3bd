"""axe-core finds nothing (WCAG 2.2 AA) in any state of the page, theme, language or width."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.platform import Platform
from tests.web.conftest import SECTORS, WIDE, OpenPage, show_only, wait_for_layers

pytestmark = pytest.mark.browser
Axe = Callable[[Page], list[str]]

NARROW = {"width": 320, "height": 700}


@pytest.mark.parametrize(
    ("theme", "locale", "viewport"),
    [
        ("light", "ja-JP", WIDE),
        ("dark", "ja-JP", WIDE),
        ("light", "en-GB", NARROW),
        ("dark", "en-GB", NARROW),
    ],
)
def test_no_violations(
    open_page: OpenPage, demo: Platform, axe: Axe, theme: str, locale: str, viewport: dict[str, int]
) -> None:
    """The list, then the panel of a Thing of every sector."""
    page = open_page(demo.url, color_scheme=theme, locale=locale, viewport=viewport)
    wait_for_layers(page)
    page.wait_for_selector("tbody .open")
    assert axe(page) == []
    for sector in SECTORS:
        show_only(page, sector)
        page.locator(f"tbody tr[data-sector={sector}] .open").first.click()
        page.wait_for_selector(".values li")
        page.wait_for_selector("[data-testid=history] :is(.uplot, .bands, .none)")
        assert axe(page) == [], sector
        page.keyboard.press("Escape")
