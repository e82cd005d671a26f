"""Names for files that are no model Larder reads, so that a refusal can say what they are and what to do.

Only for messages: nothing here accepts a file. The first row that matches wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from worker.formats._format import Sample

BUNDLE = "Load it with the TensorFlow that wrote it, save it as a SavedModel, and upload that folder as a ZIP archive."
OTHER_MODEL = "Upload the Keras or TensorFlow model that it was made from."
NO_MODEL = 'Choose the file that your training wrote, for example with model.save("model.keras").'
UNPACK = "Unpack it first and upload what is inside; ZIP and tar.gz archives of a SavedModel are taken as they are."
PAGE = "The download was probably answered by a sign-in or error page. Download the model itself and upload that."

LFS = re.compile(
    rb"^version https://git-lfs\.github\.com/spec/\S+\s[^\0]*?oid sha256:([0-9a-f]{64})\s[^\0]*?size (\d+)", re.DOTALL
)
HTML = re.compile(rb"^\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body|script)\b", re.IGNORECASE | re.DOTALL)
CSV = re.compile(r"^[^\n,;\t]*([,;\t])[^\n]*\r?\n[^\n]*\1")
PYTHON = re.compile(r"^(from [\w.]+ import |import [\w.]+|def \w+\(|class \w+[(:])", re.MULTILINE)


@dataclass(frozen=True)
class Foreign:
    """What the file is, as a noun phrase, and what to do."""

    found: str
    advice: str


def lfs_pointer(head: bytes) -> str:
    """What a Git-LFS pointer points to, in words; empty where the bytes are none."""
    match = LFS.match(head)
    return f"a Git-LFS pointer to sha256 {match[1].decode()} ({human_size(int(match[2]))})" if match else ""


def human_size(size: int) -> str:
    """A number of bytes for people, in powers of 1000."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def name_foreign(sample: Sample) -> Foreign | None:
    """What the sample is, where that can be said."""
    rows = (row for row in (*MODELS, *OTHERS) if row.test(sample))
    return next((Foreign(row.found, row.advice) for row in rows), None)


@dataclass(frozen=True)
class _Row:
    found: str
    advice: str
    test: Callable[[Sample], bool]


def _starts(*magics: bytes, at: int = 0) -> Callable[[Sample], bool]:
    return lambda sample: sample.container == "file" and sample.head[at:].startswith(magics)


def _looks(pattern: re.Pattern[bytes]) -> Callable[[Sample], bool]:
    return lambda sample: sample.container == "file" and bool(pattern.match(sample.head))


def _reads(pattern: re.Pattern[str]) -> Callable[[Sample], bool]:
    return lambda sample: bool(pattern.search(_text(sample)))


def _holds(*names: str) -> Callable[[Sample], bool]:
    """Every one of the names is the last part of some member."""
    return lambda sample: set(names) <= {PurePosixPath(member.name).name for member in sample.members}


def _has_key(key: str) -> Callable[[Sample], bool]:
    """The file is JSON in which this key occurs."""
    return lambda sample: sample.container == "file" and any(key in keys for keys in sample.json_keys.values())


def _text(sample: Sample) -> str:
    """The file's head where it is text, else nothing."""
    try:
        text = sample.head[:4096].decode("utf-8") if sample.container == "file" else ""
    except UnicodeDecodeError as error:
        cut_inside_a_character = len(sample.head) > 4096 and error.start > 4090
        text = sample.head[: error.start].decode("utf-8") if cut_inside_a_character else ""
    return text if all(char.isprintable() or char in "\t\r\n\f" for char in text) else ""


MODELS = (
    _Row("a GGUF model", OTHER_MODEL, _starts(b"GGUF")),
    _Row("a PyTorch file", "Larder keeps models of TensorFlow and Keras.", _holds("data.pkl", "version")),
    _Row("a session bundle, which TensorFlow wrote before SavedModel", BUNDLE, _holds("export.meta", "checkpoint")),
    _Row("an HDF5 file without a Keras model in it", NO_MODEL, _starts(b"\x89HDF\r\n\x1a\n")),
)
OTHERS = (
    _Row("an HTML page", PAGE, _looks(HTML)),
    _Row("a PDF document", NO_MODEL, _starts(b"%PDF")),
    _Row("an image", NO_MODEL, _starts(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")),
    _Row("an image, a sound or a film", NO_MODEL, _starts(b"RIFF", b"ID3", b"OggS", b"fLaC")),
    _Row("a film", NO_MODEL, _starts(b"ftyp", at=4)),
    _Row("an Office document", NO_MODEL, _holds("[Content_Types].xml")),
    _Row("a Python package", NO_MODEL, _holds("METADATA", "RECORD", "WHEEL")),
    _Row("a Java archive", NO_MODEL, _holds("MANIFEST.MF")),
    _Row("a Parquet table", NO_MODEL, _starts(b"PAR1")),
    _Row("an SQLite database", NO_MODEL, _starts(b"SQLite format 3\0")),
    _Row("a program", NO_MODEL, _starts(b"\x7fELF", b"MZ", b"\xfe\xed\xfa", b"\xcf\xfa\xed\xfe")),
    _Row("a 7z archive", UNPACK, _starts(b"7z\xbc\xaf\x27\x1c")),
    _Row("a RAR archive", UNPACK, _starts(b"Rar!")),
    _Row(
        "a compressed file",
        UNPACK,
        _starts(b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"),
    ),
    _Row("a Jupyter notebook", NO_MODEL, _has_key("nbformat")),
    _Row(
        "JSON without a Keras architecture", NO_MODEL, lambda sample: sample.container == "file" and bool(sample.texts)
    ),
    _Row("an XML file", NO_MODEL, _starts(b"<?xml")),
    _Row("Python source code", NO_MODEL, _reads(PYTHON)),
    _Row("a table of text (CSV)", NO_MODEL, _reads(CSV)),
    _Row("a text file", NO_MODEL, lambda sample: bool(_text(sample))),
)
