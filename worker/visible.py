"""What strangers wrote, as people may see it: nothing hidden in it, and nothing that turns the text around it.

A name in a model file may hold terminal commands, line ends, characters without a width, and marks that make "gpj.exe"
of "exe.jpg" (CVE-2021-42574). Each is written as its number, ``\\u202e``. Joiners stay: emoji and Persian need them.
"""

from __future__ import annotations

import re
import unicodedata

_RANGES = (
    (0x00, 0x08),  # controls, without tab and line feed
    (0x0B, 0x0C),
    (0x0E, 0x1F),
    (0x7F, 0x9F),
    (0xAD, 0xAD),  # soft hyphen
    (0x61C, 0x61C),  # marks of direction
    (0x180E, 0x180E),
    (0x200B, 0x200B),  # no width
    (0x200E, 0x200F),
    (0x2028, 0x202E),  # separators of lines, embeddings and overrides of direction
    (0x2060, 0x206F),
    (0xD800, 0xDFFF),  # halves of a pair, and bytes that are no UTF-8
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFB),
    (0xFFFE, 0xFFFF),
    (0xE0000, 0xE0FFF),  # tags, which spell whole sentences that nobody sees
)
_HIDDEN = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _RANGES) + "]")
_ENDS = re.compile(r"[\t\r\n]")
_BREAKS = re.compile(r"\s*[\r\n]+\s*")
_NAMES = {"\t": r"\t", "\r": r"\r", "\n": r"\n"}
LONGEST = 1000  # characters of one detail in a sentence; the whole stands in the data beside it
SHOWN_END = 40


def is_hidden(char: str) -> bool:
    """Is this one no part of any name: a control, a mark without a width or of direction, an end of a line?"""
    return unicodedata.category(char) in ("Zl", "Zp") or unicodedata.category(char)[0] == "C"


def visible(text: str) -> str:
    """The text with everything hidden written out. Ends of lines stay."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """The same where a text must not begin another line, as in a log or in a sentence."""
    return _ENDS.sub(lambda found: _NAMES[found[0]], visible(text))


def shortened(text: str, most: int = LONGEST) -> str:
    """The start and the end of a text that is too long to be read."""
    if len(text) <= most:
        return text
    return f"{text[: most - SHOWN_END]} … {text[-SHOWN_END:]}"


def said(detail: object) -> object:
    """A detail as it may stand in a sentence: text on one line, not too long; all else as it is."""
    return shortened(visible(_BREAKS.sub(" ", detail))) if isinstance(detail, str) else detail
