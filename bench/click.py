"""How long a person waits for a tiny file: from the click on "Convert selected" to the download link on the page.

A whole Larder, warm, and a real browser: `scripts/bench click [TIMES]`.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from bench._table import conclude, show
from tests.browser import CHROMIUM_ARGUMENTS, find_chromium, sign_in
from tests.stack import Stack

BAR_SECONDS = 1.5
TIMES = 10
# Looked for in every frame that is drawn; Playwright's own waiting looks twice a second.
SHOWN = "() => [...document.querySelectorAll('a')].some(link => link.textContent.trim().startsWith('Download'))"


def download_sample(page: Page, folder: Path) -> Path:
    """The tiny `.keras` that the first start has made."""
    page.goto("/t/demo-kitchen/m/sample-classifier/v1/")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download").first.click()
    file = folder / waiting.value.suggested_filename
    waiting.value.save_as(file)
    return file


def upload(page: Page, file: Path, name: str) -> None:
    """Another model of the same file, for a file that was converted once is never converted again."""
    page.goto("/")
    page.get_by_role("link", name="Upload").first.click()
    page.get_by_label("Choose model files").set_input_files(file)
    page.get_by_label("Name of the new model").fill(name)
    page.get_by_role("button", name="Upload").click()
    page.wait_for_url("**/m/**/v*/")


def convert(page: Page) -> float:
    """Seconds from the click to the download link."""
    page.locator("#to-h5").check()
    started = time.perf_counter()
    page.get_by_role("button", name="Convert selected").click()
    wait_for_download(page)
    return time.perf_counter() - started


def wait_for_download(page: Page) -> None:
    """Until the page of the conversion that was just asked for shows a download link, ten minutes at most."""
    page.wait_for_url("**/conversions/**")
    page.wait_for_function(SHOWN, timeout=600_000)


def measure(page: Page, folder: Path, times: int) -> list[float]:
    """One conversion more than ``times``: the first warms up and does not count."""
    file = download_sample(page, folder)
    seconds = []
    for number in range(times + 1):
        upload(page, file, f"Tiny {number}")
        seconds.append(convert(page))
    return seconds[1:]


def main() -> int:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else TIMES
    folder = Path(tempfile.mkdtemp(prefix="larder-bench-"))
    try:
        with Stack(folder / "data") as stack, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGUMENTS)
            page = browser.new_page(base_url=stack.url)
            sign_in(page, *stack.login)
            seconds = measure(page, folder, times)
            browser.close()
    finally:
        shutil.rmtree(folder)
    rows = [[str(number), f"{second:.2f}"] for number, second in enumerate(seconds, start=1)]
    show(["conversion", "seconds"], rows)
    return conclude(("click to download link, median", statistics.median(seconds), BAR_SECONDS, "s"))


if __name__ == "__main__":
    sys.exit(main())
