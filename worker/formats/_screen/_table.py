"""The sorted table in which TensorFlow lists the variables of a checkpoint (LevelDB's table format).

tensorflow/core/lib/io/table.cc. TensorFlow's own reader ends the process where a shape is none, so it is not asked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAGIC = 0xDB4775248B80FB57
FOOTER, TRAILER = 48, 5
PLAIN, SNAPPY = 0, 1  # kinds of packing
LONGEST = 64 * 1024 * 1024  # bytes of one block
MOST_ROWS = 1_000_000


def rows(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every (key, value) in the order of the file; ValueError where it is no such table."""
    if len(table) < FOOTER or struct.unpack("<Q", table[-8:])[0] != MAGIC:
        raise ValueError("no table of variables")
    _, place = _number(table, len(table) - FOOTER)
    _, place = _number(table, place)
    count = 0
    for _, handle in _block(table, *_two(table, place)):
        for row in _block(table, *_two(handle, 0)):
            count += 1
            if count > MOST_ROWS:
                raise ValueError("more rows than any model has variables")
            yield row


def _two(data: bytes, place: int) -> tuple[int, int]:
    start, place = _number(data, place)
    return start, _number(data, place)[0]


def _block(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block, kind = table[start : start + size], table[start + size : start + size + 1]
    if kind == bytes([SNAPPY]):
        block = _unpacked(block)
    elif kind != bytes([PLAIN]):
        raise ValueError("a block that is not there, or is packed in a way of its own")
    if len(block) < 4:
        raise ValueError("a block without an end")
    place, end, key = 0, len(block) - 4 - 4 * struct.unpack("<L", block[-4:])[0], b""
    while place < end:
        shared, place = _number(block, place)
        own, place = _number(block, place)
        length, place = _number(block, place)
        key = key[:shared] + block[place : place + own]
        yield key, block[place + own : place + own + length]
        place += own + length


def _unpacked(block: bytes) -> bytes:
    """What Snappy packed (https://github.com/google/snappy/blob/main/format_description.txt)."""
    length, place = _number(block, 0)
    found = bytearray()
    while place < len(block):
        tag = block[place]
        size, back, place = _literal(block, place) if not tag & 3 else _copy(block, place)
        if max(length, len(found) + size) > LONGEST or (back > len(found)):
            raise ValueError("a packed block that is longer than it says")
        if back:
            for _ in range(size):
                found.append(found[-back])
        else:
            found += block[place : place + size]
            place += size
    return bytes(found)


def _literal(block: bytes, place: int) -> tuple[int, int, int]:
    size = block[place] >> 2
    more = max(0, size - 59)
    if more:
        size = int.from_bytes(block[place + 1 : place + 1 + more], "little")
    return size + 1, 0, place + 1 + more


def _copy(block: bytes, place: int) -> tuple[int, int, int]:
    """How many bytes, from how far back, and where the next part begins."""
    tag = block[place]
    if tag & 3 == 1:
        return (tag >> 2 & 7) + 4, max(1, (tag >> 5) << 8 | block[place + 1]), place + 2
    width = 2 if tag & 3 == 2 else 4
    return (tag >> 2) + 1, max(1, int.from_bytes(block[place + 1 : place + 1 + width], "little")), place + 1 + width


def _number(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] < 0x80:
            return value, place
    raise ValueError("a number without end")
