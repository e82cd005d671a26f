"""What TensorFlow, Keras, h5py and NumPy raise, as errors of Larder. Here and nowhere else.

Only messages are looked at, so the job that does this needs nothing but the exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from worker.errors import (
    ConverterFailed,
    CorruptFile,
    CustomCode,
    LambdaRefused,
    LarderError,
    ModelError,
    UnsupportedOperation,
    WeightsMismatch,
)

MAX_PROBLEM = 300
ANSI = re.compile(r"\x1b\[[0-9;]*m")
PATHS = re.compile(r"(?<![\w.:/])/(?:[\w.+@-]+/)+(?=[\w.+@-])")  # folders are nobody's business; the file's name stays
LAMBDA = re.compile(r"`?Lambda`? layer.*(?:arbitrary code|unsafe|safe[_ ]mode)|bad marshal data", re.DOTALL)
CUSTOM = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown (?:\w+ ?){1,3}:|Could not deserialize class) ['\"`]?([\w>.]+)"
)
MISMATCH = re.compile(
    r"expected \d+ variables, but received|hape mismatch|incompatible shape"
    r"|[Ss]hapes? .{1,80} (?:are|is) (?:in|not )compatible"
    r"|You called `set_weights|but the saved weights|[Ww]eights? shape|objects could not be loaded|Layer count mismatch"
    r"|with (?:an )?(?:incompatible|different) (?:shape|number)"
)
DAMAGED = re.compile(
    r"truncated file|file signature not found|bad object header|wrong (?:version|fractal|B-tree)|[Cc]hecksum"
    r"|DataLossError|data loss|corrupted record|Error parsing message|Unable to (?:synchronously )?open file"
    r"|[Nn]ot a zip file|Bad CRC-32"
)
NO_OPERATION = re.compile(r"Op type not registered '?(\w+)'?")


@contextmanager
def translated(doing: str, file: str = "", otherwise: type[LarderError] = ConverterFailed) -> Iterator[None]:
    """Raise what the block's libraries raise as the LarderError it means, ``otherwise`` where it is none of the known.

    ``doing`` starts a sentence ("Loading Keras"), ``file`` names the file. Running out of memory is not an error of
    the library: the sandbox tells it.
    """
    try:
        yield
    except (LarderError, MemoryError):
        raise
    except Exception as error:
        raise _meaning(str(error), file, otherwise, doing, type(error).__name__) from error


def _meaning(text: str, file: str, otherwise: type[LarderError], doing: str, kind: str) -> LarderError:
    problem = first_line(text) or kind
    if LAMBDA.search(text):
        return LambdaRefused(names="unnamed", problem="a library was asked to run it")
    if found := CUSTOM.search(text):
        return CustomCode(names=found[1])
    if MISMATCH.search(text):
        return WeightsMismatch(problem=problem)
    if DAMAGED.search(text):
        return CorruptFile(name=file or "the file", problem=problem)
    if found := NO_OPERATION.search(text):
        return UnsupportedOperation(
            target="This TensorFlow", operation=found[1], problem="it does not know this operation"
        )
    details = {"doing": doing, "problem": problem, "name": file or "the file"}
    return (
        otherwise(**details) if issubclass(otherwise, (ConverterFailed, CorruptFile)) else ModelError(problem=problem)
    )


def first_line(text: str) -> str:
    """The first sentence of a library's message: no colours, no folders, no full stop, not endless."""
    lines = [line.strip() for line in ANSI.sub("", text).splitlines() if line.strip()]
    line = PATHS.sub("", lines[0]).rstrip(".: ") if lines else ""
    return line if len(line) <= MAX_PROBLEM else f"{line[: MAX_PROBLEM - 1]}…"
