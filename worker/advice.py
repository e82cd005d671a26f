"""What people can try where a job ended in the middle of a step of a conversion. Plain text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from worker.errors import Crashed, DiskFull, NoResult, OutOfMemory, SandboxError, TimedOut
from worker.formats._format import Format

LONGEST_WORD = 200  # of what a job said that it was doing
OTHERWISE = "Ask for another format, or for other options of this one"
AT_OPERATION = "It {ends} at the operation {operation}; what comes before that converts. Write it with other layers, or"
ENDS: dict[type[SandboxError], str] = {
    Crashed: "crashes",
    OutOfMemory: "runs out of memory",
    TimedOut: "takes too long",  # more than the minute that a part is given
}
PARTS = "to find the layer that it does not take, leave layers out of the model one after the other"
TRY: dict[type[SandboxError], str] = {
    Crashed: f"{OTHERWISE}; {PARTS}.",
    NoResult: f"{OTHERWISE}; {PARTS}.",
    TimedOut: f"{OTHERWISE}, or have the operator raise LARDER_JOB_SECONDS.",
    OutOfMemory: f"{OTHERWISE}, or have the operator raise LARDER_JOB_MEMORY_MB.",
    DiskFull: f"{OTHERWISE}, or have the operator raise LARDER_JOB_DISK_MB.",
}


@contextmanager
def naming_the_step(
    before: Format, after: Format, said: Sequence[str], culprit: Callable[[type[SandboxError]], str] = lambda ending: ""
) -> Iterator[None]:
    """Let the end of a job say which step it ended, what the job last ``said`` that it was doing, and what to try.

    ``culprit`` is asked at which operation a converter ended so, where it was the converter; "" if nobody knows.
    """
    step = f"converting {before.label} to {after.label}"
    try:
        yield
    except (Crashed, NoResult, TimedOut, OutOfMemory, DiskFull) as error:
        doing = said[-1] if said else step
        ending = next((kind for kind in ENDS if isinstance(error, kind)), None)
        operation = culprit(ending) if ending and doing == step else ""
        advice = _at(operation, ENDS[ending]) if ending and operation else TRY[type(error)]
        raise _told(error, step if doing == step else f"{step}, while {doing[:LONGEST_WORD]}", advice) from error


def _at(operation: str, ends: str) -> str:
    return f"{AT_OPERATION.format(ends=ends, operation=operation)} {OTHERWISE[0].lower()}{OTHERWISE[1:]}."


def _told(error: SandboxError, doing: str, advice: str) -> SandboxError:
    told = type(error)(**{**error.details, "during": f"It was {doing}. {advice}"})
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
