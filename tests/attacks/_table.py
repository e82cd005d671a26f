"""The sorted table in which TensorFlow lists the variables of a checkpoint (LevelDB's format), without packing."""

from __future__ import annotations

import struct

MAGIC = 0xDB4775248B80FB57


def written(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A table of one block."""
    data = _packed(entries)
    meta = _packed([])
    handle = _number(0) + _number(len(data) - 5)
    index = _packed([(entries[-1][0] + b"\xff", handle)])
    meta_at, index_at = len(data), len(data) + len(meta)
    footer = _number(meta_at) + _number(len(meta) - 5) + _number(index_at) + _number(len(index) - 5)
    return data + meta + index + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def _packed(entries: list[tuple[bytes, bytes]]) -> bytes:
    block, starts = b"", []
    for key, value in entries:
        starts.append(len(block))
        block += _number(0) + _number(len(key)) + _number(len(value)) + key + value
    starts = starts or [0]
    block += b"".join(struct.pack("<L", start) for start in starts) + struct.pack("<L", len(starts))
    return block + b"\0" + struct.pack("<L", _masked(_crc32c(block + b"\0")))


def _number(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def _crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _masked(value: int) -> int:
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
