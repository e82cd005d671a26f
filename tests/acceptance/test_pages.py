"""Every page, in both themes and on a phone: axe finds nothing, nothing overflows, nothing foreign is asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Request, expect

from tests.acceptance.walk import convert
from tests.stack import ROOT, Stack

Theme = Literal["light", "dark"]
VIEWS: list[tuple[int, Theme]] = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"), (2560, "light")]
# What stands beside a badge and has less than four fifths of the line on a phone
SQUEEZED = """[...document.querySelectorAll('.line.start > .grow')]
    .filter((one) => one.clientWidth && one.clientWidth < 0.8 * one.parentElement.clientWidth)
    .map((one) => one.innerText)"""
PICTURE = ROOT / "docs" / "version.png"


@pytest.fixture
def addresses(signed_in_page: Page) -> list[str]:
    """The address of every kind of page, found by following the links that people follow."""
    page = signed_in_page
    home = page.url.rstrip("/")
    page.get_by_role("link", name="Sample classifier", exact=True).click()
    model = page.url
    page.get_by_role("link", name="Version 1").click()
    version = page.url
    if page.locator("#to-saved_model").count():
        convert(page, "saved_model")
    else:
        page.locator("#convert").get_by_role("link", name="Ready").first.click()
    team = [f"{home}/{name}/" for name in ("upload", "members", "shares", "history")]
    return [home + "/", model, version, page.url, *team, "/why-not-pickle/", "/login/", "/no-such-page/"]


def open_everything(page: Page) -> None:
    """What is folded away, and the options of every format that can be asked for."""
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    page.locator("#convert input[type=checkbox]").evaluate_all("all => all.forEach((one) => { one.checked = true; })")


def test_axe_finds_nothing_and_nothing_overflows(signed_in_page: Page, addresses: list[str], stack: Stack) -> None:
    page = signed_in_page
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("request", note)
    for address in addresses:
        page.goto(address)
        open_everything(page)
        for width, theme in VIEWS:
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 900})
            found = Axe().run(page)
            assert found.violations_count == 0, f"{address} {width} {theme}\n{found.generate_report()}"
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{address} overflows by {wide} px at {width}"
            assert width > 390 or page.evaluate(SQUEEZED) == [], f"{address}: a badge leaves no room for the words"
    assert asked
    assert [url for url in asked if not url.startswith((stack.url, "data:"))] == []


def test_pages_work_from_the_keyboard(signed_in_page: Page) -> None:
    page = signed_in_page
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_picture_of_the_readme(signed_in_page: Page, addresses: list[str], tmp_path: Path) -> None:
    """The README's screenshot is a page of this very version. LARDER_UPDATE_PICTURE=1 takes it anew."""
    page = signed_in_page
    page.goto(addresses[2])
    page.set_viewport_size({"width": 1280, "height": 860})
    taken = page.screenshot(path=tmp_path / "version.png")
    if os.environ.get("LARDER_UPDATE_PICTURE") == "1":
        PICTURE.write_bytes(taken)
    assert PICTURE.read_bytes()[:24] == taken[:24]  # a PNG of the same width and height
    assert f"({Path('docs', PICTURE.name)})" in (ROOT / "README.md").read_text(encoding="utf-8")
