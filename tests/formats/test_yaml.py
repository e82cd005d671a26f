"""Architectures as YAML, as ``to_yaml`` of Keras 1 and 2 wrote them: plain data, whatever the tags ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formats.models import assert_same, load, pack, stir
from worker.errors import CorruptFile
from worker.formats import _sniff
from worker.formats._architecture import parse
from worker.formats._format import Sample

TEXT = """backend: tensorflow
class_name: Sequential
config:
- class_name: Dense
  config:
    batch_input_shape: &shape !!python/tuple
    - null
    - 3
    name: !!python/unicode 'd'
    units: !!python/object/apply:builtins.dict
    - 2
    activation: tanh
keras_version: 2.1.2-tf
"""


def test_it_works(tmp_path: Path) -> None:
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(2, "tanh", input_shape=(3,), name="d")])
    stir(model)
    model.save(tmp_path / "whole.keras")
    model.save_weights(tmp_path / "w.h5")
    path = pack(tmp_path / "pair.zip", architecture__yaml=TEXT.encode(), w__h5=tmp_path / "w.h5")
    whole, pair = load("keras", tmp_path / "whole.keras", tmp_path / "a"), load("weights_h5", path, tmp_path / "b")
    assert_same(whole, pair)


def test_tags_become_plain_data() -> None:
    architecture = parse(TEXT, "architecture.yaml")
    assert architecture.version == "2.1.2"
    assert architecture.backend == "tensorflow"
    assert architecture.root["config"][0]["config"]["batch_input_shape"] == [None, 3]


@pytest.mark.parametrize(
    "text",
    [
        "class_name: !!python/object/apply:os.system ['touch /tmp/owned']\nconfig: {}",
        "class_name: !!python/name:os.system\nconfig: {}",
        "class_name: !!python/object/new:builtins.eval ['1']\nconfig: {}",
        "class_name: [unclosed\nconfig: {}",
    ],
)
def test_tags_that_ask_for_more_are_refused(text: str) -> None:
    with pytest.raises(CorruptFile, match="not plain YAML"):
        parse(text, "architecture.yml")


def bomb() -> str:
    lines = ["class_name: Sequential", "a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join([*lines, "config: *a8"])


def itself() -> str:
    return "class_name: Sequential\nconfig: &a [*a]"


@pytest.mark.parametrize("make", [bomb, itself])
def test_aliases_that_stand_for_too_much_are_refused(make: Callable[[], str]) -> None:
    with pytest.raises(CorruptFile, match="aliases"):
        parse(make(), "architecture.yaml")


def test_a_text_of_yaml_is_recognised() -> None:
    sample = Sample("pair.zip", 9, b"PK", "zip", texts={"architecture.yaml": TEXT})
    assert _sniff.holds_architecture(sample)
    assert not _sniff.holds_architecture(Sample("pair.zip", 9, b"PK", "zip", texts={"notes.yaml": "title: config:"}))
