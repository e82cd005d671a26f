"""Every direction between the Keras formats and SavedModel on every canonical model: same values, same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formats.models import KERAS_SLUGS, MODELS, TARGETS, assert_same, convert, load
from worker import formats

DIRECTIONS = [(source, target) for source in KERAS_SLUGS for target in TARGETS if source != target]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("source", "target"), DIRECTIONS, ids=[f"{source}-{target}" for source, target in DIRECTIONS])
def test_direction(source: str, target: str, kind: str, made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = made_file(kind, source)
    result, _ = convert(source, target, path, tmp_path)
    assert_same(load(source, path, tmp_path / "source"), load(target, result, tmp_path / "target"))


@pytest.mark.parametrize("target", KERAS_SLUGS)
def test_a_graph_without_layers_does_not_become_layers(target: str) -> None:
    assert formats.get(target).converts_from["saved_model"].requires == {"keras-config"}
