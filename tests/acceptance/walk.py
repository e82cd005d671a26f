"""What people do on the pages, in the words of the pages: shared by the browser tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import FilePayload, Page, expect

PATIENCE = 60_000  # milliseconds; a busy machine is slow, a hanging one is a failure


def choose(page: Page, files: Sequence[Path] | Sequence[FilePayload], name: str = "") -> None:
    """Choose files on the upload page and send them."""
    page.goto("/")
    page.get_by_role("link", name="Upload").first.click()
    page.get_by_label("Choose model files").set_input_files(files)
    if name:
        page.get_by_label("Name of the new model").fill(name)
    page.get_by_role("button", name="Upload").click()


def upload(page: Page, files: Sequence[Path], name: str = "") -> None:
    """Upload one model and open its version, when Larder has looked inside."""
    choose(page, files, name)
    page.wait_for_url("**/m/**/v*/", timeout=PATIENCE)
    page.locator("#convert").wait_for(timeout=PATIENCE)


def convert(page: Page, target: str, **options: str) -> None:
    """Tick one target on the version page, choose its options, and wait until its verdict is there."""
    page.locator(f"#to-{target}").check()
    for name, value in options.items():
        page.locator(f"[id='{target}.{name}']").select_option(value)
    page.get_by_role("button", name="Convert selected").click()
    page.wait_for_url("**/conversions/**")
    expect(page.locator("#outcome-title")).to_contain_text("Verified", timeout=PATIENCE)


def download(page: Page, folder: Path) -> Path:
    """Download the file of this page, and see that its name and sha256 are what the page says."""
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download").first.click()
    file = folder / waiting.value.suggested_filename
    waiting.value.save_as(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    expect(page.locator("body")).to_contain_text(f"{digest}  {file.name}")
    return file
