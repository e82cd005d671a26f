"""Files that the format tests share: each canonical model once in every format that Keras structures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formats import models
from tests.formats.matrix import Matrix
from worker.sandbox.client import Zygote

# What the libraries warn about is their own code and their own old formats; everything else stays an error.
LIBRARIES = (
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:You are saving your model as an HDF5 file:UserWarning",
    "ignore:::tf_keras",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for rule in LIBRARIES:
                item.add_marker(pytest.mark.filterwarnings(rule))


@pytest.fixture(scope="session")
def made_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """``made_file("conv", "h5")``: the canonical model in the format, written once."""
    root = tmp_path_factory.mktemp("formats")
    written: dict[tuple[str, str], Path] = {}

    def get(kind: str, slug: str) -> Path:
        if (kind, slug) not in written:
            source = root / f"{kind}.keras"
            if not source.exists():
                models.made(kind).save(source)
            written[kind, slug] = source
            if slug != "keras":
                written[kind, slug], _ = models.convert("keras", slug, source, root / f"{kind}-{slug}")
        return written[kind, slug]

    return get


@pytest.fixture(scope="session")
def matrix(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """The canonical models in every format, through the real pipeline; each is written once."""
    return Matrix(zygote, tmp_path_factory.mktemp("matrix"))
