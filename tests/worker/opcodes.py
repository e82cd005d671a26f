"""Pickles as bytes, written by hand: tests need them, and nothing of Larder may make or open one."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from collections.abc import Callable

import lz4.frame  # type: ignore[import-untyped]


def text(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw + b"\x94" if len(raw) < 256 else b"X" + struct.pack("<I", len(raw)) + raw


def stack_global(module: str, name: str) -> bytes:
    """The name as protocol 4 imports it: two texts, each kept in the memo, then STACK_GLOBAL."""
    return text(module) + text(name) + b"\x93\x94"


def call(module: str, name: str, *arguments: str) -> bytes:
    """``module.name(*arguments)``, protocol 4."""
    return stack_global(module, name) + b"(" + b"".join(map(text, arguments)) + b"tR"


def protocol(number: int, body: bytes) -> bytes:
    return bytes([0x80, number]) + body + b"."


def blob(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


HARMLESS = protocol(4, b"}\x94(" + text("a") + b"K\x01u")
OS_SYSTEM = protocol(4, call("posix", "system", "true"))
OLD_SYSTEM = b"cposix\nsystem\n(S'true'\ntR."
INST_SYSTEM = b"(S'true'\niposix\nsystem\n."


def keras_pickle(archive: bytes) -> bytes:
    """What pickling a Keras 3 model writes: a call on an io.BytesIO that holds a whole .keras file."""
    opener = stack_global("builtins", "getattr") + stack_global("keras.src.models.functional", "Functional")
    opener += text("_unpickle_model") + b"\x86R"
    return protocol(4, opener + stack_global("_io", "BytesIO") + b")\x81" + blob(archive) + b"M\x10\x00N\x87b\x85R")


def python_2_pickle(archive: bytes) -> bytes:
    """A dictionary with the file as a ``str`` of Python 2, protocol 0: quoted, with escapes."""
    quoted = "".join(chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in archive)
    return b"(dp0\nS'model_str'\np1\nS'" + quoted.encode() + b"'\np2\ns."


def joblib_array(kind: str, shape: bytes, content: bytes, order: str = "C", alignment: bool = True) -> bytes:
    """An array as joblib writes it: the note of its shape, then its bytes between the opcodes, on a multiple of 16."""
    dtype = stack_global("numpy", "dtype") + text(kind) + b"\x89\x88\x87R(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xff"
    dtype += b"J\xff\xff\xff\xffK\x00tb"
    state = text("subclass") + stack_global("numpy", "ndarray") + text("shape") + shape + text("order") + text(order)
    state += text("dtype") + dtype + text("allow_mmap") + b"\x88"
    state += text("numpy_array_alignment_bytes") + b"K\x10" if alignment else b""
    wrapper = stack_global("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81}(" + state + b"ub"
    return wrapper + (b"\x03\xff\xff\xff" if alignment else b"") + content


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
    "lz4": lz4.frame.compress,
}
