"""A whole Larder as people start it, for tests and benchmarks: `manage.py larder` on a data folder of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READY = "Larder is ready."


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment of a shell that knows nothing of this test run."""
    ours = ("LARDER_", "DJANGO_", "DATABASE_URL", "REDIS_URL", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {name: value for name, value in os.environ.items() if name == "LARDER_VENV"} | extra


class Stack:
    """One running Larder. Use it as a context manager: leaving the block stops it as Ctrl-C does."""

    def __init__(self, data: Path, environment: Mapping[str, str] | None = None, port: int | None = None) -> None:
        self.data = data
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        bind = {"LARDER_DATA": str(data), "LARDER_BIND": f"127.0.0.1:{self.port}"}
        self.environment = clean_environment(**bind | dict(environment or {}))
        self.lines: list[str] = []

    def __enter__(self) -> Stack:
        self.start()
        return self.wait_ready()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Stack:
        """Start it and read along, without waiting for it to be ready."""
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "larder"],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        return self

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout as output:
            self.lines.extend(output)

    @property
    def output(self) -> str:
        """All it has printed so far."""
        return "".join(self.lines)

    def wait_ready(self, seconds: float = 180) -> Stack:
        """Return when it says that it is ready; an AssertionError with its output where it does not."""
        deadline = time.monotonic() + seconds
        while READY not in self.output:
            assert self.process.poll() is None, f"Larder ended while it was starting:\n{self.output}"
            assert time.monotonic() < deadline, f"Larder was not ready after {seconds} s:\n{self.output}"
            time.sleep(0.05)
        self.ready_after = time.monotonic() - self.started
        return self

    @property
    def login(self) -> tuple[str, str]:
        """Name and password as printed."""
        found = re.search(r"Sign in\s+(\S+) / (.+)", self.output)
        assert found, f"no login in:\n{self.output}"
        return found[1], found[2]

    def wait(self, seconds: float = 60) -> int:
        """The exit status, after it has ended by itself."""
        status = self.process.wait(seconds)
        self.reader.join(seconds)
        return status

    def stop(self) -> int:
        """Stop it politely and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def prepare(self) -> None:
        """Make database and demo account as the first start does, without starting anything."""
        self.manage("migrate", "--verbosity", "0")
        login = "from models_app.management.commands import demo; demo.prepare_login(wanted=True)"
        self.manage("shell", "--verbosity", "0", "-c", login)

    def manage(self, *arguments: str, **environment: str) -> str:
        """Run a management command on its data folder and return what it printed."""
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment | environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}"
        return done.stdout

    def child(self, name: str) -> int:
        """The process that the launcher started as ``name``."""
        words = {"worker": " worker --pool", "beat": " beat ", "web": "gunicorn", "redis": "redis-server"}[name]
        return next(pid for pid in children_of(self.process.pid) if words in command_of(pid))

    def descendants(self) -> set[int]:
        """The launcher and everything below it: the children, gunicorn's worker, the zygote, running jobs."""
        found, pending = set(), [self.process.pid]
        while pending:
            pid = pending.pop()
            found.add(pid)
            pending.extend(children_of(pid))
        return found


def children_of(pid: int) -> list[int]:
    """The processes that any thread of this one has started."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]
    except OSError:  # it has ended meanwhile
        return []


def command_of(pid: int) -> str:
    """How the process was called; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def wait_until_gone(pids: set[int], seconds: float = 10) -> list[str]:
    """How those of ``pids`` were called that are still there after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := list(filter(None, map(command_of, sorted(pids))))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
