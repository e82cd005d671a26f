"""What every format promises: it knows its own files and no other's, it says what it is, it is documented."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.formats.matrix import Matrix
from worker import formats, intake
from worker.formats._format import FACTS, KEPT, Sample

DOCS = Path(__file__).resolve().parents[2] / "docs" / "formats"
SLUGS = tuple(formats.formats())
RESULTS = tuple(slug for slug, item in formats.formats().items() if item.converts_from)


@pytest.mark.parametrize("slug", SLUGS)
def test_it_knows_its_own_files_and_no_other_format_does(slug: str, matrix: Matrix) -> None:
    path = matrix.file("dense", slug)
    sample = intake.take_sample(path, path.name)
    assert [item.slug for item in formats.matches(sample)] == [slug]
    assert intake.recognise(sample)[0].slug == slug


@pytest.mark.parametrize("slug", SLUGS)
def test_the_name_decides_nothing(slug: str, matrix: Matrix) -> None:
    sample = intake.take_sample(matrix.file("dense", slug), "holiday.jpg")
    assert [item.slug for item in formats.matches(sample)] == [slug]


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"{}", b"\x89HDF\r\n\x1a\n" + bytes(900), b"PK\x05\x06" + bytes(18)]
)
def test_other_bytes_belong_to_none(content: bytes) -> None:
    sample = Sample("model.keras", len(content), content)
    assert [item.slug for item in formats.matches(sample)] == []


@pytest.mark.parametrize("slug", SLUGS)
def test_it_is_documented(slug: str) -> None:
    item = formats.get(slug)
    page = (DOCS / f"{slug}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {item.label} (`{slug}`)\n")
    assert all(f"`{suffix}`" in page for suffix in item.suffixes)


@pytest.mark.parametrize("slug", SLUGS)
def test_what_it_declares_is_known(slug: str) -> None:
    item = formats.get(slug)
    assert item.keeps <= {*KEPT, "graph"}
    assert {*item.refuses, *item.changes} <= set(FACTS)
    assert all(said.endswith(".") for said in (*item.refuses.values(), *item.changes.values()))
    assert item.converts_from or item.no_way_in


@pytest.mark.parametrize("slug", RESULTS)
def test_its_snippet_is_code_and_names_the_file(slug: str) -> None:
    item = formats.get(slug)
    assert "{file}" in item.snippet
    if item.snippet_language == "python":
        ast.parse(item.snippet.replace("{file}", "model.bin"))


@pytest.mark.parametrize("slug", [slug for slug in RESULTS if slug != "coreml"])
def test_a_result_can_be_run(slug: str) -> None:
    assert formats.get(slug).load is not None
