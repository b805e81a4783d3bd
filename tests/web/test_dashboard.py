"""What a reader sees and does: layers, panel, chart, table, language, theme, keyboard."""

import re
import struct
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.platform import Platform
from tests.web.conftest import SECTORS, OpenPage, show_only, wait_for_layers

pytestmark = pytest.mark.browser

SCREENSHOT_BYTES_MAX = 400 * 1024
PANEL = "[data-testid=panel]"


def choose_on_map(page: Page, sector: str) -> str:
    """Bring one Thing of the sector into the middle, click its symbol; its key.

    The other layers are off meanwhile: nodes hang on signal poles, ships lie side by side.
    """
    show_only(page, sector)
    key: str = page.evaluate(
        """sector => {
          const shown = chimataMap.queryRenderedFeatures({layers: [`things-${sector}`]});
          chimataMap.jumpTo({center: shown[0].geometry.coordinates, zoom: 17});
          return shown[0].properties.key;
        }""",
        sector,
    )
    page.wait_for_function(
        """([sector, key]) => !chimataMap.isMoving() &&
             chimataMap.queryRenderedFeatures({layers: [`things-${sector}`]})
               .some(feature => feature.properties.key === key)""",
        arg=[sector, key],
    )
    # A ship sails on between the jump and the click: ask where it is drawn now.
    at = page.evaluate(
        """([sector, key]) => {
          const shown = chimataMap.queryRenderedFeatures({layers: [`things-${sector}`]})
            .find(feature => feature.properties.key === key);
          const box = chimataMap.getCanvas().getBoundingClientRect();
          const point = chimataMap.project(shown.geometry.coordinates);
          return [box.left + point.x, box.top + point.y];
        }""",
        [sector, key],
    )
    page.mouse.click(*at)
    return key


def test_four_live_layers(city_page: Page) -> None:
    """Every sector is a layer with Things in it, and the stream moves them."""
    layers = city_page.locator(".layers li")
    expect(layers).to_have_count(len(SECTORS))
    for sector in SECTORS:
        count = city_page.locator(f'.layers li[data-sector="{sector}"] .count')
        assert int(re.sub(r"\D", "", count.inner_text())) > 0
    expect(city_page.locator(".live")).to_have_attribute("data-state", "live")
    state = """() => JSON.stringify(chimataMap.queryRenderedFeatures({layers:
        ["things-signals", "things-ports"]}).map(f => [f.properties, f.geometry]))"""
    before = city_page.evaluate(state)
    city_page.wait_for_function(f"before => ({state})() !== before", arg=before, timeout=30_000)


def test_first_view_holds_the_city(city_page: Page) -> None:
    """Nearly every Thing that exists is in the first view."""
    total = city_page.locator(".layers .count").all_inner_texts()
    expected = sum(int(re.sub(r"\D", "", text)) for text in total)
    listed = int(re.sub(r"\D", "", city_page.locator(".head .count").inner_text()))
    assert listed >= expected * 0.85


def test_layer_is_switched_off_and_on(city_page: Page) -> None:
    """A layer that is off is neither on the map nor in the table."""
    shown = "() => chimataMap.queryRenderedFeatures({layers: ['things-signals']}).length"
    switch = city_page.locator('.layers li[data-sector="signals"] input')
    switch.uncheck()
    city_page.wait_for_function(f"({shown})() === 0")
    expect(city_page.locator("tbody .lamps")).to_have_count(0)
    switch.check()
    city_page.wait_for_function(f"({shown})() > 0")


@pytest.mark.parametrize("sector", SECTORS)
def test_click_on_the_map_opens_a_panel_with_a_chart(city_page: Page, sector: str) -> None:
    """A click on a symbol shows that Thing: latest values, and its history as a chart or bands."""
    key = choose_on_map(city_page, sector)
    panel = city_page.locator(PANEL)
    expect(panel.locator(".values li").first).to_be_visible(timeout=20_000)
    expect(panel.locator(".id")).to_have_text(key.partition("/")[2])
    drawing = panel.locator("[data-testid=history] :is(.uplot canvas, .bands svg)").first
    expect(drawing).to_be_visible(timeout=20_000)
    inked = city_page.evaluate(
        """() => {
          const canvas = document.querySelector("[data-testid=history] .uplot canvas");
          if (!canvas) return document.querySelectorAll(".bands svg rect").length > 1;
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return pixels.data.some(value => value > 0);
        }"""
    )
    assert inked, "the chart is empty"
    city_page.keyboard.press("Escape")
    expect(panel).to_have_count(0)


def test_signal_groups_count_down(city_page: Page) -> None:
    """An intersection shows its groups' states with what is left of them, and they move."""
    choose_on_map(city_page, "signals")
    groups = city_page.locator("[data-testid=signal-groups] li")
    expect(groups.first).to_be_visible()
    expect(groups.locator(".state").first).not_to_have_text("不明")
    before = groups.all_inner_texts()
    city_page.wait_for_function(
        """before => JSON.stringify([...document.querySelectorAll(
             "[data-testid=signal-groups] li")].map(li => li.innerText)) !== before""",
        arg=str(before),
        timeout=10_000,
    )


def test_moving_thing_has_a_track(city_page: Page) -> None:
    """The way a ship came is drawn on the map."""
    city_page.fill("input[type=search]", "船舶")
    city_page.locator("tbody tr", has_text="ノット").locator(".open").first.click()
    city_page.locator(f"{PANEL} nav .button").nth(1).click()
    city_page.wait_for_function(
        "chimataMap.querySourceFeatures('track').length > 0", timeout=30_000
    )


def test_chart_periods(city_page: Page) -> None:
    """An hour, a day and a week can be chosen."""
    choose_on_map(city_page, "edge")
    history = city_page.locator("[data-testid=history]")
    for name in ("24 時間", "7 日", "1 時間"):
        with city_page.expect_response(re.compile(r"/observations\?.*interval=")) as answer:
            history.get_by_role("button", name=name, exact=True).click()
        assert answer.value.ok
        expect(history.locator(".uplot")).to_be_visible()


def test_table_sorts_and_filters(city_page: Page) -> None:
    """The table is sorted by its headings and narrowed by its box."""
    names = city_page.locator("tbody .open")
    city_page.get_by_role("button", name="名前").click()
    heading = city_page.locator("th.name")
    expect(heading).to_have_attribute("aria-sort", "ascending")
    ascending = names.first.inner_text()
    city_page.get_by_role("button", name="名前").click()
    expect(heading).to_have_attribute("aria-sort", "descending")
    expect(names.first).not_to_have_text(ascending)
    wanted = names.first.inner_text()
    city_page.fill("input[type=search]", wanted)
    expect(names.first).to_have_text(wanted)
    city_page.fill("input[type=search]", "そんなものはない")
    expect(names).to_have_count(0)
    expect(city_page.locator(".note")).to_be_visible()


def test_language_switch(open_page: OpenPage, demo: Platform) -> None:
    """Japanese for a Japanese browser, English at a click, kept over a reload."""
    page = open_page(demo.url)
    wait_for_layers(page)
    assert page.evaluate("document.documentElement.lang") == "ja"
    expect(page.locator("#layers-title")).to_have_text("レイヤー")
    page.get_by_test_id("language").click()
    expect(page.locator("#layers-title")).to_have_text("Layers")
    assert page.evaluate("document.documentElement.lang") == "en"
    wait_for_layers(page)
    page.reload()
    expect(page.locator("#layers-title")).to_have_text("Layers")


def test_dark_and_light(open_page: OpenPage, demo: Platform) -> None:
    """Follows the system until the reader chooses; the map changes with the page."""
    sea = "() => chimataMap.getPaintProperty('sea', 'background-color')"
    page = open_page(demo.url, color_scheme="dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    dark = page.evaluate(sea)
    page.get_by_test_id("theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.wait_for_function(f"dark => ({sea})() !== dark", arg=dark)
    wait_for_layers(page)
    page.reload()
    page.wait_for_function("document.documentElement.dataset.theme === 'light'")


def test_by_keyboard_alone(city_page: Page) -> None:
    """Skip link, pan of the map, a row opened and closed without a mouse."""
    city_page.keyboard.press("Tab")
    assert city_page.evaluate("document.activeElement.className").startswith("skip")
    city_page.locator(".maplibregl-canvas").focus()
    west = city_page.evaluate("chimataMap.getBounds().getWest()")
    city_page.keyboard.press("ArrowRight")
    city_page.wait_for_function("west => chimataMap.getBounds().getWest() > west", arg=west)
    city_page.locator("tbody .open").first.focus()
    city_page.keyboard.press("Enter")
    expect(city_page.locator(f"{PANEL} h2")).to_be_focused()
    city_page.keyboard.press("Escape")
    expect(city_page.locator(PANEL)).to_have_count(0)


@pytest.mark.parametrize("width", [320, 390])
@pytest.mark.parametrize("locale", ["ja-JP", "en-GB"])
def test_no_sideways_scrolling(
    open_page: OpenPage, demo: Platform, width: int, locale: str
) -> None:
    """WCAG 1.4.10: at 320 CSS pixels nothing sticks out, in the list or in a panel."""
    page = open_page(demo.url, viewport={"width": width, "height": 700}, locale=locale)
    wait_for_layers(page)
    page.wait_for_selector("tbody .open")
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    for sector in ("signals", "ports"):
        show_only(page, sector)
        page.locator(f"tbody tr[data-sector={sector}] .open").first.click()
        page.wait_for_selector(".values li")
        assert page.evaluate(overflow) == 0
        page.keyboard.press("Escape")


def test_screenshot(open_page: OpenPage, demo: Platform, screenshot_file: Path) -> None:
    """README's picture of the demo city: real, recent and small."""
    size = {"width": 1440, "height": 900}
    page = open_page(demo.url, locale="en-GB", reduced_motion="reduce", viewport=size)
    wait_for_layers(page)
    page.fill("input[type=search]", "Intersection")
    page.locator("tbody tr[data-sector=signals] .open").first.click()
    page.wait_for_selector("[data-testid=signal-groups] li")
    page.wait_for_selector("[data-testid=history] .bands svg")
    page.mouse.move(5, 5)
    page.wait_for_timeout(3_000)
    page.screenshot(path=screenshot_file)
    header = screenshot_file.read_bytes()[:24]
    assert struct.unpack(">II", header[16:24]) == (1440, 900)
    assert screenshot_file.stat().st_size < SCREENSHOT_BYTES_MAX
