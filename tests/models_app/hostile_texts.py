"""What may stand wherever somebody else chose the words: file names, names in models, people's names, errors."""

from __future__ import annotations

MARKUP = "<script>alert(1)</script>"
OVERRIDE = "\u202e"
TEXTS = {
    "markup": f"a{MARKUP}b",
    "attribute": 'a" onmouseover="alert(1)" x=\'b',
    "entity": "a&lt;b&amp;lt;c",
    "template": "{{ settings.SECRET_KEY }}{% debug %}{name}",
    "lines": "a\r\nSet-Cookie: own=1\r\n\r\nb",
    "log line": "a\n2026-01-01 00:00:00,000 ERROR root forged\u2028forged\x85forged",
    "terminal": "a\x1b[2J\x1b]0;own\x07\x9b31mb",
    "nul": "a\0b",
    "override": f"exe{OVERRIDE}sarek.b",
    "isolates": "a\u2066\u2067\u2068\u2069\u200f\u061cb",
    "unseen": "a\u200b\u2060\ufeff\U000e0041b",
    "no utf-8": "a\udcff\udcfe\ud800b",
    "right to left": "\u05de\u05e8\u05e7 123",
    "formula": "=cmd|' /C calc'!A0",
    "formula, plus": "+1+1",
    "formula, minus": "-1+1",
    "formula, at": "@SUM(A1)",
    "formula, wide": "\uff1d1+1",
    "formula, spaces": "  =1+1",
    "quotes": "a'b\"c`d$(id);e|f&g\\h",
    "path": "../../../etc/passwd",
    "percent": "a%0d%0ab%00%2e%2e%2f?x#y",
    "combining": "a" + "\u0301" * 500,
    "long": "L" * 10_000,
    "long words": "word " * 2_000,
    "dots": "..",
    "spaces": " \u00a0\u3000 ",
    "emoji": "\U0001f469\u200d\U0001f52c",
}
