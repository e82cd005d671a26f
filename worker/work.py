"""One conversion on its way: the jobs that it runs, where, and within which limits. No Django.

Nothing that a job says is trusted: its answer is plain data, its files are taken by expected name.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from worker import formats
from worker.custom_code import Consent
from worker.errors import Canceled, DiskFull, Forbidden, LarderError, NoResult, OutOfMemory, SandboxMissing, TimedOut
from worker.formats._format import unheard
from worker.report import Finding
from worker.sandbox.limits import Limits
from worker.sandbox.pipes import parse
from worker.sandbox.request import Program
from worker.versions import versions

Json = dict[str, Any]
MIB = 1024 * 1024
MAX_VALUES = 512 * MIB  # of inputs or outputs that a job may hand over; judging them takes some times that
PROGRAM_SECONDS = 60.0
MOST_SHOWN = 64 * MIB  # of what a job says about every weight; thousands take some
# Nobody wants the answer, no job can be asked, or one of them tried what no model needs: whatever is tried ends here.
STOPPED = (Canceled, SandboxMissing, Forbidden)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
OF_THE_JOB = (TimedOut, OutOfMemory, DiskFull)  # shortages, which say nothing about the file


class Answer(Protocol):
    """What of a job's outcome is used here."""

    @property
    def value(self) -> Json: ...


class Jobs(Protocol):
    """Where steps run: the Zygote of the sandbox, or a stand-in with the same interface."""

    def run(
        self,
        step: str,
        arguments: Json,
        *,
        read: Sequence[Path],
        folder: Path,
        limits: Limits,
        canceled: Callable[[], bool] = ...,
        progress: Callable[[str], None] = ...,
        program: Program | None = ...,
    ) -> Answer: ...


def never() -> bool:
    """Nobody cancels."""
    return False


@dataclass
class Work:
    """What every job of one conversion needs, and what they have said so far. ``seed``: of whatever is drawn."""

    zygote: Jobs
    folder: Path
    limits: Limits
    seed: int
    consent: Consent | None = None
    samples: Path | None = None
    canceled: Callable[[], bool] = never
    stage: Callable[[str], None] = unheard
    findings: list[Finding] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def job(
        self,
        step: str,
        arguments: Json,
        read: Sequence[Path],
        folder: Path,
        said: Callable[[str], None] = unheard,
        program: Program | None = None,
    ) -> Json:
        """The answer of one job that may read these files and write below ``folder``; its scratch space goes.

        ``said`` is called with what the job says that it is doing. ``program``: what it goes on as after the step, for
        a minute and not for all the time that a job may take.
        """
        seconds = min(self.limits.wall_seconds, PROGRAM_SECONDS) if program else self.limits.wall_seconds
        try:
            return self.zygote.run(
                step,
                arguments | {"consent": self.consent.to_json() if self.consent else None},
                read=[*read, *(self.consent.read if self.consent else ())],
                folder=folder,
                limits=dataclasses.replace(self.limits, wall_seconds=seconds),
                canceled=self.canceled,
                progress=said,
                program=program,
            ).value
        finally:
            shutil.rmtree(folder / "scratch", ignore_errors=True)

    def subfolder(self, name: str) -> Path:
        """A new private folder for one job."""
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        return folder

    def add(self, findings: Sequence[Finding]) -> None:
        """Keep what is said for the first time."""
        self.findings += [finding for finding in findings if finding not in self.findings]

    def note_versions(self, *slugs: str) -> None:
        """Keep which libraries take part in work on these formats."""
        self.versions |= versions(*map(formats.get, slugs))


def under_its_suffix(path: Path, slug: str, folder: Path) -> Path:
    """A link to the file in the job's folder, for libraries that go by the name; the store's files have no suffix."""
    link = folder / link_name(slug)
    link.symlink_to(path.resolve())
    return link


def link_name(slug: str) -> str:
    """What a file is called in a job."""
    return f"model{formats.get(slug).suffixes[0]}"


@contextmanager
def calling(link: Path, name: str) -> Iterator[None]:
    """Let errors call the file what people call it, where that is known, and not as it is called in the job."""
    try:
        yield
    except LarderError as error:
        raise called(error, link, name) from error


def called(error: LarderError, link: Path, name: str) -> LarderError:
    """The error with the name that people know."""
    if not name or error.details.get("name") != link.name:
        return error
    return type(error)(**{**error.details, "name": name})


def take(path: Path, limit: int) -> Path:
    """The file a job was to write: regular, with one name, no larger than ``limit``; NoResult for anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        raise NoResult(status=f"0; it wrote no {path.name}") from None
    _check_plain(path.name, found, limit)
    return path


def take_copy(path: Path, target: Path, limit: int) -> Path:
    """A copy of a file that a job has written, and may still change: the copy is what counts from then on.

    Raises NoResult for anything but a plain file with one name, DiskFull for more than ``limit`` bytes, and where the
    disk has no room for a copy; none is left then."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NoResult(status=f"0; {path.name} cannot be opened: {error.strerror}") from None
    try:
        _check_plain(path.name, found := os.fstat(descriptor), limit)
        _copy(descriptor, target, found.st_size)
    except OSError as error:
        target.unlink(missing_ok=True)
        if error.errno not in NO_ROOM:
            raise
        raise DiskFull(limit="room that the disk has left") from error
    finally:
        os.close(descriptor)
    target.chmod(0o644)  # for a job that is another user
    return target


def _copy(descriptor: int, target: Path, size: int) -> None:
    with target.open("xb") as copy:
        at = 0
        while at < size and (sent := os.sendfile(copy.fileno(), descriptor, at, size - at)):
            at += sent


def _check_plain(name: str, found: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise NoResult(status=f"0; {name} is not a plain file")
    if found.st_size > limit:
        raise DiskFull(limit=f"{limit // MIB:,} MiB")


def whole(answer: Json, folder: Path) -> Json:
    """A job's answer with what it left in ``shown.json`` of its folder; NoResult where that is no such thing."""
    path = folder / "shown.json"
    if not os.path.lexists(path):
        return answer
    found = parse(take(path, MOST_SHOWN).read_bytes())
    if found is None:
        raise NoResult(status="0; what it left about the weights cannot be read")
    return {**found, **answer}


@contextmanager
def sense() -> Iterator[None]:
    """An answer that does not have the shape it should is no answer; it came from a job that read a stranger's file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise NoResult(status=f"0; its answer makes no sense: {type(error).__name__}") from error


def text(path: Path | None) -> str | None:
    """A path as it travels to a job."""
    return str(path) if path else None
