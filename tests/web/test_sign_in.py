"""Shared sectors on a platform that declares nothing open: locked, then opened by a token."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.platform import Platform
from tests.web.conftest import opened

pytestmark = pytest.mark.browser


def lock(page: Page, sector: str) -> None:
    expect(page.locator(f'.layers li[data-sector="{sector}"]')).to_have_attribute(
        "data-access", "locked", timeout=20_000
    )


def test_locked_layers_open_with_a_token(browser: Browser, platform: Platform) -> None:
    """Without a token edge and farms are locked; an operator's opens them, for this tab only."""
    with opened(browser, platform.url) as (page, watched):
        for sector in ("edge", "farms"):
            lock(page, sector)
        page.locator('.layers li[data-sector="edge"] button').click()
        page.fill("#bearer", "not-a-token")
        page.locator("dialog .primary").click()
        expect(page.locator("#signin-refused")).not_to_be_empty()
        page.fill("#bearer", platform.token("operator"))
        page.locator("dialog .primary").click()
        for sector in ("edge", "farms"):
            expect(page.locator(f'.layers li[data-sector="{sector}"]')).to_have_attribute(
                "data-access", "open"
            )
        # With a token the stream is fetched, since EventSource sends no headers.
        expect(page.locator(".live")).to_have_attribute("data-state", "live")
        assert page.evaluate("sessionStorage.length") == 1
        assert page.evaluate("JSON.stringify(localStorage)").find("ey") < 0
        page.get_by_role("button", name="サインアウト").click()
        lock(page, "edge")
        assert watched.outside == []
