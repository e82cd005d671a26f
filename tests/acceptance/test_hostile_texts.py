"""A file whose names are hostile, for real: through the browser, the worker and its jobs, and on a phone's screen."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Dialog, FilePayload, Page, expect

from tests.acceptance.walk import PATIENCE, choose
from tests.stack import Stack

NAMES = (
    "<img src=x onerror=alert(1)>",
    "a\u202egnp.exe\x1b[31m\r\nb",
    "L" * 10_000,
    "\u05de\u05e8\u05e7 12",
    "{{ x }}%s",
)
FILE = "=exe\u202esarek\u2066 " + "W" * 180 + "\"';<b>.keras"
WIDTHS = (390, 1280)
# The elements that stick out and lie in no box that scrolls
WIDEST = """() => [...document.querySelectorAll("main *, header *")]
  .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .filter((one) => !one.closest(".scroll"))
  .map((one) => `${one.tagName}.${one.className} ${one.textContent.slice(0, 30)}`).slice(0, 12)"""


def renamed(value: Any, names: dict[str, str]) -> Any:
    """The same configuration with other names of layers, wherever they stand."""
    if isinstance(value, dict):
        return {key: renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def hostile_model(stack: Stack) -> bytes:
    """The demo's sample model with these names for its layers."""
    stored = next(path for path in sorted((stack.data / "store").rglob("*")) if is_keras(path))
    buffer = io.BytesIO()
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, with_names(content) if name == "config.json" else content)
    return buffer.getvalue()


def is_keras(path: Path) -> bool:
    return path.is_file() and zipfile.is_zipfile(path) and "config.json" in zipfile.ZipFile(path).namelist()


def with_names(content: bytes) -> bytes:
    config = json.loads(content)
    known = [layer["config"]["name"] for layer in config["config"]["layers"]]
    return json.dumps(renamed(config, dict(zip(known, NAMES, strict=False)))).encode()


def check_width(page: Page) -> None:
    page.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{page.url} overflows by {wide} px at {width}: {page.evaluate(WIDEST)}"


def test_nothing_breaks_or_overflows(signed_in_page: Page, stack: Stack) -> None:
    page = signed_in_page
    called: list[str] = []

    def note(dialog: Dialog) -> None:
        called.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    home = page.url.rstrip("/")
    payload: FilePayload = {"name": FILE, "mimeType": "application/octet-stream", "buffer": hostile_model(stack)}
    choose(page, [payload])
    page.wait_for_url("**/m/**/v*/", timeout=PATIENCE)
    page.locator("#convert").wait_for(timeout=PATIENCE)
    structure = page.locator("#structure")
    expect(structure).to_contain_text(NAMES[0])
    expect(structure).to_contain_text("a\\u202egnp.exe\\u001b[31m")
    expect(structure.locator("details.long summary").first).to_contain_text("LLL … LLL")
    check_width(page)
    page.locator("#to-json_npz").check()
    page.get_by_role("button", name="Convert selected").click()
    page.wait_for_url("**/conversions/**")
    expect(page.locator("#outcome-title")).not_to_contain_text("Waiting", timeout=PATIENCE)
    page.locator("#steps-title ~ ol time").last.wait_for(timeout=PATIENCE)
    check_width(page)
    for address in ("/", f"{home}/history/", f"{home}/shares/", f"{home}/upload/", "/why-not-pickle/"):
        page.goto(address)
        check_width(page)
    assert called == []
