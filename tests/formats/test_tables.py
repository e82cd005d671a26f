"""Vocabularies are no weights, and rare words are in no draw: what the tables of a model hold is told by digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.formats.models import convert, load

WORDS = [f"word{number}" for number in range(300)]


def saved(words: list[str], path: Path) -> Path:
    import keras

    text = keras.Input((), dtype="string", name="review")
    ids = keras.layers.TextVectorization(vocabulary=words, output_sequence_length=4, name="words")(text)
    table = keras.layers.Embedding(302, 2, embeddings_initializer="ones", name="table")(ids)
    keras.Model(text, keras.layers.Flatten()(table)).save(path)
    return path


def tables(slug: str, path: Path, scratch: Path) -> Any:
    scratch.mkdir(exist_ok=True)
    return load(slug, path, scratch).tables()


def test_it_works(tmp_path: Path) -> None:
    source = saved(WORDS, tmp_path / "text.keras")
    told = tables("keras", source, tmp_path / "source")
    assert len(told) == 1
    result, _ = convert("keras", "saved_model", source, tmp_path / "made")
    assert tables("saved_model", result, tmp_path / "result") == told


def test_two_words_that_have_changed_places(tmp_path: Path) -> None:
    source = saved(WORDS, tmp_path / "text.keras")
    wrong = saved([*WORDS[:-2], WORDS[-1], WORDS[-2]], tmp_path / "wrong.keras")
    assert tables("keras", source, tmp_path / "one") != tables("keras", wrong, tmp_path / "other")


def test_a_model_without_tables_has_none(tmp_path: Path) -> None:
    import keras

    path = tmp_path / "dense.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    assert tables("keras", path, tmp_path / "source") == ()
