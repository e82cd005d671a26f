"""safetensors alone: the library and Larder read each other, and a hostile header is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tests.formats.models import load, made, tensors
from worker import formats, intake
from worker.errors import CorruptFile, NoRoute
from worker.formats import _safetensors
from worker.formats._format import Hop, Sample
from worker.formats._regions import Region
from worker.formats._tensors import value_of
from worker.formats._weights import unique_paths
from worker.formats.safetensors import write
from worker.routes import find_route


def read(path: Path) -> dict[str, np.ndarray]:
    return {name: value_of(tensor) for name, tensor in _safetensors.read(Region.whole(path)).tensors}


def test_it_works(tmp_path: Path) -> None:
    """The library reads every weight of a model under its path, in the order of get_weights."""
    model = made("several")
    path = tmp_path / "several.safetensors"
    write(model, path, Hop(tmp_path))
    found = load_file(path)
    assert list(read(path)) == [variable.path for variable in model.weights]
    for variable in model.weights:
        np.testing.assert_array_equal(found[variable.path], np.asarray(variable))


def test_it_is_known_and_described_and_leads_nowhere(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = made_file("dense", "safetensors")
    sample = intake.take_sample(path, "weights.bin")
    summary = formats.get("safetensors").inspect(path, tmp_path)
    assert [item.slug for item in formats.matches(sample)] == ["safetensors"]
    assert (summary.parameters, summary.dtypes, summary.traits) == (53, ("float32",), frozenset({"weights"}))
    with pytest.raises(NoRoute, match="architecture JSON"):
        find_route("safetensors", "keras", summary)


@pytest.mark.parametrize("source", ["keras", "h5", "json_npz"])
def test_every_weight_is_there_from_every_format(
    source: str, made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "result.safetensors"
    original = made_file("conv", source)
    formats.get("safetensors").converts_from[source].run(original, path, Hop(tmp_path))
    assert sorted(tensors(load("safetensors", path, tmp_path))) == sorted(tensors(load(source, original, tmp_path)))


def test_a_saved_model_without_layers_gives_its_variables(
    made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "result.safetensors"
    original = made_file("conv", "saved_model")
    formats.get("safetensors").converts_from["saved_model"].run(original, path, Hop(tmp_path))
    wanted = set(tensors(load("saved_model", original, tmp_path)))
    assert wanted
    assert wanted <= set(tensors(load("safetensors", path, tmp_path)))


def test_two_variables_of_one_path_have_two_names() -> None:
    paths = [SimpleNamespace(path=path) for path in ("same/kernel", "same/bias", "same/kernel")]
    assert unique_paths(paths) == ["same/kernel", "same/bias", "same/kernel#2"]


# The header -------------------------------------------------------------------------------------------------------

KINDS = (
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=3)),
        max_size=6,
    )
)
def test_what_the_library_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, tuple[str, list[int]]]
) -> None:
    arrays = {name: np.ones(shape, dtype) for name, (dtype, shape) in entries.items()}
    path = tmp_path_factory.mktemp("library") / "x.safetensors"
    save_file(arrays, path, {"who": "the library"})
    found = read(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)


def test_half_precision_of_both_kinds_is_kept(tmp_path: Path) -> None:
    arrays: list[tuple[str, Any]] = [
        ("brain", np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)),
        ("half", np.arange(3).astype("float16")),
    ]
    path = tmp_path / "x.safetensors"
    size, blocks = _safetensors.encoded(arrays, {})
    path.write_bytes(b"".join(bytes(block) for block in blocks))
    assert path.stat().st_size == size
    for name, array in read(path).items():
        wanted = dict(arrays)[name]
        assert array.dtype == wanted.dtype
        assert array.tobytes() == wanted.tobytes()
    assert load_file(path)["half"].tolist() == [0.0, 1.0, 2.0]


def packed(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(start: int, end: int, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [start, end]}


HOSTILE = {
    "overlap": (packed({"a": entry(0, 8), "b": entry(4, 12), "c": entry(8, 16)}), "is expected"),
    "gap": (packed({"a": entry(0, 8), "b": entry(12, 16, (1,))}), "is expected"),
    "beyond": (packed({"a": entry(0, 8), "b": entry(8, 24, (4,))}), "takes|reaches|bytes"),
    "left": (packed({"a": entry(0, 8)}), "16 follow"),
    "twice": (packed(b'{"a": ' + json.dumps(entry(0, 16, (4,))).encode() + b', "a": {}}'), "twice"),
    "backwards": (packed({"a": entry(16, 0, (4,))}), "offsets"),
    "negative": (packed({"a": entry(-8, 8, (4,))}), "whole numbers"),
    "negative shape": (packed({"a": entry(0, 16, (-4,))}), "whole numbers"),
    "huge shape": (packed({"a": entry(0, 16, (2**40, 2**40))}), "takes"),
    "no number": (packed({"a": entry(0, 16, (True,))}), "whole numbers"),
    "float": (packed({"a": entry(0, 16, (4.0,))}), "whole numbers"),
    "unknown type": (packed({"a": entry(0, 16, (4,), "F7")}), "F7"),
    "odd type": (packed({"a": entry(0, 16, (4,), ["F32"])}), "none of"),
    "more keys": (packed({"a": entry(0, 16, (4,)) | {"offset": 1}}), "does not have"),
    "no entry": (packed({"a": [0, 16]}), "does not have"),
    "list": (packed([1]), "object"),
    "no json": (packed(b"{oops"), "not JSON"),
    "no text": (packed(b"{\xff\xfe\xff"), "not JSON"),
    "deep": (packed(b'{"a":' * 100_000), "not JSON"),
    "metadata": (packed({"__metadata__": {"a": 1}, "a": entry(0, 16, (4,))}), "metadata"),
    "longer than the file": (packed({"a": entry(0, 16, (4,))}, length=2**62), "does not fit"),
    "a hundred megabytes": (packed(b"{}", bytes(100_000_000), length=100_000_000), "more than"),
    "nothing": (b"\x02\0\0\0\0\0\0\0", "does not fit"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_header_that_cannot_be_right_is_refused_in_words(case: str, tmp_path: Path) -> None:
    content, words = HOSTILE[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match=words):
        read(path)


def test_nothing_but_a_refusal_comes_of_damaged_bytes(tmp_path: Path) -> None:
    """Every byte of a header changed, one at a time, and some files cut: read, or refused, and never anything else."""
    path = tmp_path / "x.safetensors"
    save_file({"a": np.ones((2, 3), "float32"), "b": np.ones(4, "int8")}, path, {"x": "y"})
    good, draw = path.read_bytes(), np.random.default_rng(5)
    cases = [good[:at] + draw.bytes(1) + good[at + 1 :] for at in range(len(good) - 28)]
    for content in cases + [good[:at] for at in range(0, len(good), 7)]:
        path.write_bytes(content)
        try:
            found = read(path)
        except CorruptFile:
            continue
        assert sum(array.nbytes for array in found.values()) == 28


@pytest.mark.parametrize("head", [b"", b"\x10", b"{}", b"\x80\x04\x95" + bytes(60), b"\x08\0\0\0\0\0\0\0not json, not"])
def test_other_bytes_are_not_taken_for_it(head: bytes) -> None:
    assert not _safetensors.is_safetensors(Sample("weights.safetensors", len(head), head))
