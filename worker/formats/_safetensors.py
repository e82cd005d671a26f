"""The layout of safetensors, read and written without holding more than a header in memory.

Eight bytes with the length of a JSON header, the header, then the arrays without gaps
(https://huggingface.co/docs/safetensors, "Format"). The library reads whole files by name only; Larder also reads them
inside an archive, and refuses what a header must not say before it believes any of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile
from worker.formats._format import Sample
from worker.formats._regions import Region
from worker.formats._tensors import Tensor, blocks, dtype_of

if TYPE_CHECKING:
    from worker.formats._tensors import Stored

MAX_HEADER = 16 * 1024 * 1024  # the format allows 100 MB; a thousand layers take one hundredth of this
METADATA = "__metadata__"
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
CODES = {name: code for code, name in DTYPES.items()}


@dataclass(frozen=True)
class Header:
    """What the header says, checked: the metadata, and a tensor for each name in the order of the data."""

    metadata: dict[str, str]
    tensors: list[tuple[str, Tensor]]


def is_safetensors(sample: Sample) -> bool:
    """A length that fits, and behind it the JSON of a header. Pure."""
    length = int.from_bytes(sample.head[:8], "little")
    start = sample.head[8:].lstrip(b" ")[:1]
    fits = 2 <= length <= sample.size - 8
    return sample.container == "file" and fits and start == b"{" and b'"' in sample.head[8:40]


def read(region: Region) -> Header:
    """The header of a file; CorruptFile says what is wrong with one that cannot be right."""
    name = Path(region.name).name
    try:
        start, header = _header(region)
        metadata = _metadata(header.pop(METADATA, {}))
        spans = [_span(key, entry) for key, entry in header.items()]
        return Header(metadata, list(_tensors(region, start, spans)))
    except _Wrong as error:
        raise CorruptFile(name=name, problem=f"as safetensors, {error}") from error


class _Wrong(ValueError):
    """What a header says that cannot be right."""


@dataclass(frozen=True)
class _Span:
    """One entry of the header: where the array's bytes are, counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def _header(region: Region) -> tuple[int, dict[str, Any]]:
    with region.open() as file:
        length = int.from_bytes(file.read(8), "little")
        if region.size < 10 or length > region.size - 8:
            raise _Wrong(f"its header of {length} bytes does not fit into {region.size}")
        if length > MAX_HEADER:
            raise _Wrong(f"its header has {length} bytes, more than the {MAX_HEADER} that Larder reads")
        text = file.read(length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_doubles)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _Wrong(f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _Wrong("its header is not a JSON object")
    return 8 + length, header


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Wrong("its header has a name twice")
    return found


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _Wrong("its metadata is not a table of texts")
    return value


def _span(name: str, entry: Any) -> _Span:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _Wrong(f"the entry of {name[:80]} does not have a dtype, a shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise _Wrong(f"{name[:80]} has the type {str(code)[:40]}, which is none of {', '.join(DTYPES)}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _Wrong(f"the shape or the offsets of {name[:80]} are not whole numbers")
    span = _Span(name, DTYPES[code], tuple(shape), *offsets)
    size = math.prod(span.shape) * dtype_of(span.dtype).itemsize
    if span.end - span.start != size:
        raise _Wrong(f"{name[:80]} takes {size} bytes, and its offsets hold {span.end - span.start}")
    return span


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _tensors(region: Region, start: int, spans: list[_Span]) -> Iterator[tuple[str, Tensor]]:
    """In the order of the data, which has to be covered from its first byte to its last, each byte once."""
    at = 0
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if span.start != at:
            raise _Wrong(f"{span.name[:80]} starts at byte {span.start} of the data, and {at} is expected")
        at = span.end
        dtype = dtype_of(span.dtype)
        yield span.name, Tensor(span.shape, dtype, partial(region.array, start + span.start, dtype, span.shape))
    if start + at != region.size:
        raise _Wrong(f"its arrays take {at} bytes, and {region.size - start} follow the header")


# Writing --------------------------------------------------------------------------------------------------------


def encoded(tensors: Sequence[tuple[str, Stored]], metadata: Mapping[str, str]) -> tuple[int, Iterator[bytes]]:
    """The size of the file, and its bytes block by block: the arrays in the order in which they are given."""
    entries: dict[str, Any] = {METADATA: dict(metadata)}
    at = 0
    for name, tensor in tensors:
        end = at + tensor.nbytes
        entries[name] = {"dtype": CODES[str(tensor.dtype)], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return 8 + len(text) + at, _bytes(text, (tensor for _, tensor in tensors))


def _bytes(header: bytes, tensors: Iterable[Stored]) -> Iterator[Any]:
    yield len(header).to_bytes(8, "little")
    yield header
    for tensor in tensors:
        yield from blocks(tensor)
