"""How soon a web process answers, and how much memory it keeps: `scripts/bench web [TIMES]`.

gunicorn as the launcher calls it, on a database with nothing in it; the memory is that of its worker process, after
the pages were asked for some hundred times.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench._table import conclude, show
from project.launcher import processes
from tests.stack import ROOT, Stack, children_of

BAR_SECONDS = 2.0
BAR_MB = 150.0
TIMES = 5
REQUESTS = 200
PAGES = ("/login/", "/why-not-pickle/", "/healthz")


def get(port: int, path: str) -> int:
    """The status, or 0 where nobody listens yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except ConnectionError:
        return 0
    finally:
        connection.close()


@contextmanager
def serving(stack: Stack) -> Iterator[subprocess.Popen[bytes]]:
    """gunicorn alone, on the stack's data folder."""
    command = processes.web(f"127.0.0.1:{stack.port}", stack.data)
    with subprocess.Popen(command, cwd=ROOT, env=stack.environment, stderr=subprocess.DEVNULL) as process:
        yield process
        process.terminate()


def resident_mb(pid: int) -> float:
    """Megabytes that the process holds in memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1_000_000 if found else 0.0  # the kernel says kB and means KiB


def measure(stack: Stack) -> tuple[float, float]:
    """Seconds from the start to the first page, and megabytes after many."""
    started = time.perf_counter()
    with serving(stack) as process:
        while get(stack.port, PAGES[0]) != http.client.OK:
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        for number in range(REQUESTS):
            get(stack.port, PAGES[number % len(PAGES)])
        return seconds, max(map(resident_mb, children_of(process.pid)))


def main() -> int:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else TIMES
    os.umask(0o077)
    folder = Path(tempfile.mkdtemp(prefix="larder-bench-"))
    try:
        stack = Stack(folder)
        stack.prepare()
        stack.manage("collectstatic", "--no-input")
        runs = [measure(stack) for _ in range(times)]
    finally:
        shutil.rmtree(folder)
    show(["start", "seconds", "MB"], [[str(n), f"{s:.2f}", f"{m:.0f}"] for n, (s, m) in enumerate(runs, start=1)])
    seconds, megabytes = statistics.median(s for s, _ in runs), max(m for _, m in runs)
    return conclude(("first page, median", seconds, BAR_SECONDS, "s"), ("resident, most", megabytes, BAR_MB, "MB"))


if __name__ == "__main__":
    sys.exit(main())
