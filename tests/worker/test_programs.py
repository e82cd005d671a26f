"""Jobs that end in a program: it answers in the job's place, and is held by every layer that held the job."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worker.test_sandbox import SMALL, descendants, wait_until
from worker import node
from worker.errors import (
    Crashed,
    DiskFull,
    Forbidden,
    LarderError,
    NoResult,
    NotRunnable,
    OutOfMemory,
    TimedOut,
    WeightsMismatch,
)
from worker.sandbox.client import Outcome, Zygote
from worker.sandbox.limits import MIB, Limits
from worker.sandbox.request import Program

FOUND = node.found()
LIMITS = Limits(memory_bytes=256 * MIB, disk_bytes=48 * MIB, file_bytes=24 * MIB, wall_seconds=20, cpu_seconds=10)
# What every script here begins with: what the step has said, and how to answer.
BEGINNING = """
const fs = require('fs');
const [, , file, descriptor] = process.argv;
const handed = JSON.parse(fs.readFileSync(file, 'utf8'));
const answer = value => fs.writeSync(Number(descriptor), JSON.stringify({value}) + '\\n');
"""
# What a model would try that has taken Node over: the code of the error that each attempt met, or "done".
HOSTILE = """
function start(path, ...words) {
  const {error} = require('child_process').spawnSync(path, words);
  if (error) throw error;
}
const attempts = {
  read: () => fs.readFileSync('/etc/passwd'),
  look: () => fs.readFileSync(handed.heard),
  write: () => fs.writeFileSync(handed.heard + '-written', 'x'),
  link: () => fs.symlinkSync('/etc/passwd', 'link'),
  own: () => fs.readFileSync('/proc/self/environ'),
  parent: () => process.kill(process.ppid, 0),
  shell: () => start('/bin/sh', '-c', 'true'),
  itself: () => start(process.execPath, '-v'),
  code: () => { new Function('return 1')(); },
  native: () => process.dlopen({exports: {}}, '/lib/x86_64-linux-gnu/libm.so.6'),
};
const met = Object.fromEntries(Object.entries(attempts).map(([name, act]) => {
  try { act(); return [name, 'done']; } catch (error) { return [name, error.code || error.name]; }
}));
const socket = require('net').connect(80, '127.0.0.1');
socket.on('connect', () => answer({...met, connect: 'done'}));
socket.on('error', error => answer({...met, connect: error.code}));
"""
FORGED = """fs.writeSync(Number(descriptor), '{"error": {"code": "sandbox-missing"}}' + String.fromCharCode(10));"""
HOLDING = "const held = new Uint8Array(160 << 20).fill(1); setTimeout(() => answer({held: held.length}), 900);"
ENDLESS = "while (true);"
Run = Callable[..., Outcome]


@pytest.fixture
def run(zygote: Zygote, tmp_path: Path) -> Run:
    """The answer of a job whose step says what it heard, and that goes on as this script."""
    folder = tmp_path / "job"
    folder.mkdir()

    def run_script(script: str, word: str = "hello", limits: Limits = LIMITS, **more: Any) -> Outcome:
        path = tmp_path / "script.js"
        path.write_text(BEGINNING + script, encoding="utf-8")
        program = Program((*FOUND.command[:-1], str(path)), dict(FOUND.environment))
        asked = {"step": "echo", "arguments": {"word": word}, **more}
        return zygote.run(**asked, read=[path, *FOUND.read], folder=folder, limits=limits, program=program)

    return run_script


def test_it_works(run: Run) -> None:
    """No system call is refused, what the step says is heard, and what the program answers is the job's answer."""
    outcome = run("answer({again: handed.heard})", strict=True)
    assert outcome.value == {"again": "hello"}
    assert outcome.events == ()
    assert "may run" in outcome.layers["landlock"].detail
    assert 0 < outcome.seconds < 10


def test_a_program_can_do_no_more_than_its_job(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="ascii")
    met = run(HOSTILE, word=str(tmp_path / "secret")).value
    assert {met[name] for name in ("read", "look", "write")} <= {"EACCES", "ENOENT", "EROFS"}, "or it is not there"
    assert {name: told for name, told in met.items() if name not in ("read", "look", "write")} == {
        **dict.fromkeys(("own", "shell", "itself", "connect"), "EACCES"),
        **dict.fromkeys(("link", "parent"), "EPERM"),
        "code": "EvalError",
        "native": "ERR_DLOPEN_DISABLED",
    }
    assert not (tmp_path / "secret-written").exists()


def test_it_has_no_rights_and_is_filtered(run: Run, zygote: Zygote) -> None:
    """As the kernel says it, of the process that is Node."""
    before, limits = descendants(os.getpid()), replace(LIMITS, wall_seconds=3)
    job = ThreadPoolExecutor(1).submit(run, ENDLESS, limits=limits)
    wait_until(lambda: any(is_node(pid) for pid in descendants(os.getpid()) - before))
    (pid,) = [pid for pid in descendants(os.getpid()) - before if is_node(pid)]
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    opened = {os.readlink(f"/proc/{pid}/fd/{number}").partition(":")[0] for number in os.listdir(f"/proc/{pid}/fd")}
    assert isinstance(job.exception(), TimedOut)
    assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    assert opened <= {"/dev/null", "pipe", "anon_inode"}


def is_node(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/exe") == FOUND.command[0]
    except OSError:
        return False


@pytest.mark.parametrize(
    ("script", "limits", "error"),
    [
        (ENDLESS, {"wall_seconds": 2}, TimedOut),
        (ENDLESS, {"cpu_seconds": 1}, TimedOut),
        ("const held = []; while (true) held.push(new Uint8Array(1 << 20).fill(1));", {}, OutOfMemory),
        ("let held = []; while (true) held.push({a: held});", {}, OutOfMemory),
        ("for (let n = 0; n < 64; n++) fs.writeFileSync('f' + n, Buffer.alloc(1 << 20));", {}, DiskFull),
        ("process.exit(3);", {}, NoResult),
        ("process.abort();", {}, Crashed),
        ("answer({a: 1}); answer({b: 1});", {}, Forbidden),
        ("answer('x'.repeat(1 << 21));", {}, NoResult),
        (FORGED, {}, Forbidden),
    ],
)
def test_each_way_to_end_has_its_error(run: Run, script: str, limits: dict[str, Any], error: type[LarderError]) -> None:
    with pytest.raises(error):
        run(script, limits=replace(LIMITS, **limits))


def test_memory_counts_from_nothing_when_the_program_begins(run: Run) -> None:
    """What the zygote held is gone then, so it must not be allowed on top."""
    with pytest.raises(OutOfMemory):
        run(HOLDING, limits=replace(LIMITS, memory_bytes=128 * MIB))


def test_nothing_else_is_run_in_its_place(run: Run) -> None:
    """Neither what the system has, nor what the job has written itself."""
    paths = ["/bin/sh", "/usr/bin/env", "own"]
    found = run("answer(handed)", step="start-others", arguments={"paths": paths}).value
    assert found["own"] == errno.EACCES
    assert {found[path] for path in paths[:2]} <= {errno.EACCES, errno.ENOENT}


@pytest.mark.parametrize("content", ["no program", None])
def test_a_program_that_does_not_start_is_told(content: str | None, zygote: Zygote, tmp_path: Path) -> None:
    """One that is gone leaves every layer as it is."""
    (tmp_path / "job").mkdir()
    program = Program((str(tmp_path / "node"),), {})
    if content:
        (tmp_path / "node").write_text(content, encoding="ascii")
        (tmp_path / "node").chmod(0o755)
    with pytest.raises(NotRunnable, match="does not start"):
        zygote.run("echo", {"word": ""}, read=(), folder=tmp_path / "job", limits=SMALL, program=program)


def test_where_the_step_fails_no_program_begins(zygote: Zygote, tmp_path: Path) -> None:
    program = Program(FOUND.command, dict(FOUND.environment))
    with pytest.raises(WeightsMismatch):
        zygote.run("raise-known", {}, read=(), folder=tmp_path, limits=SMALL, program=program)
