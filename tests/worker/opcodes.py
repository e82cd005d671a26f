"""Pickles as bytes, written by hand: tests need them, and nothing of Larder may make or open one."""

from __future__ import annotations

import struct


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
