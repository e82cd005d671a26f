"""The content-addressed store: each file lies under its sha256, is written once and never changed."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from django.conf import settings
from django.http import UnreadablePostError
from django.template.defaultfilters import filesizeformat

from worker.errors import EmptyFile, IncompleteUpload, StoreFull, TooLarge

CHUNK_BYTES = 1024 * 1024
KNOWN_WHOLE = 10_000  # files
_known_whole: dict[str, tuple[int, ...]] = {}  # hash → device, inode, size and ctime when it was right


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Stored:
    """Where bytes lie, and how many they are."""

    sha256: str
    size: int


def prepare() -> None:
    """Make the folders that Larder writes to; only its own account may look into them."""
    for folder in (settings.STORE_ROOT, settings.STAGING_ROOT, settings.JOBS_ROOT):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def path_of(sha256: str) -> Path:
    """Where the bytes with this hash lie, or would lie."""
    root: Path = settings.STORE_ROOT
    return root / sha256[:2] / sha256


def receive(stream: Readable, expected: int, limit: int, name: str) -> Stored:
    """Store exactly ``expected`` bytes of the stream, in constant memory.

    Raises EmptyFile and TooLarge before the first byte is read, IncompleteUpload and StoreFull after.
    """
    if expected == 0:
        raise EmptyFile(name=name)
    if expected > limit:
        raise too_large(expected, limit, name)
    with _staged(name) as file:
        digest, received = _copy(stream, file, expected)
        if received != expected:
            raise IncompleteUpload(name=name, received=received, expected=expected)
        return _publish(file, Stored(digest, received))


def adopt(path: Path) -> Stored:
    """Store a copy of a finished file. What is hashed is what was copied, whatever becomes of the original."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as source, _staged(path.name) as file:
        return _publish(file, Stored(*_copy(source, file, os.fstat(descriptor).st_size)))


class Altered(Exception):
    """What lies in the store under this hash is not what was stored."""


def open_whole(stored: Stored) -> BinaryIO:
    """The stored file, open for reading, after its bytes were found to be those that were stored; Altered where not."""
    file = open(path_of(stored.sha256), "rb", buffering=0)  # noqa: SIM115 (whoever asked for it closes it)
    try:
        _check_whole(file, stored)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _check_whole(file: BinaryIO, stored: Stored) -> None:
    """Its size, and its hash where it was written since this process last looked: the kernel notes that in ctime."""
    found = os.fstat(file.fileno())
    if found.st_size != stored.size:
        raise Altered
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
    if _known_whole.get(stored.sha256) == identity:
        return
    if hashlib.file_digest(file, "sha256").hexdigest() != stored.sha256:  # type: ignore[arg-type]  # readinto is there
        raise Altered
    if len(_known_whole) >= KNOWN_WHOLE:
        _known_whole.clear()
    _known_whole[stored.sha256] = identity


def too_large(size: int, limit: int, name: str, setting: str = "LARDER_MAX_UPLOAD_MB") -> TooLarge:
    """The refusal of so many bytes, which names the setting that the limit comes from."""
    return TooLarge(name=name, size=filesizeformat(size), limit=filesizeformat(limit), setting=setting)


@contextmanager
def _staged(name: str) -> Iterator[BinaryIO]:
    """A temporary file on the store's own disk that is gone afterwards, whatever happens."""
    prepare()
    with _room(name), tempfile.NamedTemporaryFile(dir=settings.STAGING_ROOT) as file:
        yield cast("BinaryIO", file)


@contextmanager
def staging(name: str) -> Iterator[Path]:
    """A temporary folder on the store's own disk; StoreFull where there is no room for what is put into it."""
    prepare()
    with _room(name), tempfile.TemporaryDirectory(dir=settings.STAGING_ROOT) as folder:
        yield Path(folder)


@contextmanager
def _room(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull(name=name) from None
        raise


def _copy(stream: Readable, file: BinaryIO, expected: int) -> tuple[str, int]:
    digest, received = hashlib.sha256(), 0
    with suppress(UnreadablePostError):  # the sender went away: what arrived is counted by the caller
        while chunk := stream.read(min(CHUNK_BYTES, expected - received)):
            digest.update(chunk)
            file.write(chunk)
            received += len(chunk)
    return digest.hexdigest(), received


def _publish(file: BinaryIO, stored: Stored) -> Stored:
    """Give the staged file its name in the store, after its bytes have reached the disk."""
    file.flush()
    os.fchmod(file.fileno(), 0o440)
    os.fsync(file.fileno())
    target = path_of(stored.sha256)
    target.parent.mkdir(exist_ok=True, mode=0o700)
    with suppress(FileExistsError):  # the same bytes are there already
        os.link(file.name, target)
    _sync_folder(target.parent)
    return stored


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
