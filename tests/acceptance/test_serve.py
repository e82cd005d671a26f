"""The one command: what it prints, what it starts, how it ends, and what it says where it cannot start."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import ROOT, Stack, clean_environment, wait_until_gone

SECOND_START_SECONDS = 10


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def running(data: Path) -> Iterator[Stack]:
    """A Larder of this test's own, without the demo, whose samples take some seconds to make."""
    with Stack(data, {"LARDER_DEMO": "0"}) as started:
        yield started


def status_of(stack: Stack, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def refuse(data: Path, **environment: str) -> str:
    """Start Larder where it cannot; returns what it printed after the first line."""
    refused = Stack(data, environment).start()
    assert refused.wait() == 1, refused.output
    assert "Traceback" not in refused.output
    return refused.output


def test_it_works(stack: Stack) -> None:
    """The shared one, which has its demo."""
    assert status_of(stack, "/healthz") == 200
    assert f"Address  {stack.url}/" in stack.output
    assert stack.login == ("demo", "larder-demo")
    assert str(stack.data) in stack.output


def test_samples_are_there_after_the_first_start(stack: Stack) -> None:
    samples = "V.objects.filter(model__name__startswith='Sample').exclude(state='unreadable')"
    count = f"from models_app.models import ModelVersion as V; print({samples}.count())"
    assert stack.manage("shell", "--verbosity", "0", "-c", count).strip() == "2"


def test_second_start_is_quick_and_the_end_leaves_nobody_behind(data: Path) -> None:
    seconds = []
    for end in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        with Stack(data, {"LARDER_DEMO": "0"}) as running:
            assert status_of(running, "/healthz") == 200
            seconds.append(running.ready_after)
            family = running.descendants()
            running.process.send_signal(end)
            assert running.wait() == 0
        assert running.output.endswith("Stopped.\n")
        assert len(family) >= 6  # launcher, redis, web and its worker, Celery, its zygote
        assert wait_until_gone(family) == []
    assert min(seconds[1:]) < SECOND_START_SECONDS  # the quicker of two: other work on the machine only adds


def test_everything_is_written_in_the_data_folder_and_private(stack: Stack) -> None:
    assert stat.S_IMODE(stack.data.stat().st_mode) & 0o077 == 0
    assert {"larder.sqlite3", "logs", "secret-key", "store", "static"} <= set(os.listdir(stack.data))
    assert [path.name for path in stack.data.iterdir() if path.stat().st_mode & 0o077] == []


def test_kill_9_of_the_launcher_leaves_nobody_behind(running: Stack) -> None:
    family = running.descendants()
    running.process.kill()
    running.wait()
    assert wait_until_gone(family) == []


@pytest.mark.parametrize("name", ["redis", "worker", "web"])
def test_child_that_dies_stops_the_rest_with_its_log_shown(running: Stack, name: str) -> None:
    family = running.descendants()
    os.kill(running.child(name), signal.SIGKILL)
    assert running.wait() == 1
    assert f"The {name} process was killed by SIGKILL. The end of its log" in running.output
    assert f"{name}.log" in running.output
    assert wait_until_gone(family) == []


def test_taken_port_is_a_sentence(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refuse(data, LARDER_BIND=bind)
    assert said == (
        f"Port {bind[10:]} is taken: another program listens on {bind}. Set LARDER_BIND to another address:port.\n"
    )


def test_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refuse(tmp_path / "file")
    assert said.startswith(f"The data folder {tmp_path}/file cannot be written: ")
    assert len(said.splitlines()) == 1


def test_second_larder_on_one_folder_is_a_sentence(stack: Stack) -> None:
    assert f"Larder already runs on {stack.data} (process {stack.process.pid})." in refuse(stack.data)
    assert status_of(stack, "/healthz") == 200


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("LARDER_BIND", "8000", "LARDER_BIND is '8000': expected an address and a port, such as 127.0.0.1:8000."),
        ("LARDER_MAX_UPLOAD_MB", "4GB", "LARDER_MAX_UPLOAD_MB is '4GB': expected a whole number."),
        ("DATABASE_URL", "mysql://x", "DATABASE_URL is 'mysql://x': expected postgres://"),
        ("DATABASE_URL", "postgres://127.0.0.1:1/x", "The database cannot be used: connection failed"),
        ("REDIS_URL", "redis://127.0.0.1:1", "REDIS_URL names a Redis that does not answer"),
    ],
)
def test_setting_that_makes_no_sense_is_a_sentence(data: Path, name: str, value: str, sentence: str) -> None:
    assert sentence in refuse(data, **{name: value})


def test_well_known_password_is_replaced_before_others_can_reach_the_pages(data: Path) -> None:
    """The first start was private and made the account with it; this one is not."""
    Stack(data).prepare()
    with Stack(data, {"LARDER_HOSTS": "127.0.0.1,larder.example.org"}) as public:
        name, password = public.login
    assert name == "demo"
    assert password != "larder-demo"
    assert len(password) >= 16
    assert "Making two sample models …" in public.output
    assert "demo process" not in public.output
    assert stat.S_IMODE((data / "demo-login.json").stat().st_mode) == 0o600


def serve(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/serve where it cannot even begin: ``path`` comes first on the PATH."""
    search = f"{path}:/usr/bin:/bin"
    command = ["scripts/serve"]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environment(PATH=search, **environment),
        capture_output=True,
        text=True,
        check=False,
    )


def pretend(folder: Path, name: str, says: str) -> None:
    """A program that prints one thing, whatever it is asked."""
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def test_python_that_is_too_old_is_a_sentence(tmp_path: Path) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        pretend(tmp_path, name, "3.9")
    done = serve(tmp_path, LARDER_VENV=str(tmp_path / "venv"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "Larder needs Python 3.11, 3.12 or 3.13; found only Python 3.9 (python3). "
        "Install one, or name one in LARDER_PYTHON.\n"
    )


def test_full_disk_is_a_sentence_before_anything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    pretend(tmp_path / "bin", "df", "head\nx 1 1 1000000 1% /")
    done = serve(tmp_path / "bin", LARDER_VENV=str(tmp_path / "venv"), LARDER_PYTHON=sys.executable)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Installing Larder needs 6 GB of free disk; {tmp_path}/venv has 976 MB.")
    assert os.listdir(tmp_path / "venv") == []


def test_folder_of_other_things_is_not_made_a_virtual_environment(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    done = serve(tmp_path, LARDER_VENV=str(tmp_path), LARDER_PYTHON=sys.executable)
    assert done.returncode == 1
    assert "holds other things than a virtual environment" in done.stderr
    assert os.listdir(tmp_path) == ["precious"]
