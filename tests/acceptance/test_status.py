"""The operator's page in a browser: readable in every view, and "Check again" reaches the worker and comes back."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.acceptance.test_pages import VIEWS
from tests.acceptance.walk import PATIENCE
from tests.browser import sign_in
from tests.stack import Stack

NAME, PASSWORD = "olga", "an operator's own password"
MAKE = f"""
from django.contrib.auth.models import User
User.objects.filter(username={NAME!r}).delete()
User.objects.create_superuser({NAME!r}, password={PASSWORD!r})
"""


def test_what_holds_a_job_is_shown_and_measured_again(page: Page, stack: Stack) -> None:
    stack.manage("shell", "--verbosity", "0", "-c", MAKE)
    sign_in(page, NAME, PASSWORD)
    page.get_by_role("link", name="Status").click()
    expect(page.get_by_text("every probe was blocked")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("row", name="start a program Blocked")).to_contain_text("seccomp")
    checked = page.locator("#workers time").nth(1)
    before = checked.get_attribute("datetime")
    page.get_by_role("button", name="Check again").click()
    expect(page.get_by_text("being tried out")).to_be_visible()
    expect(page.get_by_text("being tried out")).to_have_count(0, timeout=PATIENCE)
    assert checked.get_attribute("datetime") != before
    for width, theme in VIEWS:
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 900})
        found = Axe().run(page)
        assert found.violations_count == 0, f"{width} {theme}\n{found.generate_report()}"
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"overflows by {wide} px at {width}"
