"""The system's Chromium, and a person who signs in with it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGUMENTS = [
    "--disable-background-networking",  # nothing of its own over the network
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),  # as root it has none
]


def find_chromium() -> str:
    """The browser's program; Playwright's own builds are not wanted."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "The browser tests need Chromium: apt-get install chromium, or let scripts/test do it as root."
    return found


def sign_in(page: Page, name: str, password: str) -> None:
    """Fill in the sign-in page and wait for the page after it."""
    page.goto("/")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/login" not in url)
