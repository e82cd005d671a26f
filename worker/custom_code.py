"""Python code that a model needs, run where a person agreed to that: inside a job, never anywhere else."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import decode_source
from pathlib import Path
from types import ModuleType
from typing import Any

from worker.bundle import CODE
from worker.errors import LarderError, ModelError
from worker.formats import _agreed
from worker.formats._format import Format, Summary
from worker.report import Finding, Severity, declare
from worker.translation import first_line

MODULE = CODE.removesuffix(".py")
MOST_NAMES = 20  # in one sentence
RAN = declare(
    "code-ran",
    Severity.WARNING,
    "Python code that came with the model was run, in the sandbox alone, for {by} agreed to that: {names}. The result "
    "was compared with what that code computes.",
)
NEEDED = declare(
    "code-needed",
    Severity.WARNING,
    "The result holds layers of people's own Python code ({names}). Whoever opens it needs that code, and runs it.",
)


@dataclass(frozen=True)
class Consent:
    """That a person agreed to run the Python code of one model in jobs: its Lambda layers, and ``file`` with classes
    and functions, where there is one. ``by``: whose word it is."""

    by: str
    file: Path | None = None

    @property
    def read(self) -> tuple[Path, ...]:
        """What a job has to read for it."""
        return (self.file,) if self.file else ()

    def to_json(self) -> dict[str, Any]:
        return {"file": str(self.file) if self.file else None}


def check_walls(absent: str) -> None:
    """Code runs behind whole walls, or not at all: ModelError where a part of the floor is ``absent``, also where the
    operator lets jobs run without it."""
    if absent:
        problem = f"its code runs in a whole sandbox alone, and parts of this one are missing: {absent}"
        raise ModelError(problem=problem)


def findings(consent: Consent, summary: Summary, target: Format) -> list[Finding]:
    """What is to be said about a result that was made with consent."""
    whose = [*summary.code, *([consent.file.name] if consent.file and not summary.code else [])]
    more = len(whose) - MOST_NAMES
    names = ", ".join(whose[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    said = [RAN(by=consent.by, names=names)] if whose else []
    return [*said, *([NEEDED(names=names)] if summary.code and "architecture" in target.keeps else [])]


def obey(consent: dict[str, Any] | None) -> None:
    """What a job does before it opens a model: all of what ``Consent.to_json`` says, or nothing."""
    if consent is None:
        return
    _agreed.allow()
    if consent["file"]:
        register(Path(consent["file"]))


@cache
def register(path: Path) -> None:
    """Run the Python file once, and make the classes and functions it defines known to Keras 3 and to tf_keras."""
    import keras
    import tf_keras

    defined = _definitions(_execute(path))
    for registry in (keras.saving.get_custom_objects(), tf_keras.utils.get_custom_objects()):
        for name, value in defined.items():
            registry.setdefault(name, value)


def _execute(path: Path) -> ModuleType:
    """The file as a module, made of its text: what Python may have compiled beside it is not looked at."""
    module = ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module
    try:
        code = compile(decode_source(path.read_bytes()), str(path), "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102  (what a person agreed to, in a job)
    except LarderError:
        raise
    except Exception as error:
        problem = f"{CODE} fails when it runs ({type(error).__name__}: {first_line(str(error))})"
        raise ModelError(problem=problem) from error
    return module


def _definitions(module: ModuleType) -> dict[str, Any]:
    """What the file itself defines, without what it imports."""
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == MODULE and not name.startswith("_")
    }
