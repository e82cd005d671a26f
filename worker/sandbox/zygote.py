"""The warm process that jobs are forked from: `python -m worker.sandbox.zygote FD PARENT STEPS…`.

It imports the libraries and never runs an operation of them: thread pools do not survive a fork. It has no secrets, one
thread and one connection, the control socket; when that ends, so does it.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import platform
import signal
import socket
import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from typing import NoReturn

from worker.sandbox import cgroups, kernel, namespaces, seccomp
from worker.sandbox.answers import Step
from worker.sandbox.layers import library_paths
from worker.sandbox.namespaces import Enclosure
from worker.sandbox.request import Cell, Request
from worker.sandbox.supervisor import oversee

MAX_REQUEST_BYTES = 128 * 1024
PIPES = 3
# Not onnxruntime and openvino: they start a thread. The last ones would otherwise be imported in every job.
LIBRARIES = (
    "numpy",
    "h5py",
    "tensorflow",
    "keras",
    "tf_keras",
    "onnx.inliner",
    "tf2onnx.convert",
    "safetensors.numpy",
    "ai_edge_litert.interpreter",
    "tensorflow.saved_model",
    "tensorflow.python.data.ops.concatenate_op",
    "tensorflow.python.data.ops.flat_map_op",
    "tensorflow.python.data.ops.zip_op",
    "encodings.cp437",
)


class CannotServe(Exception):
    """The zygote cannot fork jobs; the text says why."""


def load_libraries() -> None:
    """Import what jobs need, so that none of them has to."""
    for name in LIBRARIES:
        import_module(name)
    platform.processor()  # starts a program the first time, which a job may not


def load_steps(modules: list[str]) -> dict[str, Step]:
    """What jobs may do: ``STEPS`` of every module, and the probes of the self-check."""
    probes = import_module("worker.sandbox.selfcheck").PROBES
    registries: list[dict[str, Step]] = [import_module(name).STEPS for name in modules]
    found: dict[str, Step] = dict(probes)
    for registry in registries:
        if twice := found.keys() & registry:
            raise CannotServe(f"two steps are called {', '.join(sorted(twice))}")
        found |= registry
    return found


def prepare(arguments: Namespace) -> dict[str, Step]:
    """Everything that jobs share."""
    if arguments.preload:
        load_libraries()
    steps = load_steps(arguments.steps)
    namespaces.best(library_paths(), arguments.user)
    cgroups.home(arguments.group)
    with suppress(kernel.Unavailable):  # the job reports it as a missing layer
        for program, alone in itertools.product((False, True), repeat=2):
            seccomp.compile_filter(program=program, alone=alone)
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        raise CannotServe(f"an import started threads ({threads} run), and a fork would lose them")
    gc.collect()
    gc.freeze()  # or the first collection in a job would copy every page
    return steps


def _oversee(cell: Cell, step: Step | None, enclosure: Enclosure, zygote: int) -> NoReturn:
    try:
        kernel.die_with_parent(zygote)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if step is None:
            raise CannotServe(f"there is no step called {cell.request.step!r}")
        oversee(cell, step, enclosure)
    except BrokenPipeError:  # the worker does not want this job any more
        os._exit(1)
    except BaseException as error:
        os.write(cell.status, json.dumps({"problem": str(error) or type(error).__name__}).encode() + b"\n")
    finally:
        os._exit(0)


def fork_supervisor(message: bytes, descriptors: list[int], steps: dict[str, Step], enclosure: Enclosure) -> None:
    """Start one job and forget it: its own pipes tell the rest."""
    request = Request.decode(message)
    result, log, status = descriptors
    cell = Cell(request, result, log, status)
    zygote = os.getpid()
    try:
        if os.fork() == 0:
            _oversee(cell, steps.get(request.step), enclosure, zygote)
    except OSError as error:
        os.write(cell.status, json.dumps({"problem": f"fork: {error.strerror}"}).encode() + b"\n")


def serve(control: socket.socket, steps: dict[str, Step], enclosure: Enclosure) -> None:
    """Fork a job for every message, until the worker is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the supervisors
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, PIPES)
        if not message:
            return
        if enclosure.home.folder:
            cgroups.sweep(enclosure.home.folder, {os.getpid()})
        fork_supervisor(message, descriptors, steps, enclosure)
        for descriptor in descriptors:
            os.close(descriptor)


def _arguments() -> Namespace:
    parser = ArgumentParser()
    parser.add_argument("control", type=int)
    parser.add_argument("parent", type=int)
    parser.add_argument("steps", nargs="+")
    parser.add_argument("--user", type=int, default=0, help="whom root becomes in a job; 0 for nobody else")
    parser.add_argument("--group", default="", help="the control group below which jobs get theirs; - for none")
    parser.add_argument("--bare", dest="preload", action="store_false", help="import no library; for tests")
    return parser.parse_args()


def main() -> None:
    """Prepare, say that it is done or why not, serve."""
    arguments = _arguments()
    control = socket.socket(fileno=arguments.control)
    started = time.monotonic()
    kernel.die_with_parent(arguments.parent)  # importing takes seconds in which nobody looks at the control socket
    try:
        steps = prepare(arguments)
    except (ImportError, CannotServe) as error:
        control.send(json.dumps({"problem": str(error)}).encode())
        sys.exit(1)
    ready = {"pid": os.getpid(), "threads": 1, "seconds": round(time.monotonic() - started, 2)}
    kernel.outlive_parent()  # or it would die with the thread that started it; from here on the socket tells
    control.send(json.dumps(ready).encode())
    with suppress(ConnectionResetError):
        best = namespaces.best(library_paths(), arguments.user)
        serve(control, steps, replace(best, home=cgroups.home(arguments.group)))
    os._exit(0)


if __name__ == "__main__":
    main()
