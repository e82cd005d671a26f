"""What the walls around a job cost: processors' seconds of a job that does nothing, beside a bare fork.

Both start from a process that has imported what jobs need. A bare fork is one that ends at once; a job is sent to the
zygote, enters every layer that this machine allows, answers, and ends. In turns, so that a machine that gets slower
slows both. Nobody waits for a job's processes, so the machine's own count is taken: it should do nothing else
meanwhile.

usage: scripts/bench isolation [--jobs N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench._machine import processors
from bench._table import conclude, show
from worker.sandbox.client import Zygote
from worker.sandbox.layers import ENVIRONMENT, REPOSITORY
from worker.sandbox.limits import Limits

BAR = 0.15  # processors' seconds of a job beyond a bare fork
NOTHING = "nothing"  # a step of the self-check
FORKER = """
import gc, os, sys
from worker.sandbox.zygote import load_libraries
load_libraries()
gc.collect()
gc.freeze()
print(flush=True)
for line in sys.stdin:
    for _ in range(int(line)):
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    print(flush=True)
"""


def measured(work: Callable[[int], None], count: int) -> tuple[float, float]:
    """Processors' seconds and seconds on the wall, of each of ``count``."""
    before, started = processors(), time.perf_counter()
    work(count)
    return (processors() - before) / count, (time.perf_counter() - started) / count


def run_jobs(zygote: Zygote, count: int) -> None:
    for _ in range(count):
        with tempfile.TemporaryDirectory(prefix="larder-isolation-") as folder:
            zygote.run(NOTHING, {}, read=(), folder=Path(folder), limits=Limits())


def run_forks(forker: subprocess.Popen[str], count: int) -> None:
    assert forker.stdin is not None
    assert forker.stdout is not None
    forker.stdin.write(f"{count}\n")
    forker.stdin.flush()
    forker.stdout.readline()


def start_forker() -> subprocess.Popen[str]:
    """A process like the zygote that only forks."""
    environment = {**ENVIRONMENT, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}
    forker = subprocess.Popen(
        [sys.executable, "-c", FORKER],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert forker.stdout is not None
    forker.stdout.readline()
    return forker


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench isolation")
    parser.add_argument("--jobs", type=int, default=40, metavar="N", help="of each kind in one round")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    given = parser.parse_args()
    with Zygote() as zygote, start_forker() as forker:
        layers = zygote.wait_ready()["layers"]
        jobs, forks = [], []
        for _ in range(given.rounds):
            forks.append(measured(lambda count: run_forks(forker, count), given.jobs))
            jobs.append(measured(lambda count: run_jobs(zygote, count), given.jobs))
        forker.kill()
    job, fork = ([statistics.median(column) for column in zip(*side, strict=True)] for side in (jobs, forks))
    show(
        ["", "processors, s", "on the wall, s"],
        [["a job", f"{job[0]:.3f}", f"{job[1]:.3f}"], ["a bare fork", f"{fork[0]:.3f}", f"{fork[1]:.3f}"]],
    )
    print(f"engaged: {', '.join(name for name, layer in layers.items() if layer.active)}")
    print(f"a job takes {job[0] / fork[0]:.1f} times the processors of a bare fork")
    return conclude(("isolation", job[0] - fork[0], BAR, "s of processors for each job"))


if __name__ == "__main__":
    sys.exit(main())
