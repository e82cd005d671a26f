"""Samples as pictures: PNG and JPEG, decoded and resized by TensorFlow in the job, to what the model's input takes."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from worker.errors import BadSamples
from worker.formats._format import TensorSpec
from worker.report import Finding, Severity, declare

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

Picture = tuple[str, Callable[[], bytes]]  # its name, and how to get its bytes
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_BYTES = 64 * 1024 * 1024  # of one picture's file
MOST_PIXELS = 50_000_000  # of one picture
MOST_FILES = 100_000  # of a folder or an archive
MOST_SIDE = 512  # of pictures for a model that takes any size
BYTES_FROM = 16.0  # a model that expects numbers beyond this takes pixels as they are

SCALED = declare(
    "samples-pictures",
    Severity.NOTE,
    "{count} pictures were resized to {height} × {width}, {channels} channels, their pixels given as {range}, {why}.",
)


def is_picture(head: bytes) -> bool:
    return head.startswith((PNG, JPEG))


def limited(file: IO[bytes]) -> bytes:
    """The bytes of a picture's file; ValueError where they are too many."""
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"a picture of more than {MOST_BYTES:,} bytes")
    return content


def of_folder(folder: Path) -> list[Picture]:
    """The pictures below a folder by their names; links are not followed."""
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        found += [
            Path(root) / name for name in names if _is_named_like_one(name) and not (Path(root) / name).is_symlink()
        ]
        if len(found) > MOST_FILES:
            raise BadSamples(name=folder.name, problem=f"it holds more than {MOST_FILES:,} pictures; give fewer")
    if not found:
        raise BadSamples(name=folder.name, problem="there are no pictures (PNG, JPEG) in this folder")
    return [(str(path.relative_to(folder)), lambda path=path: _read(path)) for path in sorted(found)]  # type: ignore[misc]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return limited(file)


def of_package(package: zipfile.ZipFile) -> list[Picture]:
    """The pictures of an archive by their names, without what a Mac puts beside them."""
    names = sorted(
        name for name in package.namelist()[:MOST_FILES] if _is_named_like_one(name) and "__MACOSX" not in name
    )
    return [(name, lambda name=name: _unpack(package, name)) for name in names]  # type: ignore[misc]


def _unpack(package: zipfile.ZipFile, name: str) -> bytes:
    with package.open(name) as file:
        return limited(file)


def _is_named_like_one(name: str) -> bool:
    last = PurePosixPath(name).name.lower()
    return last.endswith(SUFFIXES) and not last.startswith(".")


def array_of(file: str, pictures: Sequence[Picture], spec: TensorSpec, most: int) -> tuple[Array, Finding]:
    """The pictures as rows of the input, of ``most`` bytes at most, and how they were made so."""
    import numpy as np

    frame = _Frame.of(file, spec)
    rows: list[Array] = []
    for name, content in pictures:
        pixels = frame.fitted(_decoded(file, name, content(), frame.channels))
        frame = frame.as_large_as(pixels)
        rows.append(pixels)
        if pixels.nbytes * len(rows) > most:
            raise BadSamples(name=file, problem=f"its pictures take more than {most:,} bytes; give fewer")
    array, said, why = _scaled(np.stack(rows), spec)
    height, width, channels = array.shape[1:]
    finding = SCALED(count=len(rows), height=height, width=width, channels=channels, range=said, why=why)
    return (np.moveaxis(array, -1, 1) if frame.first else array), finding


class _Frame:
    """The size that the input takes: 0 for a free one, until the first picture has set it."""

    def __init__(self, height: int, width: int, channels: int, first: bool) -> None:
        self.height, self.width, self.channels, self.first = height, width, channels, first

    @classmethod
    def of(cls, file: str, spec: TensorSpec) -> _Frame:
        shape = spec.shape
        if shape is None or len(shape) != 4 or spec.dtype in ("string", "bool"):
            shown = "any shape" if shape is None else "×".join("?" if size is None else str(size) for size in shape)
            problem = f"{spec.name} is {shown} of {spec.dtype}, which is no picture; give an .npz"
            raise BadSamples(name=file, problem=problem)
        _, *inner = shape
        first = inner[2] not in (1, 3, 4) and inner[0] in (1, 3, 4)
        height, width, channels = (inner[1], inner[2], inner[0]) if first else inner
        if channels not in (None, 1, 3, 4):
            raise BadSamples(name=file, problem=f"{spec.name} has {channels} channels, and pictures have 1, 3 or 4")
        return cls(height or 0, width or 0, channels or 3, first)

    def fitted(self, pixels: Array) -> Array:
        """Resized, as floats from 0 to 255; a free side is the picture's own, up to a bound."""
        import numpy as np
        import tensorflow as tf

        height, width = pixels.shape[:2]
        shrink = min(1.0, MOST_SIDE / max(height, width))
        size = self.height or max(1, round(height * shrink)), self.width or max(1, round(width * shrink))
        if size == (height, width):
            return pixels.astype(np.float32)
        return np.asarray(tf.image.resize(pixels, size, antialias=True), np.float32)

    def as_large_as(self, pixels: Array) -> _Frame:
        return _Frame(pixels.shape[0], pixels.shape[1], self.channels, self.first)


def _decoded(file: str, name: str, content: bytes, channels: int) -> Array:
    """The pixels as bytes; how many they are is read before they are decoded."""
    import numpy as np
    import tensorflow as tf

    try:
        height, width = _size(content)
        if height * width > MOST_PIXELS:
            raise BadSamples(
                name=file, problem=f"{name} has {width} × {height} pixels; at most {MOST_PIXELS:,} are read"
            )
        decode = tf.io.decode_png if content.startswith(PNG) else tf.io.decode_jpeg
        if channels == 4 and not content.startswith(PNG):
            raise BadSamples(name=file, problem=f"{name} is a JPEG, and the model takes 4 channels; give PNG with them")
        return np.asarray(decode(content, channels=channels))
    except (ValueError, struct.error, tf.errors.OpError) as error:
        problem = f"{name} cannot be read as a PNG or JPEG picture; save it again as one of these"
        raise BadSamples(name=file, problem=problem) from error


def _size(content: bytes) -> tuple[int, int]:
    import tensorflow as tf

    if content.startswith(PNG):
        width, height = struct.unpack(">II", content[16:24])
        return height, width
    if not content.startswith(JPEG):
        raise ValueError("neither PNG nor JPEG")
    height, width, _ = (int(size) for size in tf.image.extract_jpeg_shape(content))
    return height, width


def _scaled(pixels: Array, spec: TensorSpec) -> tuple[Array, str, str]:
    """Pixels of 0 to 255 as the input takes them, how they are then, and why."""
    import numpy as np

    if "float" not in spec.dtype:
        whole = np.clip(np.round(pixels), 0, 255)
        if spec.dtype == "int8":
            return whole.astype(np.int16) - 128, "-128 to 127", "since the model takes int8"
        return whole.astype(np.uint8), "0 to 255", f"since the model takes {spec.dtype}"
    if spec.high and max(spec.high) > BYTES_FROM:
        return pixels, "0 to 255", "since the model scales them itself"
    why = "since the model normalises such" if spec.high else "as most models without scaling of their own want them"
    return pixels / np.float32(255), "0 to 1", why
