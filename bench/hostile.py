"""What becomes of files that attack: each goes the way of an upload, and everything around it is looked at.

FOLDER holds files and a ``manifest.json`` with, for each case: ``id``, ``file``, ``upload_name`` (what the sender calls
it), ``expected`` and ``also_ok`` (the endings that count as right), perhaps ``rescue_check`` (what a rescued model
answers to a row of ones). Each file is recognised by its bytes, inspected in a job and, where nothing speaks against
it, converted. Wrong is: another ending; an error that nobody foresaw; a file that is called like a canary, anywhere; a
text of /etc/passwd in anything that came out; a connection; more than a minute or 2 GiB; a zygote that has died, or
does not serve an honest job at once.

usage: scripts/bench hostile [FOLDER] [--only ID …]    by default ../shared/hostile
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench._table import show
from worker import formats, intake, pipeline, routes
from worker.errors import ConverterFailed, LarderError, SandboxError, UnsafeContent
from worker.report import Severity
from worker.sandbox.client import Zygote
from worker.sandbox.limits import GIB, Limits
from worker.verify import load_draws, save_draws

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "hostile"
LONGEST = 60.0  # seconds of one file; it is opened by two jobs at least
LIMITS = Limits(memory_bytes=2 * GIB, disk_bytes=2 * GIB, file_bytes=1 * GIB, wall_seconds=25, cpu_seconds=25)
TARGETS = ("keras", "saved_model", "tflite", "onnx", "frozen_graph", "safetensors")
SECRET = b"root:x:0:0"
DISCARD = 9  # the port that the attacks of the corpus call
HONEST = "nothing"  # a step of the self-check
REJECTED, CONTAINED, RESCUED, ACCEPTED = (
    "reject at intake",
    "contained in sandbox and job fails with a clear error",
    "flagged and, if safe, rescued",
    "accepted (benign control)",
)
NOT_FORESEEN = (ConverterFailed, SandboxError)
PLACES = (Path("/tmp"), Path("/"), Path.cwd(), Path.home(), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108


@dataclass(frozen=True)
class Jobs:
    """Where the files are opened, and what one job may use."""

    zygote: Zygote
    limits: Limits = LIMITS


@dataclass
class Ending:
    """How one case ended, in the manifest's words, and what is wrong with that."""

    case: dict[str, Any]
    word: str = ""
    said: str = ""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def row(self) -> list[str]:
        wrong = "; ".join(self.wrong)
        return [self.case["id"], self.case["family"], self.word.split(" ")[0], f"{self.seconds:.1f}", wrong or "right"]


@dataclass
class Caller:
    """Who listens where the attacks call, and counts."""

    calls: int = 0

    def listen(self, stop: threading.Event) -> None:
        with socket.socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):  # an ordinary user may not listen there; then a call would be refused
                own.bind(("127.0.0.1", DISCARD))
                own.listen()
                own.settimeout(0.2)
                while not stop.is_set():
                    with suppress(TimeoutError):
                        own.accept()[0].close()
                        self.calls += 1


@contextmanager
def listening() -> Iterator[Caller]:
    caller, stop = Caller(), threading.Event()
    thread = threading.Thread(target=caller.listen, args=[stop])
    thread.start()
    try:
        yield caller
    finally:
        stop.set()
        thread.join()


# One case -------------------------------------------------------------------------------------------------------


def examine(case: dict[str, Any], folder: Path, jobs: Jobs) -> Ending:
    """The way of an upload: recognised, inspected, converted; then everything around it."""
    ending, started = Ending(case), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="larder-hostile-") as root:
        own = Path(root)
        upload = own / "upload"
        shutil.copyfile(folder / case["file"], upload)
        try:
            ending.word, ending.said = _way(upload, case, own, jobs)
        except LarderError as error:
            ending.word, ending.said = CONTAINED, f"{error.code}: {error.message}"
            ending.wrong += [f"not foreseen: {error.message[:120]}"] if type(error) in NOT_FORESEEN else []
        except Exception as error:
            ending.wrong.append(f"Larder itself failed: {type(error).__name__}: {error}")
        ending.seconds = time.monotonic() - started
        ending.wrong += _left(own, upload, case, ending)
    return ending


def _way(upload: Path, case: dict[str, Any], own: Path, jobs: Jobs) -> tuple[str, str]:
    try:
        found, _ = intake.recognise(intake.take_sample(upload, case["upload_name"]))
    except LarderError as error:
        return REJECTED, f"{error.code}: {error.message}"
    zygote, limits = jobs.zygote, jobs.limits
    looked = pipeline.inspect(zygote, upload, found.slug, _new(own, "inspect"), limits, name=case["upload_name"])
    if looked.error:
        if type(looked.error) in NOT_FORESEEN:
            raise looked.error
        word = REJECTED if isinstance(looked.error, UnsafeContent) else CONTAINED
        return word, f"{looked.error.code}: {looked.error.message}"
    source = pipeline.Source(upload, found.slug, looked.summary, case["upload_name"])
    target = next(slug for slug in (*TARGETS, *formats.formats()) if _leads(source, slug))
    made = pipeline.convert(zygote, source, target, {}, _new(own, "convert"), limits)
    _check_answers(case, made.path, target, own, jobs)
    notes = [*looked.findings, *made.report.findings]
    told = [finding.code for finding in notes if finding.severity is Severity.DANGER]
    return (RESCUED if told or found.slug == "pickle" else ACCEPTED), f"{made.report.verdict} as {target}: {told}"


def _leads(source: pipeline.Source, slug: str) -> bool:
    try:
        routes.find_route(source.format, slug, source.summary)
    except LarderError:
        return False
    return True


def _new(own: Path, name: str) -> Path:
    folder = own / name
    folder.mkdir(mode=0o700)
    return folder


def _check_answers(case: dict[str, Any], path: Path, target: str, own: Path, jobs: Jobs) -> None:
    """What the result answers to a row of ones, where the manifest says it."""
    if "rescue_check" not in case or target == "safetensors":
        return
    wanted = case["rescue_check"]["output"]
    folder = _new(own, "check")
    inputs, outputs = folder / "inputs.npz", folder / "outputs.npz"
    save_draws(inputs, [{"x": np.ones((1, 4), "float32")}])
    spec = {"name": "x", "dtype": "float32", "shape": [None, 4]}
    files = {"path": str(path), "inputs": str(inputs), "outputs": str(outputs)}
    arguments: dict[str, Any] = {**files, "format": target, "specs": [spec]}
    arguments |= {"signature": "", "prints": False}
    jobs.zygote.run("run", arguments, read=[path, inputs], folder=folder, limits=jobs.limits)
    (answers,) = load_draws(outputs)
    found = np.round(np.ravel(next(iter(answers.values()))), 6).tolist()
    if not np.allclose(found, np.ravel(wanted), atol=2e-6):
        raise AssertionError(f"the rescued model answers {found}, not {wanted}")


def _left(own: Path, upload: Path, case: dict[str, Any], ending: Ending) -> Iterator[str]:
    """What may not be there afterwards, and what took too long."""
    for path in (*own.rglob("*"), *(item for place in PLACES for item in place.glob("larder_canary_*"))):
        if path.name.startswith("larder_canary_"):
            yield f"a canary: {path}"
            if not path.is_relative_to(own):
                path.unlink()
        elif path != upload and path.is_file() and not path.is_symlink() and SECRET in path.read_bytes():
            yield f"/etc/passwd lies in {path.relative_to(own)}"
    if SECRET.decode() in ending.said:
        yield "/etc/passwd is told"
    if ending.seconds > LONGEST:
        yield f"took {ending.seconds:.0f} s"
    if ending.word not in (case["expected"], *case.get("also_ok", ())) and not _is_fine(case, ending):
        yield f"expected {case['expected'].split(' ')[0]}: {ending.said[:160]}"


def _is_fine(case: dict[str, Any], ending: Ending) -> bool:
    """A rescue that there was nothing to say about; a refusal by the inspection, which is a part of the intake."""
    refused = (REJECTED, CONTAINED)
    return (case["expected"] in refused and ending.word in refused) or (
        case["expected"] == RESCUED and ending.word == ACCEPTED
    )


# All of them ----------------------------------------------------------------------------------------------------


def run(cases: Sequence[dict[str, Any]], folder: Path, jobs: Jobs) -> list[Ending]:
    with listening() as caller:
        pid = jobs.zygote.wait_ready()["pid"]
        endings = []
        for case in cases:
            before = caller.calls
            endings.append(examine(case, folder, jobs))
            endings[-1].wrong += ["it called out"] if caller.calls > before else []
            endings[-1].wrong += _unwell(jobs.zygote, pid)
    return endings


def cases_of(folder: Path) -> list[dict[str, Any]]:
    """What the manifest of a folder lists."""
    cases: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["cases"]
    return cases


def _unwell(zygote: Zygote, pid: int) -> Iterator[str]:
    """Does the next honest job run at once, in the same zygote?"""
    with tempfile.TemporaryDirectory(prefix="larder-hostile-") as folder:
        started = time.monotonic()
        zygote.run(HONEST, {}, read=(), folder=Path(folder), limits=LIMITS)
    if time.monotonic() - started > 5:
        yield f"the next job took {time.monotonic() - started:.1f} s"
    if zygote.wait_ready()["pid"] != pid:
        yield "the zygote died"


def report(endings: Sequence[Ending]) -> int:
    show(["case", "kind", "ending", "seconds", "judged"], [ending.row() for ending in endings])
    wrong = [ending for ending in endings if ending.wrong]
    slowest = max((ending.seconds for ending in endings), default=0.0)
    counted = f"{len(endings)} files: {len(endings) - len(wrong)} as expected, {len(wrong)} not (bar 0)"
    print(f"\n{counted}; the slowest took {slowest:.1f} s (bar {LONGEST:g} s): {'falls short' if wrong else 'holds'}")
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench hostile")
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT)
    parser.add_argument("--only", nargs="+", metavar="ID")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cases = [case for case in cases_of(given.folder) if not given.only or case["id"] in given.only]
    with Zygote() as zygote:
        return report(run(cases, given.folder, Jobs(zygote)))


if __name__ == "__main__":
    sys.exit(main())
