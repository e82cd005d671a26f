"""One changed file, judged against the source that it seems to come from."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker import pipeline
from worker.errors import LarderError
from worker.report import Finding
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits

CAUGHT, DECLARED, MISSED, NOTHING = "caught", "declared", "missed", "nothing"
WORDS = {"differs": CAUGHT, "not-provable": DECLARED, "verified": MISSED}


# What was said when the file was made is part of the terms: that it takes one row at a time, for one
TOLD = "findings" in inspect.signature(pipeline.compare).parameters


def judged(
    zygote: Zygote,
    source: pipeline.Source,
    slug: str,
    options: Mapping[str, Any],
    changed: Path,
    folder: Path,
    findings: Sequence[Finding] = (),
) -> tuple[str, str]:
    """Caught, declared or missed, and the reason of the verdict. A file that is refused is caught.

    What says nothing of the file, such as a job that takes too long, is raised.
    """
    inner = folder / "judged"
    inner.mkdir()
    told: dict[str, Any] = {"findings": findings} if TOLD else {}
    try:
        found = pipeline.compare(zygote, source, changed, slug, options, inner, Limits(), **told)
    except pipeline.OUT_OF_BOUNDS:
        raise
    except LarderError as error:
        return CAUGHT, f"{error.code}: {error.message}"
    return WORDS[str(found.report.verdict)], found.report.reason
