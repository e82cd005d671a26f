"""What stops a start, each as one sentence that says what to do."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from project.launcher import preflight
from project.launcher.preflight import CannotStart


def test_it_works(tmp_path: Path) -> None:
    preflight.make_folder(tmp_path / "data")
    preflight.check_disk(tmp_path / "data")
    with preflight.lock(tmp_path / "data"):
        assert (tmp_path / "data" / "lock").read_text(encoding="ascii") == str(os.getpid())


@pytest.mark.parametrize(
    ("bind", "parsed"),
    [("127.0.0.1:8000", ("127.0.0.1", 8000)), ("[::1]:80", ("::1", 80)), ("localhost:1", ("localhost", 1))],
)
def test_bind_is_parsed(bind: str, parsed: tuple[str, int]) -> None:
    assert preflight.parse_bind(bind) == parsed


@pytest.mark.parametrize("bind", ["8000", ":8000", "127.0.0.1", "127.0.0.1:", "host:http", "host:0", "host:65536"])
def test_nonsense_in_bind_is_a_sentence(bind: str) -> None:
    with pytest.raises(CannotStart, match="expected an address and a port"):
        preflight.parse_bind(bind)


@pytest.mark.parametrize(
    ("host", "private"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("127.example.org", False)]
)
def test_loopback_is_known(host: str, private: bool) -> None:
    assert preflight.is_loopback(host) is private


def test_taken_port_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=rf"Port {port} is taken.*Set LARDER_BIND"):
            preflight.check_port("127.0.0.1", port)
    preflight.check_port("127.0.0.1", port)


def test_address_of_another_machine_is_a_sentence() -> None:
    with pytest.raises(CannotStart, match=r"Cannot listen on 192\.0\.2\.1:8000.*Set LARDER_BIND"):
        preflight.check_port("192.0.2.1", 8000)


def test_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/larder")):
        with pytest.raises(CannotStart, match=r"cannot be written.*Set LARDER_DATA"):
            preflight.make_folder(folder)


def test_folders_are_private(tmp_path: Path) -> None:
    preflight.make_folder(tmp_path / "data")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**8))
    with pytest.raises(CannotStart, match=r"is full: 95 MB are free.*500 MB"):
        preflight.check_disk(tmp_path)


def test_second_start_on_one_folder_is_a_sentence(tmp_path: Path) -> None:
    with preflight.lock(tmp_path), pytest.raises(CannotStart, match=rf"already runs on .* \(process {os.getpid()}\)"):
        preflight.lock(tmp_path)
    preflight.lock(tmp_path).close()
