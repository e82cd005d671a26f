"""A format with options: asked for once, then with other options, each result has its own name; then side by side."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.acceptance.walk import PATIENCE, convert


def test_one_format_with_two_sets_of_options(signed_in_page: Page) -> None:
    page = signed_in_page
    page.get_by_role("link", name="Sample classifier", exact=True).click()
    page.get_by_role("link", name="Version 1").click()
    version = page.url
    expect(page.get_by_label("Precision of TensorFlow Lite")).not_to_be_visible()
    convert(page, "tflite", precision="float32")
    asked = page.url
    for precision in ("float16", "float32"):
        page.goto(version)
        convert(page, "tflite", precision=precision)
    assert page.url == asked  # the same options are the same conversion
    page.goto(version)
    made = page.locator(".offer", has=page.locator("#to-tflite"))
    expect(made.get_by_role("link", name="Ready")).to_have_count(2)
    expect(made).to_contain_text("Precision float16")
    expect(page.locator("#files")).to_contain_text("-v1-float16.tflite")
    measure(page)


def measure(page: Page) -> None:
    """The two results and their source side by side, with the machine's own figures."""
    page.get_by_role("button", name="Measure size and speed").click()
    table = page.locator("#variants table")
    table.wait_for(timeout=2 * PATIENCE)
    for precision in ("float16", "float32"):
        row = table.get_by_role("row").filter(has_text=f"precision {precision}")
        expect(row).to_contain_text(" ms")
        expect(row).to_contain_text("of 36 rows")
    expect(table).to_contain_text("Unbeaten")
