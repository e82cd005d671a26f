"""OpenVINO's XML: no entities of its own, no depth without end, and weights that are where it says.

https://docs.openvino.ai/2025/documentation/openvino-ir-format.html. Read by expat as it comes, never built as a tree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from worker.errors import CorruptFile
from worker.formats._regions import Region
from worker.formats._screen import _said
from worker.report import Finding

DEEPEST = 100
EXPECTED = "the XML that OpenVINO writes: elements and attributes, and weights inside of the .bin file"


class _Stop(Exception):
    """What was found, as the end of a sentence that begins with its name."""


class _Reader:
    """Looks at each element as it comes. ``held``: bytes of the weights."""

    def __init__(self, held: int) -> None:
        self.held, self.depth = held, 0
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.EntityDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def _doctype(self, *_: Any) -> None:
        raise _Stop("declares a document type, by which texts can be of any length or from other files")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise _Stop(f"is nested more than {DEEPEST} elements deep")
        if name == "data" and {"offset", "size"} <= attributes.keys():
            self._weights(attributes)

    def _end(self, name: str) -> None:
        self.depth -= 1

    def _weights(self, attributes: dict[str, str]) -> None:
        texts = [attributes["offset"], attributes["size"]]
        if not all(text.isdigit() and len(text) < 20 for text in texts):
            raise _Stop(f"gives {_said.short(texts)} as the place of weights")
        start, size = map(int, texts)
        if start + size > self.held:
            raise _Stop(f"places {size:,} bytes of weights at {start:,} of a file of {self.held:,}")
        shape = [int(edge) for edge in attributes.get("shape", "").split(",") if edge.strip().isdigit()]
        if attributes.get("element_type") != "string" and math.prod(shape) > 8 * max(size, 1):
            raise _Stop(f"declares {math.prod(shape):,} numbers in {size:,} bytes of weights")


def screen(region: Region, held: int, place: str) -> Iterator[Finding]:
    """What is wrong with a graph whose weights have so many bytes."""
    reader = _Reader(held)
    try:
        for block in region.blocks():
            reader.parser.Parse(block)
        reader.parser.Parse(b"", True)
    except _Stop as found:
        yield _said.refuse(place, str(found), EXPECTED)
    except expat.ExpatError as error:
        raise CorruptFile(name=place, problem=f"it is not XML ({error})") from error
