"""What must hold before anything is started; what does not is one sentence."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import TextIO

LEAST_FREE_BYTES = 500 * 1024 * 1024


class CannotStart(Exception):
    """Why Larder does not start, as a sentence for the person who typed the command."""


def parse_bind(bind: str) -> tuple[str, int]:
    """``127.0.0.1:8000`` or ``[::1]:8000`` as host and port."""
    host, _, port = bind.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise CannotStart(f"LARDER_BIND is {bind!r}: expected an address and a port, such as 127.0.0.1:8000.")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Can only this machine reach what listens on this address?"""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def check_port(host: str, port: int) -> None:
    """The address is ours to take: gunicorn would otherwise retry for seconds and then show a stack trace."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStart(f"{_why_not(error, host, port)} Set LARDER_BIND to another address:port.") from None


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken: another program listens on {host}:{port}."
    return f"Cannot listen on {host}:{port}: {error.strerror}."


def make_folder(folder: Path) -> None:
    """Make the folder, for this user only, and prove that a file can be written in it."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CannotStart(
            f"The data folder {folder} cannot be written: {error.strerror}. Set LARDER_DATA to a folder that can."
        ) from None


def check_disk(folder: Path) -> None:
    """A database on a full disk loses work, so better not start."""
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise CannotStart(
            f"The disk of {folder} is full: {free // 2**20} MB are free, Larder wants {LEAST_FREE_BYTES // 2**20} MB. "
            "Free some, or set LARDER_DATA to a folder on another disk."
        )


def lock(folder: Path) -> TextIO:
    """Hold the data folder until this process ends; two Larders on one folder would both serve its queue."""
    file = (folder / "lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            holder = file.read() or "unknown"
        raise CannotStart(
            f"Larder already runs on {folder} (process {holder}). Stop it, or set LARDER_DATA to another folder."
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
