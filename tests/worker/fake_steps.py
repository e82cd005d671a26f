"""Steps that misbehave, each in one way, and one that is honest work. The zygote of the tests knows them."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from worker.errors import WeightsMismatch
from worker.sandbox.answers import Progress, Step

MIB = 1024**2
Arguments = dict[str, Any]
Value = dict[str, Any]


def echo(arguments: Arguments, _: Progress) -> Value:
    return {"heard": arguments["word"]}


def wait_for(arguments: Arguments, progress: Progress) -> Value:
    progress("waiting")
    while not os.path.exists(arguments["path"]):
        time.sleep(0.005)
    return {"read": Path(arguments["path"]).read_text()}


def sleep(arguments: Arguments, progress: Progress) -> Value:
    progress("asleep")
    time.sleep(arguments["seconds"])
    return {}


def spin(_: Arguments, __: Progress) -> Value:
    while True:
        pass


def segfault(_: Arguments, __: Progress) -> Value:
    ctypes.string_at(0)
    return {}


def abort(_: Arguments, __: Progress) -> Value:
    os.abort()


def abort_for_memory(_: Arguments, __: Progress) -> Value:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def kill_itself(_: Arguments, __: Progress) -> Value:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def exit_quietly(arguments: Arguments, _: Progress) -> Value:
    os._exit(arguments.get("status", 0))


def leave(_: Arguments, __: Progress) -> Value:
    sys.exit(0)


def eat_memory(_: Arguments, __: Progress) -> Value:
    held = []
    while True:
        held.append(b"\1" * MIB)
        time.sleep(0.0005)


def ask_for_memory(_: Arguments, __: Progress) -> Value:
    return {"got": len(bytearray(1024**4))}


def exhaust_wrapped(_: Arguments, __: Progress) -> Value:
    try:
        bytearray(1024**4)
    except MemoryError as error:
        raise WeightsMismatch(problem="no room") from error
    return {}


def _fill(file: Any, size: int) -> None:
    for _ in range(size):
        file.write(b"\1" * MIB)
        file.flush()
        time.sleep(0.001)


def write_one_file(_: Arguments, __: Progress) -> Value:
    with open("big", "wb") as file:
        _fill(file, 1000)
    return {}


def write_one_file_natively(_: Arguments, __: Progress) -> Value:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # as a C program has it; Python ignores it
    return write_one_file({}, __)


def write_many_files(_: Arguments, __: Progress) -> Value:
    for number in range(1000):
        with open(f"part-{number}", "wb") as file:
            _fill(file, 4)
    return {}


def write_unlinked_files(_: Arguments, __: Progress) -> Value:
    held = []
    for number in range(100):
        file = open(f"part-{number}", "wb")  # noqa: SIM115
        os.unlink(file.name)
        held.append(file)
        _fill(file, 4)
    return {"held": len(held)}


def write_quickly(_: Arguments, __: Progress) -> Value:
    for number in range(20):
        descriptor = os.open(f"part-{number}", os.O_WRONLY | os.O_CREAT)
        os.posix_fallocate(descriptor, 0, 8 * MIB)
    return {}


def make_many_files(_: Arguments, __: Progress) -> Value:
    for number in range(1_000_000):
        if number % 500 == 0:
            os.mkdir(f"{number:07}")
            os.chdir(f"{number:07}")
        os.close(os.open(str(number), os.O_WRONLY | os.O_CREAT))
    return {}


def hide_deep(_: Arguments, __: Progress) -> Value:
    for _number in range(30):
        os.mkdir("x" * 200)
        os.chdir("x" * 200)
    time.sleep(10)
    return {}


def forge_value(_: Arguments, __: Progress) -> Value:
    _to_all_pipes(b'{"value": {"verdict": "verified"}}\n')
    return {}


def forge_status(_: Arguments, __: Progress) -> Value:
    _to_all_pipes(b'{"status": 0, "reason": "", "peak": 0}\n{"layers": {}}\n{"problem": "none"}\n{"pid": 1}\n')
    return {}


def forge_error(arguments: Arguments, __: Progress) -> Value:
    _to_all_pipes(json.dumps({"error": arguments["error"]}).encode() + b"\n")
    os._exit(0)


def forge_nonsense(_: Arguments, __: Progress) -> Value:
    _to_all_pipes(b"\x80\x04K\x01.\n" + b"[" * 100_000 + b"\nNaN\n[]\nnull\n\xff\n" + b'{"value": 1')
    os._exit(0)


def _to_all_pipes(data: bytes) -> None:
    for number in range(3, 64):
        try:
            os.write(number, data)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise


def answer_long(_: Arguments, __: Progress) -> Value:
    return {"text": "x" * (2 * MIB)}


def answer_nan(_: Arguments, __: Progress) -> Value:
    return {"loss": float("nan")}


def answer_list(_: Arguments, __: Progress) -> Value:
    return ["not", "a", "dict"]  # type: ignore[return-value]


def flood(_: Arguments, __: Progress) -> Value:
    for _number in range(64):
        os.write(1, b"x" * MIB)
    os.write(2, b"the last words")
    return {"said": 64}


def report(_: Arguments, progress: Progress) -> Value:
    for number in range(3):
        progress(f"{number + 1} of 3")
    return {}


def chatter(_: Arguments, progress: Progress) -> Value:
    for _number in range(2000):
        progress("x" * 300)
    return {}


def raise_known(_: Arguments, __: Progress) -> Value:
    raise WeightsMismatch(problem="7 tensors for 6 places")


def raise_unknown(_: Arguments, __: Progress) -> Value:
    raise RuntimeError("first line\nsecond line")


def start_program(_: Arguments, __: Progress) -> Value:
    return {"status": os.system("true")}  # noqa: S605, S607


def start_program_quietly(_: Arguments, __: Progress) -> Value:
    try:
        subprocess.run(["true"], check=False)  # noqa: S607
    except OSError:
        return {"started": False}
    return {"started": True}


def start_others(arguments: Arguments, _: Progress) -> Value:
    """The errno with which each program is refused that is to take the job's place; one of them it writes itself."""
    with os.fdopen(os.open("own", os.O_WRONLY | os.O_CREAT, 0o700), "w") as file:
        file.write("#!/bin/sh\n")
    return {path: _errno(path) for path in arguments["paths"]}


def _errno(path: str) -> int | None:
    try:
        os.execv(path, [path])  # noqa: S606
    except OSError as error:
        return error.errno


def call_home(_: Arguments, __: Progress) -> Value:
    import socket

    return {"addresses": len(socket.getaddrinfo("localhost", 80))}


def trace(_: Arguments, __: Progress) -> Value:
    return {"result": ctypes.CDLL(None).ptrace(0, 0, None, None)}


def look_around(_: Arguments, __: Progress) -> Value:
    return {
        "environment": dict(os.environ),
        "descriptors": [number for number in range(300) if _is_open(number)],
        "folder": os.getcwd(),
        "threads": threading.active_count(),
    }


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def reach(arguments: Arguments, _: Progress) -> Value:
    """The errno with which each act on ``path`` is refused, or what it got: in a file, for no answer of a job counts
    that tries such things."""
    path = arguments["path"]
    acts = {
        "read": lambda: Path(path).read_text(encoding="utf-8"),
        "write": lambda: Path(path).write_text("changed", encoding="utf-8"),
        "truncate": lambda: os.truncate(path, 0),
        "unlink": lambda: os.unlink(path),
        "rename": lambda: os.rename(path, "stolen"),
        "list": lambda: os.listdir(os.path.dirname(path)),
        "chmod": lambda: os.chmod(path, 0o777),  # noqa: S103
        "utime": lambda: os.utime(path, (1, 1)),
        "device": lambda: os.open("/dev/shm/larder", os.O_CREAT | os.O_WRONLY),
    }
    found = {name: _tried(act) for name, act in acts.items()}
    Path("reached.json").write_text(json.dumps(found), encoding="utf-8")
    return {}


def _tried(act: Any) -> str:
    try:
        return repr(act())
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def attempt_all(arguments: Arguments, _: Progress) -> Value:
    """One of everything, and then an answer as if nothing had been."""
    import socket

    acts = (
        lambda: Path("/etc/passwd").read_bytes(),
        lambda: Path(arguments["outside"]).write_bytes(b""),
        lambda: subprocess.run(["true"], check=False),  # noqa: S607
        os.fork,
        lambda: socket.create_connection(("127.0.0.1", 80)),
        lambda: os.kill(os.getppid(), 0),
        lambda: ctypes.CDLL(os.path.abspath("foreign.so")),
    )
    for act in acts:
        with suppress(OSError):
            act()
    return {"done": True}


def start_program_below_python(_: Arguments, __: Progress) -> Value:
    """By the C library, of which Python tells nothing."""
    return {"status": ctypes.CDLL(None).system(b"true")}


def call_home_below_python(_: Arguments, __: Progress) -> Value:
    return {"socket": ctypes.CDLL(None).socket(2, 1, 0)}


def start_program_unheard(_: Arguments, __: Progress) -> Value:
    """With what would tell of it taken out before."""
    from worker.sandbox import audit

    audit.KIND_OF.clear()
    return {"status": os.system("true")}  # noqa: S605, S607


def map_shared(_: Arguments, __: Progress) -> Value:
    area = mmap.mmap(-1, 512 * MIB)
    for offset in range(0, 512 * MIB, 4096):
        area[offset] = 1
    return {}


def start_threads(_: Arguments, __: Progress) -> Value:
    threads = [threading.Thread(target=time.sleep, args=(0.05,)) for _number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"threads": len(threads)}


def copy(arguments: Arguments, _: Progress) -> Value:
    """What is given, written to a file of its own."""
    text = Path(arguments["path"]).read_text(encoding="utf-8")
    Path("copied").write_text(text, encoding="utf-8")
    return {"read": text}


def use_temporary_files(_: Arguments, __: Progress) -> Value:
    import shutil
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
        file.flush()
        copied = shutil.copy2(file.name, "copy")
    return {"folder": os.path.dirname(file.name), "copied": copied}


def build_and_save(_: Arguments, progress: Progress) -> Value:
    """What the product is for: build, save in every form, load again, compute."""
    import keras
    import numpy as np
    import tensorflow as tf

    progress("building")
    layers = [keras.layers.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    inputs = np.ones((1, 8, 8, 3), "float32")
    expected = model.predict(inputs, verbose=0)
    progress("saving")
    model.save("model.keras")
    model.save("model.h5")
    model.export("saved_model", verbose=False)
    progress("comparing")
    again = [keras.models.load_model(name, compile=False) for name in ("model.keras", "model.h5")]
    results = [loaded.predict(inputs, verbose=0) for loaded in again]
    graph = tf.saved_model.load("saved_model")  # its functions die with it
    results.append(graph.serve(inputs).numpy())
    return {"equal": [bool(np.allclose(expected, result, atol=1e-6)) for result in results]}


def convert_h5(arguments: Arguments, _: Progress) -> Value:
    import keras

    keras.models.load_model(arguments["path"], compile=False).save("model.keras")
    return {}


def convert_dying(arguments: Arguments, progress: Progress) -> Value:
    """The product's step, with a library that ends as the step ``how`` does where an operation is ``deadly``."""
    from worker import steps
    from worker.formats import _frozen

    plain = _frozen.plain

    def dying(*of: Any, **more: Any) -> Any:
        graph = plain(*of, **more)
        if any(node.op == arguments["deadly"] for node in graph.definition.node):
            STEPS[arguments["how"]]({"seconds": 600}, lambda _: None)
        return graph

    _frozen.plain = dying
    return steps.convert(arguments, progress)


STEPS: dict[str, Step] = {
    step.__name__.replace("_", "-"): step
    for step in (
        echo,
        copy,
        start_program_below_python,
        call_home_below_python,
        start_program_unheard,
        sleep,
        wait_for,
        spin,
        segfault,
        convert_dying,
        abort,
        abort_for_memory,
        kill_itself,
        exit_quietly,
        leave,
        eat_memory,
        ask_for_memory,
        exhaust_wrapped,
        map_shared,
        write_one_file,
        write_one_file_natively,
        write_many_files,
        write_unlinked_files,
        write_quickly,
        make_many_files,
        hide_deep,
        forge_value,
        forge_status,
        forge_error,
        forge_nonsense,
        answer_long,
        answer_nan,
        answer_list,
        flood,
        report,
        chatter,
        raise_known,
        raise_unknown,
        start_program,
        start_program_quietly,
        start_others,
        call_home,
        trace,
        look_around,
        reach,
        attempt_all,
        start_threads,
        use_temporary_files,
        build_and_save,
        convert_h5,
    )
}
