"""What the page of a version shows of the Python code that it brings or needs."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from models_app import storage
from models_app.models import Consent, ModelVersion
from models_app.models.consents import needs_consent, refusal
from worker.bundle import CODE
from worker.visible import one_line, shortened

LONGEST_NAME = 120  # characters of one in a sentence; the history has the whole


@dataclass(frozen=True)
class CodeRow:
    """What the page shows of a version's code. ``lack``: why it does not run, where somebody would have to agree."""

    name: str
    text: str
    size: int
    sha256: str
    names: list[str]
    consent: Consent | None
    lack: str
    allowed: bool


def code_row(version: ModelVersion) -> CodeRow | None:
    """None where a version neither brings code nor needs any."""
    consent = Consent.objects.current().filter(version=version).select_related("given_by").first()
    lacking = needs_consent(version)
    if not (version.code_sha256 or consent or lacking):
        return None
    return CodeRow(
        name=CODE,
        text=_text(version),
        size=version.code_size,
        sha256=version.code_sha256,
        names=[
            shortened(one_line(name), LONGEST_NAME) for name in (consent.names if consent else version.summary.code)
        ],
        consent=consent,
        lack=refusal(version).details["advice"] if lacking else "",
        allowed=version.team.custom_code_allowed,
    )


def _text(version: ModelVersion) -> str:
    """All of the code, with what cannot be seen, or turns the order of letters around, shown as its number."""
    if not version.code_sha256:
        return ""
    content = storage.path_of(version.code_sha256).read_bytes()
    return "".join(map(_shown, content.decode("utf-8", "replace").replace("\r\n", "\n")))


def _shown(char: str) -> str:
    hidden = char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn")
    return f"⟨U+{ord(char):04X}⟩" if hidden else char
