"""The content-addressed store."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from pathlib import Path

import pytest
from django.conf import settings
from django.http import UnreadablePostError

from models_app import storage
from worker.errors import EmptyFile, IncompleteUpload, StoreFull, TooLarge


def receive(content: bytes, expected: int | None = None, limit: int = 10_000) -> storage.Stored:
    return storage.receive(io.BytesIO(content), len(content) if expected is None else expected, limit, "soup.keras")


def staged() -> list[Path]:
    return list(settings.STAGING_ROOT.glob("*"))


def test_it_works() -> None:
    stored = receive(b"soup")
    path = storage.path_of(stored.sha256)
    assert stored == storage.Stored(hashlib.sha256(b"soup").hexdigest(), 4)
    assert path.read_bytes() == b"soup"
    assert path.parent.name == stored.sha256[:2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    assert not staged()


def test_same_bytes_are_written_once() -> None:
    first = storage.path_of(receive(b"twice").sha256).stat()
    second = storage.path_of(receive(b"twice").sha256).stat()
    assert (first.st_ino, first.st_mtime_ns) == (second.st_ino, second.st_mtime_ns)


def test_never_reads_more_than_a_chunk_at_once() -> None:
    class Stream:
        sizes: list[int] = []

        def read(self, size: int) -> bytes:
            self.sizes.append(size)
            return bytes(size)

    stored = storage.receive(Stream(), 3 * storage.CHUNK_BYTES + 1, 2**30, "big")
    assert stored.size == 3 * storage.CHUNK_BYTES + 1
    assert max(Stream.sizes) == storage.CHUNK_BYTES


@pytest.mark.parametrize("expected", [5, 4_000])
def test_short_body_stores_nothing(expected: int) -> None:
    with pytest.raises(IncompleteUpload, match=f"4 of {expected} bytes"):
        receive(b"soup", expected)
    assert not staged()


def test_sender_who_goes_away_is_an_incomplete_upload() -> None:
    class Stream:
        def read(self, size: int) -> bytes:
            raise UnreadablePostError("gone")

    with pytest.raises(IncompleteUpload):
        storage.receive(Stream(), 5, 100, "soup.keras")


def test_empty_and_too_large_are_refused_before_reading() -> None:
    class Unread:
        def read(self, size: int) -> bytes:
            raise AssertionError("nothing should be read")

    with pytest.raises(EmptyFile):
        storage.receive(Unread(), 0, 100, "soup.keras")
    with pytest.raises(TooLarge, match="LARDER_MAX_UPLOAD_MB"):
        storage.receive(Unread(), 101, 100, "soup.keras")


def test_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFull, match="no room for soup"):
        receive(b"never stored")
    assert not staged()


def test_adopt_copies_a_finished_file(tmp_path: Path) -> None:
    made = tmp_path / "result.h5"
    made.write_bytes(b"result")
    stored = storage.adopt(made)
    made.write_bytes(b"changed afterwards")
    assert storage.path_of(stored.sha256).read_bytes() == b"result"


def test_adopt_follows_no_link(tmp_path: Path) -> None:
    link = tmp_path / "result.h5"
    link.symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        storage.adopt(link)
