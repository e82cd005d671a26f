"""What a job tries in Python is named, whatever came of it; what honest code does is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worker.test_sandbox import run
from worker import culprit, pipeline, signatures
from worker.errors import Canceled, Crashed, Forbidden, from_json
from worker.formats._format import Signature, Summary, TensorSpec
from worker.proving import Proof, Source
from worker.report import Severity, findings_from_json
from worker.sandbox.attempts import KINDS, LONGEST_DETAIL, Attempt, forbidden, heard
from worker.sandbox.audit import MAX_EVENTS, Watch
from worker.sandbox.client import Zygote
from worker.sandbox.endings import Ending, judge
from worker.sandbox.layers import REPOSITORY
from worker.sandbox.limits import Limits
from worker.sandbox.request import Program, Request
from worker.work import Work

Told = list[tuple[str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "job"
    made.mkdir()
    return made


def told(folder: Path, *events: tuple[Any, ...], read: Sequence[str] = (), program: Program | None = None) -> Told:
    """What of these audit events is told to the worker, by a job that runs in ``folder``."""
    found: Told = []
    request = Request("x", {}, tuple(read), str(folder), Limits(), program=program)
    watch = Watch(request, lambda kind, detail: found.append((kind, detail)), {"os.exec"} if program else ())
    before = os.getcwd()
    os.chdir(folder)
    try:
        for name, *arguments in events:
            watch(name, tuple(arguments))
    finally:
        os.chdir(before)
    return found


def test_it_works(zygote: Zygote, folder: Path, tmp_path: Path) -> None:
    """A job that tries many things and answers well is refused, and each thing is a finding of its own."""
    with pytest.raises(Forbidden) as caught:
        run(zygote, folder, "attempt-all", outside=str(tmp_path / "outside"))
    assert "read /etc/passwd" in caught.value.message
    findings = findings_from_json(caught.value.details["attempts"])
    assert {item.severity for item in findings} == {Severity.DANGER}
    assert {item.code for item in findings} == {f"tried-{kind}" for kind in TRIED_IN_PYTHON}
    sentences = " ".join(item.sentence for item in findings)
    for words in ("/etc/passwd", str(tmp_path / "outside"), "foreign.so", "true", "127.0.0.1"):
        assert words in sentences


TRIED_IN_PYTHON = ("program", "process", "network", "read", "write", "library", "signal")


def test_what_the_kernel_stops_below_python_is_forbidden_too(zygote: Zygote, folder: Path) -> None:
    with pytest.raises(Forbidden) as caught:
        run(zygote, folder, "trace")
    assert [item["code"] for item in caught.value.details["attempts"]] == ["tried-call"]


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("start-program-below-python", "process"),
        ("call-home-below-python", "network"),
        ("start-program-unheard", "process"),
    ],
)
def test_code_that_somebody_agreed_to_run_is_heard_by_the_kernel(
    zygote: Zygote, folder: Path, step: str, kind: str
) -> None:
    """It can take out what listens in Python, and go round it."""
    with pytest.raises(Forbidden) as caught:
        run(zygote, folder, step, consent={"file": None})
    assert [item["code"] for item in caught.value.details["attempts"]] == [f"tried-{kind}"]


def test_honest_code_that_somebody_agreed_to_run_starts_threads(zygote: Zygote, folder: Path) -> None:
    assert run(zygote, folder, "start-threads", consent={"file": None}).value == {"threads": 8}


def test_what_a_job_says_that_it_tried_has_an_end() -> None:
    """It need not come from what listens: whatever writes into the pipe may say it."""
    events = [{"event": "read", "detail": f"/etc/{number}"} for number in range(10_000)]
    with pytest.raises(Forbidden) as caught:
        judge(Ending(events=[*events, *events]), Limits())
    assert len(caught.value.details["attempts"]) == MAX_EVENTS


@pytest.mark.parametrize(
    ("event", "kind", "detail"),
    [
        (("open", "/etc/passwd", "r", 0), "read", "/etc/passwd"),
        (("open", b"/etc/passwd", None, os.O_RDONLY), "read", "/etc/passwd"),
        (("open", "../neighbour", "r", 0), "read", "neighbour"),
        (("open", "/proc/1/environ", "r", 0), "read", "/proc/1/environ"),
        (("open", str(REPOSITORY / ".env"), "r", 0), "read", ".env"),
        (("open", str(REPOSITORY / "manage.py"), "r", 0), "read", "manage.py"),
        (("os.listdir", "/etc"), "read", "/etc"),
        (("os.scandir", "/home"), "read", "/home"),
        (("os.symlink", "/etc/shadow", "inner", -1), "read", "/etc/shadow"),
        (("os.symlink", "../../../../../../../etc/shadow", "inner", -1), "read", "/etc/shadow"),
        (("open", "/etc/cron.d/x", "w", 0), "write", "/etc/cron.d/x"),
        (("open", "/usr/lib/x.py", None, os.O_WRONLY | os.O_CREAT), "write", "/usr/lib/x.py"),
        (("open", sys.prefix + "/x.pth", "a", 0), "write", "x.pth"),
        (("open", "/proc/self/mem", "r+b", 0), "write", "/proc/self/mem"),
        (("os.remove", "/tmp/x", -1), "write", "/tmp/x"),
        (("os.rename", "own", "/tmp/x", -1, -1), "write", "/tmp/x"),
        (("os.rename", "/tmp/x", "own", -1, -1), "write", "/tmp/x"),
        (("os.mkdir", "/tmp/x", 0o777, -1), "write", "/tmp/x"),
        (("os.chmod", "/etc/passwd", 0o777, -1), "write", "/etc/passwd"),
        (("sqlite3.connect", "/tmp/x.db"), "write", "/tmp/x.db"),
        (("ctypes.dlopen", "/tmp/evil.so"), "library", "/tmp/evil.so"),
        (("ctypes.dlopen", "./evil.so"), "library", "evil.so"),
        (("import", "evil", "/tmp/evil.so", None, None, None), "library", "/tmp/evil.so"),
        (("os.system", b"sh -c x"), "program", "sh -c x"),
        (("subprocess.Popen", "/bin/sh", ["sh"], None, None), "program", "/bin/sh"),
        (("os.exec", "/bin/sh", ["sh"], {}), "program", "/bin/sh"),
        (("os.fork",), "process", ""),
        (("socket.__new__", object(), 2, 1, 0), "network", "2"),
        (("socket.connect", object(), ("127.0.0.1", 80)), "network", "127.0.0.1"),
        (("urllib.Request", "http://x/", None, {}, "GET"), "network", "http://x/"),
        (("os.kill", 1, 9), "signal", "1"),
        (("os.killpg", 0, 9), "signal", "0"),
    ],
    ids=str,
)
def test_attempts_are_told(folder: Path, event: tuple[Any, ...], kind: str, detail: str) -> None:
    found = told(folder, event)
    assert [found[0][0], detail in found[0][1]] == [kind, True]


HONEST = [
    ("open", "own", "w", 0),
    ("open", "inner/../own", "r", 0),
    ("open", 3, "r", 0),
    ("open", "/dev/urandom", "rb", 0),
    ("open", "/dev/null", "r+", os.O_RDWR),
    ("open", "/proc/self/status", "r", 0),
    ("open", f"/proc/{os.getpid()}/statm", "r", 0),
    ("open", "/proc/meminfo", "r", 0),
    ("open", "/sys/devices/system/cpu/online", "r", 0),
    ("open", "/usr/share/zoneinfo/UTC", "rb", 0),
    ("open", os.__file__, "rb", 0),
    ("open", pytest.__file__, "rb", 0),
    ("open", str(REPOSITORY / "worker" / "steps.py"), "r", 0),
    ("open", str(REPOSITORY / "tests" / "worker" / "test_audit.py"), "r", 0),  # a module that runs, for a traceback
    ("open", object(), "r", 0),
    ("os.listdir", None),
    ("os.listdir", "."),
    ("os.listdir", str(REPOSITORY)),  # looked into for modules, and then opened as if it were a zip file
    ("open", str(REPOSITORY), "rb", 0),
    ("os.scandir", sys.prefix),
    ("os.remove", "own", -1),
    ("os.rename", "own", "other", -1, -1),
    ("os.symlink", "own", "link", -1),
    ("os.kill", os.getpid(), 9),
    ("ctypes.dlopen", None),
    ("ctypes.dlopen", "libc.so.6"),
    ("ctypes.dlopen", sys.prefix + "/lib/python3/site-packages/x/libx.so"),
    ("import", "json", None, [], [], []),
    ("import", "_ssl", sys.prefix + "/lib/x.so", None, None, None),
    ("marshal.loads", b"x"),
    ("pickle.find_class", "os", "system"),
    ("compile", b"1", "<string>"),
]


@pytest.mark.parametrize("event", HONEST, ids=str)
def test_honest_acts_are_not_told(folder: Path, event: tuple[Any, ...]) -> None:
    assert told(folder, event) == []


def test_what_was_given_may_be_read_and_not_written(folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.touch()
    (folder / "model.h5").symlink_to(given)
    events = [("open", str(given), "rb", 0), ("open", "model.h5", "rb", 0)]
    assert told(folder, *events, read=[str(given)]) == []
    assert told(folder, ("open", str(given), "ab", 0), read=[str(given)]) == [("write", str(given))]


def test_a_program_that_the_worker_named_is_expected(folder: Path) -> None:
    program = Program(("/opt/node",), {})
    assert told(folder, ("os.exec", "/opt/node", [], {}), ("open", "/opt/node", "rb", 0), program=program) == []


def test_the_same_is_told_once_and_not_without_end(folder: Path) -> None:
    assert len(told(folder, *[("os.system", b"x")] * 3)) == 1
    many = [("open", f"/etc/{number}", "r", 0) for number in range(3 * MAX_EVENTS)]
    assert len(told(folder, *many)) == MAX_EVENTS


def test_words_of_a_job_are_cut_and_cleaned() -> None:
    found = heard({"event": "read", "detail": "/etc/\x1b[31m\u202e\n" + "x" * 1000})
    assert found is not None
    assert len(found.detail) == LONGEST_DETAIL
    assert found.detail.isprintable()
    assert heard({"event": "no such kind", "detail": "x"}) is None
    assert heard({"event": ["program"]}) is None
    assert "{0.__class__}" in Attempt("read", "{0.__class__}").finding.sentence


def test_every_kind_survives_the_way_to_the_database() -> None:
    error = forbidden([Attempt(kind, "x") for kind in KINDS])
    again = from_json(error.to_json())
    assert again.message == error.message
    assert len(findings_from_json(again.details["attempts"])) == len(KINDS)


class Caught:
    """Jobs that all try something."""

    def run(self, step: str, arguments: dict[str, Any], **_: Any) -> Any:
        raise forbidden([Attempt("program", "sh")])


def test_no_conversion_goes_round_an_attempt(tmp_path: Path) -> None:
    """What is only tried, as an alive twin or another signature, may fail; but not so."""
    (tmp_path / "model").touch()
    beside = tmp_path / "beside"
    beside.mkdir()
    work = Work(Caught(), tmp_path, Limits(), seed=1)
    signature = Signature("serve", (TensorSpec("x", (1,), "float32"),), ())
    summary = Summary(traits=frozenset({"keras-config"}), signatures=(signature, replace(signature, name="other")))
    source = Source(tmp_path / "model", "keras", summary)
    proof = Proof(work, source, ("keras", "saved_model"), {}, tmp_path)
    attempts: list[Callable[[], object]] = [
        lambda: pipeline._twin_agrees(proof),
        lambda: pipeline._signatures_held(proof, source.path),
        lambda: signatures.look(replace(work, folder=beside), replace(source, format="saved_model")),
        lambda: culprit._try(work, {"source_format": "keras", "target": "x"}, [source.path], Crashed, 0),
    ]
    for attempt in attempts:
        with pytest.raises(Forbidden):
            attempt()


def test_whoever_cancels_hides_no_attempt() -> None:
    ending = Ending(reason="canceled", events=[{"event": "program", "detail": "sh"}])
    with pytest.raises(Forbidden):
        judge(ending, Limits())
    ending.events.clear()
    with pytest.raises(Canceled):
        judge(ending, Limits())
