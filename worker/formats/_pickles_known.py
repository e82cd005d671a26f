"""What a pickle would call and Larder builds itself, as plain data: NumPy arrays, dictionaries, bytes.

Only the names in ``MAKERS`` are known; each of them takes the arguments as data and gives data. None means that the
arguments are not what that call is given, so it stays a note.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from worker.formats._pickles_values import LATIN, Array, DType, Name, Opaque, Span, Table, text_of

CODE = re.compile(r"[biufcSUO]\d{0,6}|bfloat16|float8_\w+|int4|uint4")
SIZES = {"bfloat16": 2, "int4": 1, "uint4": 1}
BUILTINS = ("builtins", "__builtin__")
MAX_AXES = 64
MAX_BYTES = 2**40


def made(callee: Name, arguments: Any) -> Any:
    """The data that a call of a known name gives, or None."""
    make = MAKERS.get(callee.dotted)
    return make(*arguments) if make and isinstance(arguments, tuple) and len(arguments) <= 8 else None


def _dtype(spec: Any = None, *_: Any) -> DType:
    if isinstance(spec, Name):  # a type of the ml_dtypes package, or NumPy's own scalar type
        spec = spec.name
    code = text_of(spec) or ""
    return DType({"bool": "b1"}.get(code, code) if CODE.fullmatch(code) or code == "bool" else "")


def _reconstruct(*_: Any) -> Array:
    return Array()


def _from_buffer(buffer: Any = None, dtype: Any = None, shape: Any = None, order: Any = "C", axes: Any = None) -> Any:
    if axes is not None and not _is_shape(axes):
        return None
    found = array(dtype, shape, text_of(order) == "F")
    if found is not None:
        found.data = buffer.state if isinstance(buffer, Opaque) else buffer
        found.axes = axes or ()
    return found


def _created(maker: Any = None, arguments: Any = None, state: Any = None, *_: Any) -> Any:
    """An array as dill writes it: what makes it, and what it is filled with, in one call."""
    found = made(maker, arguments) if isinstance(maker, Name) and not maker.module.startswith("dill") else None
    if isinstance(found, Array):
        fill(found, state)
        return found
    return None


def _scalar(dtype: Any = None, data: Any = None, *_: Any) -> Any:
    if isinstance(dtype, DType) and dtype.code.startswith("O"):
        return data
    found = array(dtype, ())
    if found is not None:
        found.data = data
    return found


def array(dtype: Any, shape: Any, fortran: bool = False) -> Array | None:
    """An array without its values; None where dtype or shape are none."""
    if isinstance(shape, int):
        shape = (shape,)
    return Array(dtype, shape, fortran) if isinstance(dtype, DType) and _is_shape(shape) else None


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, tuple) or len(shape) > MAX_AXES:
        return False
    return all(isinstance(size, int) and 0 <= size < MAX_BYTES for size in shape)


def item_size(dtype: DType) -> int | None:
    """Bytes of one value; None where the dtype is not known."""
    if dtype.code in SIZES or dtype.code.startswith("float8"):
        return SIZES.get(dtype.code, 1)
    number = int(dtype.code[1:] or 0) if dtype.code else 0
    return (number * 4 if dtype.code.startswith("U") else number) or None


def byte_length(found: Array) -> int | None:
    """Bytes of all values; None where that is not known, or is no size that a file can have."""
    size = item_size(found.dtype) if found.dtype else None
    length = None if size is None else size * math.prod(found.shape)
    return length if length is not None and length < MAX_BYTES else None


def fill(target: Array | DType, state: Any) -> None:
    """What BUILD gives to an array (version, shape, dtype, order, values) or to a dtype (version, byte order, …)."""
    if not isinstance(state, tuple):
        return
    if isinstance(target, DType):
        order = text_of(state[1]) if len(state) > 1 else None
        target.order = order if order in ("<", ">", "|", "=") else target.order
        return
    state = state[1:] if len(state) == 5 else state
    if len(state) != 4 or not isinstance(state[1], DType) or not _is_shape(state[0]):
        return
    target.shape, target.dtype, target.fortran, target.data = state[0], state[1], bool(state[2]), state[3]


def _encode(text: Any = None, coding: Any = "", *_: Any) -> Any:
    """``_codecs.encode``, which is how bytes stand in the protocols before 3; only to Latin-1."""
    if str(text_of(coding)).lower() not in LATIN:
        return None
    if isinstance(text, str):
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError:
            return None
    return text.as_bytes() if isinstance(text, Span) else None


def _bytes(content: Any = b"", coding: Any = "latin-1", *_: Any) -> Any:
    if isinstance(content, str):
        return _encode(content, coding)
    if isinstance(content, Span):
        return _encode(content, coding) if content.is_text else content
    return content if isinstance(content, bytes) else None


def _dictionary(items: Any = None, *_: Any) -> Table | None:
    if isinstance(items, Table):
        return Table(list(items.pairs))
    if isinstance(items, (list, tuple)):
        pairs = [tuple(item) for item in items if isinstance(item, (list, tuple)) and len(item) == 2]
        return Table(pairs) if len(pairs) == len(items) else None
    return Table()


def _default_dictionary(factory: Any = None, items: Any = None, *_: Any) -> Table | None:
    return _dictionary(items)


def _sequence(items: Any = (), *_: Any) -> list[Any] | None:
    return list(items) if isinstance(items, (list, tuple)) else None


def _reconstructor(kind: Any = None, base: Any = None, state: Any = None, *_: Any) -> Opaque:
    return Opaque(kind, (state,))


MAKERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _dtype,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "numpy._core.multiarray.scalar": _scalar,
    "dill._dill._create_array": _created,
    "dill.dill._create_array": _created,
    "_codecs.encode": _encode,
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": _default_dictionary,
    "collections.deque": _sequence,
    "copyreg._reconstructor": _reconstructor,
    "copy_reg._reconstructor": _reconstructor,
    **{f"{module}.{name}": _sequence for module in BUILTINS for name in ("list", "tuple", "set", "frozenset")},
    **{f"{module}.{name}": _bytes for module in BUILTINS for name in ("bytes", "bytearray")},
    **{f"{module}.dict": _dictionary for module in BUILTINS},
}
