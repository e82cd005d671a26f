"""The floor of the sandbox: every way a job can die has its own error, and nothing of it reaches the worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.worker import levels
from worker.errors import (
    Canceled,
    ConverterFailed,
    Crashed,
    DiskFull,
    Forbidden,
    LarderError,
    NoResult,
    OutOfMemory,
    SandboxError,
    TimedOut,
    WeightsMismatch,
)
from worker.sandbox import disk, pipes, seccomp, selfcheck
from worker.sandbox.client import Outcome, Zygote
from worker.sandbox.layers import FLOOR, Layer, missing
from worker.sandbox.limits import MIB, Limits, size

ROOT = Path(__file__).resolve().parents[2]
FAKES = "tests.worker.fake_steps"
SMALL = Limits(
    memory_bytes=96 * MIB, disk_bytes=48 * MIB, file_bytes=24 * MIB, wall_seconds=20, cpu_seconds=10, files=2000
)
REFUSED = ("EACCES", "ENOENT", "EROFS", "EXDEV", "EPERM")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A job's own folder; other things of the test lie beside it."""
    made = tmp_path / "job"
    made.mkdir()
    return made


@pytest.fixture
def bare() -> Iterator[Zygote]:
    """A zygote of one test's own, without TensorFlow, to be killed."""
    with Zygote(steps=(FAKES,), preload=False) as own:
        own.wait_ready()
        yield own


def run(zygote: Zygote, folder: Path, step: str, limits: Limits = SMALL, **arguments: Any) -> Outcome:
    return zygote.run(step, arguments, read=(), folder=folder, limits=limits)


def reach(zygote: Zygote, folder: Path, path: Path, read: Sequence[Path] = ()) -> dict[str, Any]:
    """What each act on the path came to, in a job that is called what it is for that."""
    with pytest.raises(Forbidden):
        zygote.run("reach", {"path": str(path)}, read=read, folder=folder, limits=SMALL)
    return dict(json.loads((folder / "reached.json").read_text(encoding="utf-8")))


def parents() -> dict[int, int]:
    """The parent of every process that lives, zombies left out."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            found[int(path.parent.name)] = int(parent)
    return found


def descendants(root: int) -> set[int]:
    tree = parents()
    found = {root}
    while grown := {pid for pid, parent in tree.items() if parent in found} - found:
        found |= grown
    return found - {root}


def wait_until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_it_works(zygote: Zygote, folder: Path) -> None:
    outcome = run(zygote, folder, "echo", word="hello")
    assert outcome.value == {"heard": "hello"}
    assert missing(outcome.layers) == ""
    assert outcome.events == ()
    assert 0 < outcome.seconds < 5


def test_ready_tells_threads_and_layers(zygote: Zygote) -> None:
    ready = zygote.wait_ready()
    assert ready["threads"] == 1
    assert ready["pid"] in parents()
    assert set(FLOOR) <= set(ready["layers"])


DEATHS: list[tuple[str, dict[str, Any], type[LarderError], str]] = [
    ("sleep", {"seconds": 60}, TimedOut, "1 seconds of wall-clock time"),
    ("spin", {}, TimedOut, "1 seconds of processor time"),
    ("segfault", {}, Crashed, "SIGSEGV"),
    ("abort", {}, Crashed, "SIGABRT"),
    ("kill-itself", {}, Crashed, "SIGKILL"),
    ("abort-for-memory", {}, OutOfMemory, "96 MiB"),
    ("eat-memory", {}, OutOfMemory, "96 MiB"),
    ("map-shared", {}, OutOfMemory, "96 MiB"),
    ("ask-for-memory", {}, OutOfMemory, "96 MiB"),
    ("exhaust-wrapped", {}, OutOfMemory, "96 MiB"),
    ("write-one-file", {}, DiskFull, "24 MiB"),
    ("write-one-file-natively", {}, DiskFull, "24 MiB"),
    ("write-many-files", {}, DiskFull, "48 MiB"),
    ("write-unlinked-files", {}, DiskFull, "48 MiB"),
    ("write-quickly", {}, DiskFull, "48 MiB"),
    ("make-many-files", {}, DiskFull, "2,000 files"),
    ("hide-deep", {}, Forbidden, "hide what it writes"),
    ("exit-quietly", {}, NoResult, "exit status 0"),
    ("exit-quietly", {"status": 3}, NoResult, "exit status 3"),
    ("leave", {}, ConverterFailed, "SystemExit"),
    ("forge-value", {}, Forbidden, "forge the answer"),
    ("forge-status", {}, Forbidden, "forge the answer"),
    ("forge-nonsense", {}, NoResult, "exit status 0"),
    ("forge-error", {"error": {"code": "sandbox-missing"}}, Forbidden, "speak for the sandbox"),
    ("forge-error", {"error": {"code": "canceled"}}, Forbidden, "speak for the sandbox"),
    ("forge-error", {"error": ["not", "an", "error"]}, NoResult, "without a name"),
    ("forge-error", {"error": {"code": [], "details": {"self": 1}}}, LarderError, "did not foresee"),
    ("answer-long", {}, NoResult, "too long"),
    ("answer-nan", {}, ConverterFailed, "ValueError"),
    ("answer-list", {}, ConverterFailed, "TypeError"),
    ("raise-known", {}, WeightsMismatch, "7 tensors for 6 places"),
    ("raise-unknown", {}, ConverterFailed, "RuntimeError: first line."),
    ("start-program", {}, Forbidden, "start a program"),
    ("start-program-quietly", {}, Forbidden, "start a program"),
    ("call-home", {}, Forbidden, "open a network connection"),
    ("trace", {}, Forbidden, "make a system call that is not allowed"),
    ("unknown-step", {}, SandboxError, "there is no step called 'unknown-step'"),
]


@pytest.mark.parametrize(("step", "arguments", "error", "words"), DEATHS, ids=[f"{row[0]}: {row[3]}" for row in DEATHS])
def test_every_end_has_its_own_error(
    zygote: Zygote, folder: Path, step: str, arguments: dict[str, Any], error: type[LarderError], words: str
) -> None:
    time_limits = {"sleep": {"wall_seconds": 1}, "spin": {"cpu_seconds": 1}}.get(step, {})
    limits = Limits(**{**vars(SMALL), **time_limits})
    with pytest.raises(LarderError) as caught:
        zygote.run(step, arguments, read=(), folder=folder, limits=limits)
    assert type(caught.value) is error
    assert words in caught.value.message


def test_the_zygote_outlives_its_jobs(zygote: Zygote, folder: Path) -> None:
    before = zygote.wait_ready()["pid"]
    with pytest.raises(Crashed):
        run(zygote, folder, "segfault")
    assert run(zygote, folder, "echo", word="still here").value == {"heard": "still here"}
    assert zygote.wait_ready()["pid"] == before


def test_the_traceback_is_for_the_log_only(zygote: Zygote, folder: Path) -> None:
    with pytest.raises(ConverterFailed) as caught:
        run(zygote, folder, "raise-unknown")
    assert "Traceback" in "".join(caught.value.__notes__)
    assert "Traceback" not in json.dumps(caught.value.to_json())


def test_a_flooded_log_keeps_its_end(zygote: Zygote, folder: Path) -> None:
    outcome = run(zygote, folder, "flood")
    assert outcome.value == {"said": 64}
    assert outcome.log.endswith("the last words")
    assert len(outcome.log) <= pipes.LOG_BYTES


def test_progress_comes_in_order_and_live(zygote: Zygote, folder: Path) -> None:
    heard: list[str] = []
    zygote.run("report", {}, read=(), folder=folder, limits=SMALL, progress=heard.append)
    assert heard == ["1 of 3", "2 of 3", "3 of 3"]


def test_endless_progress_is_cut(zygote: Zygote, folder: Path) -> None:
    heard: list[str] = []
    zygote.run("chatter", {}, read=(), folder=folder, limits=SMALL, progress=heard.append)
    assert len(heard) == pipes.MAX_PROGRESS
    assert max(map(len, heard)) <= pipes.PROGRESS_CHARACTERS


def test_cancel_before_the_start_stops_the_job(zygote: Zygote, folder: Path) -> None:
    with pytest.raises(Canceled):
        zygote.run("sleep", {"seconds": 60}, read=(), folder=folder, limits=SMALL, canceled=lambda: True)
    assert_no_jobs(zygote)


def test_a_zygote_that_is_slow_to_start_is_said(folder: Path) -> None:
    with Zygote(steps=(FAKES,), preload=False) as own:
        with pytest.raises(SandboxError, match=r"not ready after 0\.001 seconds"):
            own.wait_ready(timeout=0.001)
        assert run(own, folder, "echo", word="later").value == {"heard": "later"}


def test_cancel_stops_the_job(zygote: Zygote, folder: Path) -> None:
    asleep = threading.Event()
    started = time.monotonic()
    with pytest.raises(Canceled):
        zygote.run(
            "sleep",
            {"seconds": 60},
            read=(),
            folder=folder,
            limits=SMALL,
            canceled=asleep.is_set,
            progress=lambda text: asleep.set(),
        )
    assert time.monotonic() - started < 15
    assert_no_jobs(zygote)


def test_a_failing_callback_stops_the_job(zygote: Zygote, folder: Path) -> None:
    def fail(text: str) -> None:
        raise RuntimeError("the database is away")

    with pytest.raises(RuntimeError, match="the database is away"):
        zygote.run("sleep", {"seconds": 60}, read=(), folder=folder, limits=SMALL, progress=fail)
    assert_no_jobs(zygote)


def assert_no_jobs(zygote: Zygote) -> None:
    wait_until(lambda: not descendants(zygote.wait_ready()["pid"]))


def test_jobs_run_side_by_side(zygote: Zygote, folder: Path, tmp_path: Path) -> None:
    """Six jobs begin and end while another one sleeps, and none hears the answer of another."""
    asleep, done = threading.Event(), threading.Event()

    def tell(text: str) -> None:
        asleep.set()

    def sleep() -> None:
        with pytest.raises(Canceled):
            zygote.run(
                "sleep", {"seconds": 60}, read=(), folder=folder, limits=SMALL, canceled=done.is_set, progress=tell
            )

    def echo(number: int) -> dict[str, Any]:
        own = tmp_path / str(number)
        own.mkdir()
        return run(zygote, own, "echo", word=str(number)).value

    with ThreadPoolExecutor(7) as pool:
        sleeping = pool.submit(sleep)
        assert asleep.wait(20)
        heard = list(pool.map(echo, range(6)))
        done.set()
        sleeping.result()
    assert heard == [{"heard": str(number)} for number in range(6)]


def test_what_a_job_sees(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_SECRET_KEY", "do not tell")
    with Zygote(steps=(FAKES,), preload=False) as own:
        seen = run(own, folder, "look-around").value
    assert "do not tell" not in json.dumps(seen)
    assert seen["environment"]["HOME"] == seen["environment"]["TMPDIR"] == seen["folder"] == str(folder)
    assert seen["threads"] == 1
    assert len(seen["descriptors"]) == 4  # input, output, errors, result


def test_files_of_others_stay_as_they_are(zygote: Zygote, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret", encoding="utf-8")
    before = secret.stat()
    found = reach(zygote, folder, secret)
    pretended = ("chmod", "utime")  # may claim that they were done
    assert {act: told for act, told in found.items() if told not in REFUSED and act not in pretended} == {}
    assert secret.read_text(encoding="utf-8") == "secret"
    assert (secret.stat().st_mode, secret.stat().st_mtime) == (before.st_mode, before.st_mtime)


def test_a_given_file_may_be_read_and_not_written(zygote: Zygote, folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("model", encoding="utf-8")
    found = reach(zygote, folder, given, read=[given])
    assert found["read"] == "'model'"
    assert {found["write"], found["list"]} <= set(REFUSED)


def test_temporary_files_go_to_the_folder(zygote: Zygote, folder: Path) -> None:
    found = zygote.run("use-temporary-files", {}, read=(), folder=folder, limits=SMALL, strict=True).value
    assert found == {"folder": str(folder), "copied": "copy"}


def test_what_lay_in_the_folder_is_not_counted(zygote: Zygote, folder: Path) -> None:
    (folder / "upload").write_bytes(b"\1" * (64 * MIB))
    assert run(zygote, folder, "echo", word="x").value == {"heard": "x"}


def test_a_folder_that_is_not_there_is_said(zygote: Zygote, folder: Path) -> None:
    with pytest.raises(SandboxError, match="No such file or directory"):
        run(zygote, folder / "absent", "echo", word="x")


def test_too_long_a_request_is_said(zygote: Zygote, folder: Path) -> None:
    with pytest.raises(SandboxError, match="more than 131072"):
        run(zygote, folder, "echo", word="x" * 200_000)


def test_tensorflow_works_and_nothing_it_does_is_refused(zygote: Zygote, folder: Path) -> None:
    heard: list[str] = []
    limits = Limits(wall_seconds=120)
    outcome = zygote.run(
        "build-and-save", {}, read=(), folder=folder, limits=limits, progress=heard.append, strict=True
    )
    assert outcome.value == {"equal": [True, True, True]}
    assert outcome.events == ()
    assert heard == ["building", "saving", "comparing"]
    assert {"model.keras", "model.h5", "saved_model"} <= {path.name for path in folder.iterdir()}
    beside = folder.parent / "next"
    beside.mkdir()
    source = folder / "model.h5"
    zygote.run("convert-h5", {"path": str(source)}, read=[source], folder=beside, limits=limits, strict=True)
    assert (beside / "model.keras").stat().st_size > 1000


def test_threads_are_allowed(zygote: Zygote, folder: Path) -> None:
    outcome = zygote.run("start-threads", {}, read=(), folder=folder, limits=SMALL, strict=True)
    assert outcome.value == {"threads": 8}


def test_a_dead_zygote_is_started_again(bare: Zygote, folder: Path) -> None:
    first = bare.wait_ready()["pid"]
    os.kill(first, signal.SIGKILL)
    assert run(bare, folder, "echo", word="again").value == {"heard": "again"}
    assert bare.wait_ready()["pid"] != first


def test_a_job_whose_zygote_died_runs_once_more(bare: Zygote, folder: Path) -> None:
    """In a new one, and without what it had written."""
    (folder / "given").write_text("model", encoding="utf-8")
    killed: list[int] = []

    def kill(_: str) -> None:
        if not killed:
            (folder / "half").mkdir()
            (folder / "half" / "written").touch()
            killed.append(bare.wait_ready()["pid"])
            os.kill(killed[0], signal.SIGKILL)

    outcome = bare.run("sleep", {"seconds": 0.3}, read=(), folder=folder, limits=SMALL, progress=kill)
    assert outcome.value == {}
    assert bare.wait_ready()["pid"] != killed[0]
    assert [path.name for path in folder.iterdir()] == ["given"]


def test_it_runs_no_third_time(bare: Zygote, folder: Path) -> None:
    killed: list[int] = []

    def kill(_: str) -> None:
        killed.append(bare.wait_ready()["pid"])
        os.kill(killed[-1], signal.SIGKILL)

    with pytest.raises(NoResult):
        bare.run("sleep", {"seconds": 60}, read=(), folder=folder, limits=SMALL, progress=kill)
    assert len(killed) == 2


@pytest.mark.parametrize("victim", ["outer", "supervisor", "job"])
def test_a_job_in_flight_is_told_of_a_death(bare: Zygote, folder: Path, victim: str) -> None:
    zygote = bare.wait_ready()["pid"]

    def kill(text: str) -> None:
        tree = parents()
        line = [zygote]  # zygote, one that stays outside of the pid namespace, supervisor, job
        while below := [pid for pid, parent in tree.items() if parent == line[-1]]:
            line += below
        os.kill({"outer": line[1], "supervisor": line[-2], "job": line[-1]}[victim], signal.SIGKILL)

    with pytest.raises(Crashed if victim == "job" else NoResult):
        bare.run("sleep", {"seconds": 60}, read=(), folder=folder, limits=SMALL, progress=kill)
    assert run(bare, folder, "echo", word="again").value == {"heard": "again"}


def test_a_killed_worker_leaves_nothing_behind(folder: Path) -> None:
    worker = f"""
from pathlib import Path
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits
own = Zygote(steps=({FAKES!r},), preload=False)
tell = lambda text: print(text, flush=True)
own.run("sleep", {{"seconds": 60}}, read=(), folder=Path({str(folder)!r}), limits=Limits(), progress=tell)
"""
    with subprocess.Popen([sys.executable, "-c", worker], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asleep\n"
        tree = descendants(process.pid)
        assert len(tree) >= 3  # zygote, supervisor, job
        process.kill()
    wait_until(lambda: not tree & set(parents()))


def test_closing_ends_everything(folder: Path) -> None:
    own = Zygote(steps=(FAKES,), preload=False)
    pid = own.wait_ready()["pid"]
    own.close()
    assert pid not in parents()


@pytest.mark.parametrize(("steps", "reason"), [("no_such_module", "No module named"), ("json", "no attribute 'STEPS'")])
def test_a_zygote_that_cannot_start_says_why(steps: str, reason: str) -> None:
    with Zygote(steps=(steps,), preload=False) as own, pytest.raises(SandboxError, match=reason):
        own.wait_ready()


def test_probes_are_blocked(zygote: Zygote) -> None:
    found = selfcheck.check(zygote)
    assert {name: found[name] for name in selfcheck.ACTS if not found[name].active} == {}
    assert selfcheck.problem(found) == ""


def test_an_open_door_is_a_problem() -> None:
    walls = {name: Layer(True) for name in FLOOR}
    sentence = selfcheck.problem(walls | {"start a program": Layer(False, "it worked")})
    assert "a job can start a program (it worked)" in sentence
    assert "seccomp (not reported)" in selfcheck.problem({name: Layer(True) for name in FLOOR[:-1]})


def check_sandbox(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_check_sandbox_shows_the_layers() -> None:
    done = check_sandbox("manage.py", "check_sandbox", "--json")
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["problem"]) == (0, "")
    assert all(shown["layers"][name]["active"] for name in FLOOR)
    assert all(probe["blocked"] for probe in shown["probes"].values())


def test_check_sandbox_exits_1_where_the_floor_is_missing() -> None:
    done = check_sandbox(*levels.BELOW_THE_FLOOR[1:], sys.executable, "manage.py", "check_sandbox")
    assert done.returncode == 1
    assert "landlock                     missing  the kernel has no Landlock" in done.stdout
    assert "Jobs are refused, because this machine cannot contain them: landlock" in done.stderr


def test_the_filter_names_its_own_process() -> None:
    program, mark = seccomp.compile_filter(), seccomp.OWN_PID.to_bytes(4, sys.byteorder)
    aligned = [at for at in range(0, len(program), 8) if program[at + 4 : at + 8] == mark]
    assert len(aligned) == program.count(mark) > 0


def test_disk_use_is_counted(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"\1" * MIB)
    (tmp_path / "link").symlink_to("/")
    assert MIB <= disk.used_bytes(str(tmp_path), 10) < 2 * MIB
    assert disk.used_bytes(str(tmp_path / "absent"), 0) == 0
    with open(tmp_path / "gone", "wb") as file:
        file.write(b"\1" * MIB)
        file.flush()
        os.unlink(file.name)
        assert disk.unlinked_bytes(os.getpid()) >= MIB


@pytest.mark.parametrize(
    ("count", "text"), [(512, "512 bytes"), (1536, "1.5 KiB"), (24 * MIB, "24 MiB"), (5 * MIB**2, "5 TiB")]
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("line", "data"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'{"a": NaN}', {"a": "NaN"}),
        (b"[]", None),
        (b"[" * 100_000, None),
        (b"\xff", None),
    ],
)
def test_lines_of_a_job_are_data(line: bytes, data: dict[str, Any] | None) -> None:
    assert pipes.parse(line) == data


def test_an_answer_that_nests_without_end_is_none() -> None:
    flat, deep = {"value": [{"a": [1, "x"]}]}, b'{"value": ' + b"[" * 200 + b"]" * 200 + b"}"
    assert pipes.parse(json.dumps(flat).encode()) == flat
    assert pipes.parse(deep) is None
