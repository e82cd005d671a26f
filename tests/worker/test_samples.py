"""People's own samples are matched to the model's inputs, and what does not fit is said."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.files import zipped
from worker.errors import BadSamples
from worker.formats._format import TensorSpec
from worker.formats._samples import MOST_BYTES, MOST_ROWS, Samples, open_samples, read_samples

SPECS = (TensorSpec("left", (None, 2), "float32"), TensorSpec("right", (None,), "int32"))
LEFT, RIGHT = np.ones((3, 2), "float64"), np.array([1, 2, 3])


def saved(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path / "samples.npz", **arrays)
    return path / "samples.npz"


def test_it_works(tmp_path: Path) -> None:
    samples = read_samples(saved(tmp_path, {"left": LEFT, "right": RIGHT}), SPECS)
    assert {name: array.dtype.name for name, array in samples.items()} == {"left": "float32", "right": "int32"}


@pytest.mark.parametrize("names", [("left", "right"), ("input_0", "input_1"), ("arr_0", "arr_1")])
def test_by_name_or_by_place(tmp_path: Path, names: tuple[str, str]) -> None:
    arrays = {names[0]: LEFT, names[1]: RIGHT, "output_0": np.zeros(3), "train_x": np.zeros(9)}
    assert np.array_equal(read_samples(saved(tmp_path, arrays), SPECS)["right"], RIGHT)


def test_text_becomes_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path, {"text": np.array([["Grüße"], ["x"]])})
    samples = read_samples(path, (TensorSpec("text", (None, 1), "string"),))
    assert samples["text"].tolist() == [["Grüße".encode()], [b"x"]]


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"left": LEFT}, "it has left; the model asks for left, right (or input_0…)"),
        ({}, "it has nothing"),
        ({"left": LEFT.T, "right": RIGHT}, "left is 2×3, and the model takes ?×2"),
        ({"left": LEFT[0], "right": RIGHT}, "left is 2, and the model takes ?×2"),
        ({"left": LEFT, "right": LEFT[:, 0]}, "right is float64, and the model takes int32"),
        ({"left": np.array([["a", "b"]]), "right": RIGHT}, "left is <U1, and the model takes float32"),
        (
            {"left": np.array([[{}, {}]]), "right": RIGHT},
            "it cannot be read as plain arrays (Object arrays cannot be loaded",
        ),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadSamples) as caught:
        read_samples(saved(tmp_path, arrays), SPECS)
    assert caught.value.message.startswith(f"The samples in samples.npz do not fit the model: {problem}")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", b"\x93NUMPY\x01\x00v\x00" + b" " * 118])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(content)
    with pytest.raises(BadSamples):
        read_samples(path, SPECS)


def refusal(path: Path, specs: tuple[TensorSpec, ...]) -> str:
    with pytest.raises(BadSamples) as caught:
        read_samples(path, specs)
    return caught.value.message.partition("do not fit the model: ")[2]


def codes(samples: Samples) -> list[str]:
    return [finding.code for finding in samples.findings]


# Arrays -----------------------------------------------------------------------------------------------------------


def test_a_single_array_is_for_a_single_input(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", LEFT)
    assert np.array_equal(read_samples(tmp_path / "one.npy", SPECS[:1])["left"], LEFT)
    assert "it is one array, and the model asks for left, right" in refusal(tmp_path / "one.npy", SPECS)


def test_a_file_in_the_store_has_no_suffix(tmp_path: Path) -> None:
    path = saved(tmp_path, {"left": LEFT, "right": RIGHT}).rename(tmp_path / "0123abc")
    assert set(read_samples(path, SPECS)) == {"left", "right"}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_more_rows_than_needed_are_not_read(tmp_path: Path, save: Any) -> None:
    values = np.arange(2 * 5000, dtype="float32").reshape(5000, 2)
    save(tmp_path / "many.npz", left=values)
    samples = open_samples(tmp_path / "many.npz", SPECS[:1])
    assert np.array_equal(samples.arrays["left"], values[:MOST_ROWS])
    assert codes(samples) == ["samples-cut"]
    assert samples.findings[0].data == {"given": 5000, "used": MOST_ROWS}


def test_columns_first_and_single_values_are_read(tmp_path: Path) -> None:
    specs = (TensorSpec("left", (None, 3), "float32"), TensorSpec("factor", (), "float32"))
    path = saved(tmp_path, {"left": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "factor": np.array(2.0)})
    samples = read_samples(path, specs)
    assert samples["left"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert samples["factor"] == 2


def test_an_array_that_says_it_is_huge_is_not_read(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (3, 10**9)})
    (tmp_path / "huge.npy").write_bytes(header.getvalue())
    wide = (TensorSpec("x", (None, None), "float64"),)
    assert f"more than the {MOST_BYTES:,} that are read" in refusal(tmp_path / "huge.npy", wide)


def test_bytes_that_are_not_there_are_missed(tmp_path: Path) -> None:
    np.save(tmp_path / "cut.npy", LEFT)
    content = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(content[:-3])
    assert "it breaks off: 45 of 48 bytes" in refusal(tmp_path / "cut.npy", SPECS[:1])


def test_whole_numbers_that_fit_may_come_in_another_type(tmp_path: Path) -> None:
    spec = (TensorSpec("x", (None,), "uint8"),)
    assert read_samples(saved(tmp_path, {"x": np.array([0, 255])}), spec)["x"].dtype == np.uint8
    assert "x is int64, and the model takes uint8" in refusal(saved(tmp_path, {"x": np.array([0, 256])}), spec)


def test_no_rows_at_all(tmp_path: Path) -> None:
    assert "give at least one row" in refusal(saved(tmp_path, {"left": LEFT[:0]}), SPECS[:1])


def test_an_index_beyond_the_table_is_said(tmp_path: Path) -> None:
    spec = (TensorSpec("tokens", (None,), "int32", limit=20),)
    said = refusal(saved(tmp_path, {"tokens": np.array([3, 20])}), spec)
    assert "tokens holds whole numbers from 3 to 20, and the model looks them up in a table from 0 to 19" in said


# Tables -----------------------------------------------------------------------------------------------------------


def table(path: Path, text: str) -> Path:
    (path / "samples.csv").write_text(text, encoding="utf-8")
    return path / "samples.csv"


TWO = (TensorSpec("size", (None, 1), "float32"), TensorSpec("kind", (None,), "int32"))
ROW = (TensorSpec("x", (None, 3), "float32"),)


@pytest.mark.parametrize(
    "text",
    [
        "size,kind\n1.5,2\n-3e2,4\n",
        "label;kind;size\ncat;2;1.5\ndog;4;-300\n",
        "\ufeffkind\tsize\r\n2\t1.5\r\n\r\n4\t-300",
    ],
)
def test_a_column_for_each_input(tmp_path: Path, text: str) -> None:
    samples = read_samples(table(tmp_path, text), TWO)
    assert samples["size"].tolist() == [[1.5], [-300]]
    assert samples["kind"].tolist() == [2, 4]


@pytest.mark.parametrize(
    "text", ["1,2,3\n4,5,6\n", "a,b,c\n1,2,3\n4,5,6\n", "x[2],x[0],x[1]\n3,1,2\n6,4,5\n", "x_0,x_1,x_2\n1,2,3\n4,5,6"]
)
def test_a_line_for_each_row(tmp_path: Path, text: str) -> None:
    assert read_samples(table(tmp_path, text), ROW)["x"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_line_in_the_shape_of_a_row(tmp_path: Path) -> None:
    square, free = TensorSpec("x", (None, 2, 2), "float32"), TensorSpec("x", (None, None, 2), "int64")
    assert read_samples(table(tmp_path, "1,2,3,4"), (square,))["x"].tolist() == [[[1, 2], [3, 4]]]
    assert read_samples(table(tmp_path, "1,2,3,4,5,6"), (free,))["x"].shape == (1, 3, 2)


def test_text_in_a_table(tmp_path: Path) -> None:
    spec = (TensorSpec("text", (None, 1), "string"),)
    samples = read_samples(table(tmp_path, 'Grüße\n"red, green"\n42\n'), spec)
    assert samples["text"].tolist() == [["Grüße".encode()], [b"red, green"], [b"42"]]
    assert read_samples(table(tmp_path, "text\nred\n"), spec)["text"].tolist() == [[b"red"]]
    assert "put text with commas into double quotes" in refusal(table(tmp_path, "red\nred, green\n"), spec)


def test_truth_in_a_table(tmp_path: Path) -> None:
    spec = (TensorSpec("x", (None,), "bool"),)
    assert read_samples(table(tmp_path, "x\ntrue\nNo\n1\n"), spec)["x"].tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("text", "specs", "problem"),
    [
        ("", ROW, "it is empty"),
        ("a,b,c\n", ROW, "it has a line of names and no values"),
        ("1,2\n", ROW, "it has 2 columns for x, and a row of it is 3"),
        ("1,2,3\n4,5\n", ROW, "line 2 has 2 columns, and the first line has 3"),
        ("1,2,3\n4,,6\n", ROW, "line 2 has an empty cell where x takes float32"),
        ("1,2,3\n4,five,6\n", ROW, "line 2 has 'five' where x takes float32"),
        ("size,kind\n1,2.5\n", TWO, "line 2 has '2.5' where kind takes int32"),
        ("size,kind\n1,99999999999999999999\n", TWO, "where kind takes int32"),
        ("width,kind\n1,2\n", TWO, "its first line is width, kind; the model has size, kind"),
        ('1,2,3\n"4,5,6\n', ROW, "it is no table"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(
    tmp_path: Path, text: str, specs: tuple[TensorSpec, ...], problem: str
) -> None:
    assert problem in refusal(table(tmp_path, text), specs)


def test_other_bytes_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "samples.bin").write_bytes(b"\x80\xff" * 40)
    assert "it is none of .npz, .npy, PNG, JPEG" in refusal(tmp_path / "samples.bin", ROW)


def test_a_long_table_is_cut(tmp_path: Path) -> None:
    samples = open_samples(table(tmp_path, "1,2,3\n" * 1000), ROW)
    assert samples.arrays["x"].shape == (MOST_ROWS, 3)
    assert codes(samples) == ["samples-cut"]


# Pictures ---------------------------------------------------------------------------------------------------------


def png(height: int, width: int, grey: int = 128) -> bytes:
    """A picture of one colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes([grey]) * 3 * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(height: int, width: int) -> bytes:
    import tensorflow as tf

    return bytes(tf.io.encode_jpeg(np.full((height, width, 3), 128, "uint8")).numpy())


def image(dtype: str = "float32", shape: tuple[int | None, ...] = (None, 8, 6, 3), **more: Any) -> TensorSpec:
    return TensorSpec("image", shape, dtype, **more)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "cats").mkdir(parents=True)
    (folder / "a.png").write_bytes(png(16, 16))
    (folder / "cats" / "b.JPG").write_bytes(jpeg(20, 10))
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes(b"not a picture either")
    return folder


def test_a_folder_of_pictures(pictures: Path) -> None:
    samples = open_samples(pictures, (image(),))
    assert samples.arrays["image"].shape == (2, 8, 6, 3)
    assert samples.arrays["image"] == pytest.approx(128 / 255, abs=0.01)
    assert codes(samples) == ["samples-pictures"]
    assert "2 pictures were resized to 8 × 6, 3 channels, their pixels given as 0 to 1" in samples.findings[0].sentence


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (image(low=(0.0,), high=(255.0,)), 128),
        (image(low=(-2.0,), high=(3.0,)), 128 / 255),
        (image("uint8"), 128),
        (image("int8"), 0),
        (image("int32"), 128),
        (image(shape=(None, 8, 6, 1)), 128 / 255),
        (image(shape=(None, 3, 8, 6)), 128 / 255),
    ],
)
def test_pixels_come_as_the_model_takes_them(pictures: Path, spec: TensorSpec, value: float) -> None:
    samples = read_samples(pictures, (spec,))["image"]
    assert samples.dtype == spec.dtype
    assert samples.shape[1:] == (spec.shape or ())[1:]
    assert samples.astype(float) == pytest.approx(value, abs=1)


def test_an_archive_of_pictures_and_a_single_one(tmp_path: Path) -> None:
    content = zipped({"b.png": png(4, 4, 10), "a.png": png(4, 4, 20), "__MACOSX/._a.png": b"no", "readme": b"x"})
    (tmp_path / "pictures.zip").write_bytes(content)
    samples = read_samples(tmp_path / "pictures.zip", (image("uint8"),))["image"]
    assert samples[:, 0, 0, 0].tolist() == [20, 10]  # by their names
    (tmp_path / "one").write_bytes(png(4, 4, 30))
    assert read_samples(tmp_path / "one", (image("uint8"),))["image"].shape == (1, 8, 6, 3)


def test_a_model_for_any_size_takes_that_of_the_first(pictures: Path) -> None:
    free = image(shape=(None, None, None, 3))
    assert read_samples(pictures, (free,))["image"].shape == (2, 16, 16, 3)
    (pictures / "a.png").write_bytes(png(1024, 2048))
    assert read_samples(pictures, (free,))["image"].shape == (2, 256, 512, 3)


@pytest.mark.parametrize(
    ("content", "specs", "problem"),
    [
        ({"a.png": png(4, 4)}, (image(), image()), "pictures are for models with one input"),
        ({"a.png": png(4, 4)}, ROW, "x is ?×3 of float32, which is no picture; give an .npz"),
        ({"a.png": png(4, 4)}, (image(shape=(None, 8, 8, 7)),), "image has 7 channels"),
        ({"a.png": b"GIF89a"}, (image(),), "a.png cannot be read as a PNG or JPEG picture"),
        ({"a.png": png(4, 4)[:-30]}, (image(),), "a.png cannot be read as a PNG or JPEG picture"),
        ({"a.png": png(4, 4)[:16] + struct.pack(">II", 60_000, 60_000)}, (image(),), "has 60000 × 60000 pixels"),
        ({"a.gif": b"GIF89a"}, (image(),), "neither arrays (.npy) nor pictures (PNG, JPEG)"),
    ],
)
def test_what_is_wrong_with_pictures_is_said(
    tmp_path: Path, content: dict[str, bytes], specs: tuple[TensorSpec, ...], problem: str
) -> None:
    (tmp_path / "pictures.zip").write_bytes(zipped(content))
    assert problem in refusal(tmp_path / "pictures.zip", specs)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    assert "there are no pictures" in refusal(tmp_path, (image(),))


def test_links_in_a_folder_are_not_followed(pictures: Path) -> None:
    (pictures / "link.png").symlink_to(pictures / "a.png")
    assert len(read_samples(pictures, (image(),))["image"]) == 2


# Scale ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "implied", "found"),
    [
        ((0, 1), (0, 255), ["samples-too-small"]),
        ((-1, 1), (0, 255), ["samples-too-small"]),
        ((0, 255), (0, 255), []),
        ((0, 255), None, ["samples-too-large"]),
        ((0, 1), None, []),
        ((-120, 150), None, []),
        ((5000, 9000), (-2, 3), ["samples-out-of-range"]),
        ((-1, 2), (-2, 3), []),
    ],
)
def test_samples_in_another_scale_than_the_model_are_noticed(
    tmp_path: Path, values: tuple[float, float], implied: tuple[float, float] | None, found: list[str]
) -> None:
    more: dict[str, Any] = {"low": (float(implied[0]),), "high": (float(implied[1]),)} if implied else {}
    path = saved(tmp_path, {"image": np.linspace(*values, 8 * 6 * 3).reshape(1, 8, 6, 3)})
    assert codes(open_samples(path, (image(**more),))) == found


def test_numbers_that_are_none_are_noticed(tmp_path: Path) -> None:
    """The others still lie where they lie."""
    path = saved(tmp_path, {"image": np.array([5000, np.inf, np.nan, 9000] * 12).reshape(1, 8, 2, 3)})
    spec = TensorSpec("image", (None, None, None, 3), "float32", low=(-2.0,), high=(3.0,))
    lost, outside = open_samples(path, (spec,)).findings
    assert (lost.code, lost.data["count"], lost.data["total"]) == ("samples-not-finite", 24, 48)
    assert (outside.code, outside.data["high"]) == ("samples-out-of-range", 9000)


def test_no_range_is_measured_on_what_is_no_number(tmp_path: Path) -> None:
    path = saved(tmp_path, {"left": np.array([[1, np.nan]]), "right": RIGHT})
    with pytest.raises(BadSamples, match="1 of the 2 numbers of left are infinite or not a number, and no range"):
        open_samples(path, SPECS, all_finite=True)


def test_a_range_that_is_known_in_fewer_digits_is_the_same(tmp_path: Path) -> None:
    path = saved(tmp_path, {"image": np.linspace(0, 1, 8 * 6 * 3).reshape(1, 8, 6, 3)})
    specs = (image(low=(0.0,), high=(high,)) for high in (255.0, 254.9999849195601))
    first, second = (open_samples(path, (spec,)).findings for spec in specs)
    assert first == second
