"""The operator's page: staff alone, and what the workers measured."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from models_app.models import WorkerNode
from tests.models_app.conftest import client_of
from worker import runtime, tasks

URL, CHECK = "/status/", "/status/check/"
LAYERS = {
    "seccomp": {"active": True, "detail": "allow-list of 152 calls", "by": ""},
    "supervisor": {"active": False, "detail": "no /proc", "by": ""},
    "cgroup": {"active": False, "detail": "not handed over", "by": ""},
}
PROBES = {
    "start a program": {"active": True, "detail": "refused: EPERM", "by": "seccomp"},
    "open a TCP connection": {"active": False, "detail": "it worked", "by": ""},
}


@pytest.fixture
def node(db: None) -> WorkerNode:
    now = timezone.now()
    said = {"versions": {"tensorflow": "2.21.0"}, "sandbox_layers": LAYERS, "sandbox_probes": PROBES}
    return WorkerNode.objects.create(name="host:7", seen_at=now, checked_at=now - timedelta(hours=3), **said)


@pytest.fixture
def staff(db: None) -> Client:
    return client_of(User.objects.create_user("olga", is_staff=True))


def text_of(client: Client) -> str:
    return " ".join(client.get(URL).content.decode().split())


def test_it_works(staff: Client, node: WorkerNode) -> None:
    page = text_of(staff)
    for said in ("host:7", "2.21.0", "3 hours ago", "start a program", "refused: EPERM", "<code>seccomp</code>"):
        assert said in page
    assert "1 of the probes got through" in page
    assert page.count("badge good") == 2
    assert page.count("badge bad") == 2  # the open probe, and a missing part of the floor
    assert page.count("badge warn") == 1
    assert "hx-get" not in page


@pytest.mark.parametrize("address", [URL, CHECK])
def test_others_find_nothing(as_alice: Client, address: str) -> None:
    response = as_alice.post(address) if address == CHECK else as_alice.get(address)
    assert response.status_code == 404
    assert "/status/" not in as_alice.get("/why-not-pickle/").content.decode()


def test_staff_find_the_page(staff: Client) -> None:
    assert 'href="/status/"' in staff.get("/why-not-pickle/").content.decode()


def test_without_workers(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "wake_for_check", lambda: None)
    WorkerNode.objects.create(name="gone", seen_at=timezone.now() - timedelta(hours=1))
    assert "No worker is running" in text_of(staff)
    assert "nothing to check" in staff.post(CHECK, follow=True).content.decode()


def test_a_problem_is_said(staff: Client, node: WorkerNode) -> None:
    WorkerNode.objects.update(sandbox_problem="Jobs are refused.")
    assert "Jobs are refused." in text_of(staff)


def test_check_again(staff: Client, node: WorkerNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row is marked, one worker is woken, each tries its sandbox out and writes down when; until then the page
    asks again."""
    woken: list[int] = []
    monkeypatch.setattr(tasks.check_sandbox, "apply_async", lambda **how: woken.append(1))
    monkeypatch.setattr(tasks, "_node_name", lambda: node.name)
    monkeypatch.setattr(tasks, "close_old_connections", lambda: None)  # it is the test's own, too
    staff.post(CHECK)
    assert woken == [1]
    page = text_of(staff)
    assert "being tried out" in page
    assert 'hx-trigger="every 2s"' in page
    asked: list[int] = []
    monkeypatch.setattr(runtime, "check_again", lambda: asked.append(1))
    tasks.check_sandbox()
    assert asked == [1]
    monkeypatch.setattr(runtime.runtime, "checked_at", timezone.now())
    tasks.check_sandbox()
    assert asked == [1]
    assert "hx-get" not in text_of(staff)


def test_without_a_broker_the_worker_finds_out_itself(
    staff: Client, node: WorkerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: object) -> None:
        raise ConnectionError("no broker")

    monkeypatch.setattr(tasks.check_sandbox, "apply_async", away)
    assert staff.post(CHECK).status_code == 302
    node.refresh_from_db()
    assert node.is_check_due


def test_what_is_being_checked_is_not_checked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    own = runtime.Runtime(zygote=object())  # type: ignore[arg-type]
    monkeypatch.setattr(runtime, "runtime", own)
    begun: list[object] = []
    monkeypatch.setattr(runtime, "_check", begun.append)
    runtime.check_again()
    assert begun == []  # the first one has not ended
    own.checked.set()
    with own.checking:
        runtime.check_again()
    assert begun == []
    runtime.check_again()
    assert begun == [own.zygote]
