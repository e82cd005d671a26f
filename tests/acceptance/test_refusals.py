"""Files that people upload by mistake: each is answered with a sentence on the page, and nothing is lost."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.acceptance.walk import PATIENCE, choose
from tests.conftest import MAX_UPLOAD_MIB
from tests.worker.files import ARCHITECTURE, GRAPH, HTML, KERAS, NPZ, lfs_pointer, zipped

DENSE = (
    '{"class_name": "Sequential", "config": {"name": "m", "layers": [{"class_name": "Dense", "config": {"name": "d", '
    '"units": 3, "activation": "linear", "batch_input_shape": [null, 4]}}]}, "keras_version": "2.15.0", '
    '"backend": "tensorflow"}'
)


def payload(name: str, content: bytes | str) -> FilePayload:
    raw = content.encode() if isinstance(content, str) else content
    return {"name": name, "mimeType": "application/octet-stream", "buffer": raw}


def npz(*shapes: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, *[np.ones(shape, "float32") for shape in shapes])
    return buffer.getvalue()


REFUSED = {
    "an empty file": ([payload("model.keras", b"")], "is empty"),
    "an HTML page": ([payload("model.keras", HTML)], "HTML page"),
    "a Git-LFS pointer": ([payload("model.h5", lfs_pointer())], "Git-LFS pointer"),
    "a truncated zip": ([payload("model.keras", KERAS[:-40])], "damaged"),
    "an architecture alone": ([payload("architecture.json", ARCHITECTURE)], "weights"),
    "weights alone": ([payload("weights.npz", NPZ)], "architecture"),
    "a SavedModel without variables": ([payload("model.zip", zipped({"saved_model.pb": GRAPH}))], "variables"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_where_it_was_chosen(signed_in_page: Page, kind: str) -> None:
    files, words = REFUSED[kind]
    page = signed_in_page
    choose(page, files, "my soup")
    said = page.locator("[data-said=bad]").first
    expect(said).to_contain_text(words, timeout=PATIENCE)
    expect(page.get_by_label("Name of the new model")).to_have_value("my soup")
    page.goto("/")
    page.get_by_role("link", name="History").click()
    expect(page.locator("main")).to_contain_text("had an upload refused")


def test_a_file_over_the_limit_is_refused_before_it_is_sent(signed_in_page: Page, tmp_path: Path) -> None:
    file = tmp_path / "huge.keras"
    with file.open("wb") as handle:
        handle.truncate((MAX_UPLOAD_MIB + 1) * 1024 * 1024)
    choose(signed_in_page, [file])
    said = signed_in_page.locator("[data-said=bad]").first
    expect(said).to_contain_text("65.0 MB, more than the 64.0 MB that this Larder takes", timeout=PATIENCE)


def test_weights_that_do_not_fit_are_told_and_kept(signed_in_page: Page) -> None:
    page = signed_in_page
    choose(page, [payload("architecture.json", DENSE), payload("weights.npz", npz((5, 3), (3,)))], "misfit")
    expect(page.locator("main")).to_contain_text("The weights do not fit the architecture", timeout=PATIENCE)
    expect(page.locator("main")).to_contain_text("is kept and can be downloaded")
    expect(page.get_by_role("link", name="Download").first).to_be_visible()


def test_samples_are_looked_at_when_they_are_given(signed_in_page: Page) -> None:
    """The page says it by itself, and nothing was converted."""
    page = signed_in_page
    page.get_by_role("link", name="Sample classifier", exact=True).click()
    page.get_by_role("link", name="Version 1").click()
    for size, words in ((5, "flower is 3×5, and the model takes ?×4"), (4, "3 samples fit")):
        content = io.BytesIO()
        np.savez(content, flower=np.ones((3, size), "float32"))
        page.get_by_label("Choose").set_input_files([payload("ours.npz", content.getvalue())])
        page.get_by_role("button", name="Use these samples").click()
        expect(page.locator("#samples")).to_contain_text(words, timeout=PATIENCE)
    page.get_by_role("button", name="Remove the samples").click()
    expect(page.locator("#samples")).to_contain_text("inputs that it makes up", timeout=PATIENCE)


def test_a_misleading_suffix_is_noted(signed_in_page: Page) -> None:
    page = signed_in_page
    choose(page, [payload("model.h5", KERAS)], "wrong suffix")
    expect(page.locator("#safety")).to_contain_text(".h5", timeout=PATIENCE)


def test_a_pickle_is_answered_with_the_names_that_it_would_import(signed_in_page: Page) -> None:
    page = signed_in_page
    choose(page, [payload("model.pkl", b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02ls\x85R.")])
    page.wait_for_url("**/why-not-pickle/**", timeout=PATIENCE)
    expect(page.get_by_role("heading", name="Why not pickle?")).to_be_visible()
    expect(page.locator("#imports")).to_contain_text("posix.system", timeout=PATIENCE)


def test_a_direction_that_does_not_exist_says_why(signed_in_page: Page) -> None:
    page = signed_in_page
    page.get_by_role("link", name="Sample classifier", exact=True).click()
    page.get_by_role("link", name="Version 1").click()
    folded = page.locator("#impossible")
    expect(folded.locator("dl")).not_to_be_visible()
    folded.locator("summary").click()
    expect(folded).to_contain_text("A pickle is a program that runs when it is opened")
    expect(page.locator("#to-pickle")).to_have_count(0)
