"""What people can try where a job ended in the middle of a step of a conversion. Plain text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from worker.errors import Crashed, DiskFull, NoResult, OutOfMemory, SandboxError, TimedOut
from worker.formats._format import Format

LONGEST_WORD = 200  # of what a job said that it was doing
OTHERWISE = "Ask for another format, or for other options of this one"
AT_OPERATION = (
    "It crashes at the operation {operation}; what comes before that converts. Write it with other layers, or"
)
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
    before: Format, after: Format, said: Sequence[str], culprit: Callable[[], str] = str
) -> Iterator[None]:
    """Let the end of a job say which step it ended, what the job last ``said`` that it was doing, and what to try.

    ``culprit`` is asked for the operation that a converter crashed at, where it was the converter; "" if nobody knows.
    """
    step = f"converting {before.label} to {after.label}"
    try:
        yield
    except Crashed as error:
        doing = said[-1] if said else ""
        operation = culprit() if doing == step else ""
        raise _told(error, step, doing, operation) from error
    except (NoResult, TimedOut, OutOfMemory, DiskFull) as error:
        raise _told(error, step, said[-1] if said else "") from error


def _told(error: SandboxError, step: str, doing: str, operation: str = "") -> SandboxError:
    while_doing = "" if doing in ("", step) else f", while {doing[:LONGEST_WORD]}"
    advice = (
        f"{AT_OPERATION.format(operation=operation)} {OTHERWISE[0].lower()}{OTHERWISE[1:]}."
        if operation
        else TRY[type(error)]
    )
    told = type(error)(**{**error.details, "during": f"It was {step}{while_doing}. {advice}"})
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
