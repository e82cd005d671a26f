"""What Python says that a job does (PEP 578), judged inside the job and told to the worker.

Telemetry, not a barrier: the kernel stops what is tried, this names it. It knows what happens in Python alone; C code
that makes system calls of its own is seen by the kernel only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

from worker.sandbox.attempts import LONGEST_DETAIL
from worker.sandbox.layers import library_paths
from worker.sandbox.request import Request

MAX_EVENTS = 20
# What says nothing about anybody's files, and is read by libraries and by Python itself
OF_THE_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/sys", "/proc/self", "/proc/thread-self", "/proc/sys"),
    *("/proc/filesystems", "/proc/loadavg", "/proc/mounts", "/proc/uptime", "/proc/version", "/proc/vmstat"),
    *("/dev/full", "/dev/random", "/dev/tty", "/dev/fd"),
    *("/etc/apache2/mime.types", "/etc/httpd/mime.types", "/etc/lsb-release", "/etc/mime.types", "/etc/os-release"),
    *("/etc/debian_version", "/etc/inputrc", "/etc/locale.alias", "/etc/timezone"),
)
NOBODYS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty")  # may be written, and nobody sees it
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ABOUT = {
    "program": "os.system os.exec os.posix_spawn os.spawn os.startfile subprocess.Popen pty.spawn webbrowser.open",
    "process": "os.fork os.forkpty",
    "network": "socket.__new__ socket.connect socket.bind socket.sendto socket.sendmsg socket.getaddrinfo "
    "socket.gethostbyname socket.gethostbyaddr socket.getnameinfo socket.getservbyname urllib.Request "
    "http.client.connect ftplib.connect smtplib.connect imaplib.open poplib.connect telnetlib.Telnet.open",
    "signal": "os.kill os.killpg",
    "read": "os.listdir os.scandir os.chdir os.getxattr os.listxattr",
    "write": "os.mkdir os.rmdir os.remove os.truncate os.chmod os.chown os.lchown os.utime os.setxattr os.removexattr "
    "os.mkfifo os.mknod sqlite3.connect",
    "library": "ctypes.dlopen sqlite3.load_extension import",
}
KIND_OF = {event: kind for kind, events in ABOUT.items() for event in events.split()}
PLAIN = ("program", "process", "network")  # of which every event counts
Tell = Callable[[str, str], None]


class Watch:
    """Judges the audit events of one job. ``told`` gets the kind and the detail of what no model needs."""

    def __init__(self, request: Request, told: Tell, expected: Collection[str] = ()) -> None:
        given = [place for path in request.read for place in (path, os.path.realpath(path))]
        program = request.program.command[:1] if request.program else ()
        self._own = (request.folder, os.path.realpath(request.folder))
        self._libraries = (*library_paths(), *_OF_PYTHON)
        self._readable = (*self._libraries, *OF_THE_SYSTEM, *given, *program, *self._own)
        self._searched = {"", "/proc", *sys.path}  # Python looks into folders that it imports from, and opens zip files
        self._told, self._expected, self._seen = told, expected, set[tuple[str, str]]()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        kind = KIND_OF.get(event) if event not in _OF_FILES else "file"
        if kind is None or event in self._expected or len(self._seen) >= MAX_EVENTS:
            return
        with suppress(OSError, TypeError, ValueError):  # what cannot be understood is refused where it is done
            for found in self._judged(kind, event, arguments):
                self._tell(*found)

    def _tell(self, kind: str, detail: str) -> None:
        if (kind, detail) not in self._seen:
            self._seen.add((kind, detail))
            self._told(kind, detail[:LONGEST_DETAIL])

    def _judged(self, kind: str, event: str, arguments: tuple[Any, ...]) -> list[tuple[str, str]]:
        """What of one event no model needs: kinds with their details."""
        if kind in PLAIN:
            return [(kind, _words(arguments))]
        if kind == "signal":
            own = {0, os.getpid()} if event == "os.kill" else set()
            return [] if arguments[0] in own else [(kind, str(arguments[0]))]
        if kind == "library":
            return self._library(event, arguments)
        if kind == "file":
            return _OF_FILES[event](self, arguments)
        return self._write(arguments[0]) if kind == "write" else self._look(arguments[0])

    def _library(self, event: str, arguments: tuple[Any, ...]) -> list[tuple[str, str]]:
        """A library by its path; by name alone the system looks for its own. ``import`` names files of C code."""
        name = arguments[1] if event == "import" else arguments[0]
        if not isinstance(name, (str, bytes)) or "/" not in os.fsdecode(name):
            return []
        path = _whole(name)
        return [] if _is_in(path, (*self._libraries, "/usr", "/lib", "/lib64")) else [("library", path)]

    def _open(self, arguments: tuple[Any, ...]) -> list[tuple[str, str]]:
        path, mode, flags = arguments
        writes = any(letter in str(mode or "") for letter in "wax+") or int(flags or 0) & WRITING
        return self._write(path) if writes else self._read(path)

    def _read(self, place: Any) -> list[tuple[str, str]]:
        path = _whole(place)
        own = {f"/proc/{os.getpid()}"}
        quiet = path in self._searched or _is_in(path, self._readable) or _is_in(path, own) or _is_source(path)
        return [] if quiet else [("read", path)]

    def _look(self, place: Any) -> list[tuple[str, str]]:
        """Into a folder, its own where none is named."""
        return [] if place is None else self._read(place)

    def _write(self, place: Any) -> list[tuple[str, str]]:
        path = _whole(place)
        return [] if not path or path in NOBODYS or _is_in(path, self._own) else [("write", path)]

    def _move(self, arguments: tuple[Any, ...]) -> list[tuple[str, str]]:
        return self._write(arguments[0]) + self._write(arguments[1])

    def _link(self, arguments: tuple[Any, ...]) -> list[tuple[str, str]]:
        target = os.path.join(os.path.dirname(_whole(arguments[1])), os.fspath(arguments[0]))
        return self._read(target) + self._write(arguments[1])


_OF_FILES: dict[str, Callable[[Watch, tuple[Any, ...]], list[tuple[str, str]]]] = {
    "open": Watch._open,
    "os.rename": Watch._move,
    "os.link": Watch._link,
    "os.symlink": Watch._link,
}
_OF_PYTHON = tuple(sorted({os.path.realpath(place) for place in (sys.prefix, sys.base_prefix)}))


def _whole(place: Any) -> str:
    """The whole path; "" for a descriptor, of which something was said when it was opened."""
    return "" if isinstance(place, int) else os.path.abspath(os.fsdecode(place))


def _is_in(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(f"{place.rstrip('/')}/") for place in places)


def _is_source(path: str) -> bool:
    """Is it the text of a module that runs here? A traceback shows lines of it."""
    return path.endswith(".py") and any(getattr(each, "__file__", None) == path for each in list(sys.modules.values()))


def _words(arguments: tuple[Any, ...]) -> str:
    """The first plain values among the arguments of an event: a command, an address."""
    plain = [each for each in arguments if isinstance(each, (str, bytes, int, tuple, list)) and each not in ((), [])]
    words = [os.fsdecode(each) if isinstance(each, (str, bytes)) else repr(each) for each in plain[:3]]
    return " ".join(words)[:LONGEST_DETAIL]
