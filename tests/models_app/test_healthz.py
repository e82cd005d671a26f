"""Is all well?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from models_app.models import WorkerNode
from tests.models_app.conftest import client_of
from worker import celery


@pytest.fixture
def anybody(db: None) -> Client:
    return client_of(None)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> None:
    class Channel:
        default_channel: Any = None

        def close(self) -> None: ...

    @contextmanager
    def connect(**options: Any) -> Iterator[Channel]:
        found = Channel()
        found.default_channel = found
        yield found

    monkeypatch.setattr(celery.app, "connection_for_write", connect)


@pytest.fixture
def worker(db: None) -> WorkerNode:
    return WorkerNode.objects.create(name="vm:1", seen_at=timezone.now())


def test_it_works(anybody: Client, broker: None, worker: WorkerNode) -> None:
    answer = anybody.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"web": True, "database": True, "broker": True, "worker": True})


def test_silent_worker(anybody: Client, broker: None, worker: WorkerNode) -> None:
    WorkerNode.objects.update(seen_at=timezone.now() - timedelta(seconds=61))
    answer = anybody.get("/healthz")
    assert (answer.status_code, answer.json()["worker"]) == (503, False)


def test_broker_that_is_away(anybody: Client, worker: WorkerNode) -> None:
    """The tests' own data folder has no socket."""
    answer = anybody.get("/healthz")
    assert (answer.status_code, answer.json()["broker"]) == (503, False)


def test_database_that_is_away(
    anybody: Client, broker: None, worker: WorkerNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OSError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(connection, "cursor", away)
        answer = anybody.get("/healthz")
    assert (answer.status_code, answer.json()["database"], answer.json()["worker"]) == (503, False, False)
