"""A file goes to somebody without an account, and the history says so."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.acceptance.walk import download


def open_version(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="Sample image classifier", exact=True).click()
    page.get_by_role("link", name="Version 1").click()


def make_link(page: Page) -> str:
    open_version(page)
    page.get_by_text("Load, check, share").first.click()
    page.get_by_role("button", name="Make a link").first.click()
    return page.get_by_label("Link", exact=True).input_value()


def test_it_works(signed_in_page: Page, browser: Browser, tmp_path: Path) -> None:
    link = make_link(signed_in_page)
    with browser.new_context() as stranger:
        page = stranger.new_page()
        page.goto(link)
        expect(page.get_by_role("heading", level=1)).to_have_text("sample-image-classifier.h5")
        assert download(page, tmp_path).stat().st_size > 0
    page = signed_in_page
    page.get_by_role("link", name="History").click()
    expect(page.locator("main")).to_contain_text("downloaded by link")
    page.get_by_role("link", name="Share links").click()
    expect(page.locator("main")).to_contain_text("opened 1×, downloaded 1×")


def test_a_revoked_link_leads_nowhere(signed_in_page: Page, browser: Browser) -> None:
    link = make_link(signed_in_page)
    signed_in_page.goto("/")
    signed_in_page.get_by_role("link", name="Share links").click()
    signed_in_page.get_by_role("button", name="Revoke").first.click()
    with browser.new_context() as stranger:
        answer = stranger.new_page().goto(link)
        assert answer
        assert answer.status == 404
