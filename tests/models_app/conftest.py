"""Three people everywhere: alice owns the team, bob edits, vera only looks; charlie is outside."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.backends.base.operations import BaseDatabaseOperations
from django.test import Client
from pytest_django.fixtures import Settings

from models_app import storage
from models_app.actions import catalog, conversions, teams, uploads
from models_app.models import Actor, Artifact, Conversion, ModelVersion, Role, Team, Upload
from worker import tasks
from worker.formats._format import Summary, TensorSpec
from worker.report import Check, Finding, Report, Severity, Verdict

PASSWORD = "a long enough password"
SUMMARY = Summary(
    inputs=(TensorSpec("x", (None, 4), "float32"),),
    outputs=(TensorSpec("y", (None, 2), "float32"),),
    parameters=10,
    traits=frozenset({"keras-config", "weights"}),
)


def a_report(verdict: Verdict = Verdict.VERIFIED) -> Report:
    return Report(
        source="keras",
        target="h5",
        route=("keras", "h5"),
        verdict=verdict,
        reason="all checks passed",
        checks=(Check("values", verdict is Verdict.VERIFIED, "the outputs are the same", {"max": 0.0}),),
        findings=(Finding("optimizer-dropped", Severity.WARNING, "The optimizer's state is lost."),),
        versions={"keras": "3.15.1"},
        seed=7,
        seconds=0.3,
    )


def keras_file(text: str = "") -> bytes:
    """Bytes that are recognised as a Keras file; only its outside is one."""
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": f"sequential{text}", "layers": []}}
    metadata = {"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("metadata.json"), json.dumps(metadata))
        archive.writestr(zipfile.ZipInfo("config.json"), json.dumps(config))
        archive.writestr(zipfile.ZipInfo("model.weights.h5"), b"\x89HDF\r\n\x1a\n" + bytes(1000) + b"layers\0vars\0")
    return buffer.getvalue()


@dataclass
class Told:
    """What workers were told, instead of telling them."""

    messages: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, task: Any, row: Any) -> None:
        self.messages.append((task.name, str(row.pk)))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    recorder = Told()
    monkeypatch.setattr(tasks, "dispatch", recorder)
    return recorder


@pytest.fixture(scope="session", autouse=True)
def _emptying_the_history(django_db_setup: None) -> Iterator[None]:
    """Tests with threads commit, and the tables are emptied after them: for nothing else the triggers step aside."""
    triggers = [
        import_module(f"models_app.migrations.{name}") for name in ("0002_append_only_history", "0003_quarantine")
    ]
    execute = BaseDatabaseOperations.execute_sql_flush

    def flush(self: BaseDatabaseOperations, statements: list[str]) -> None:
        with self.connection.schema_editor() as editor:
            for each in triggers:
                each.remove(None, editor)
        execute(self, statements)
        with self.connection.schema_editor() as editor:
            for each in triggers:
                each.add(None, editor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseDatabaseOperations, "execute_sql_flush", flush)
        yield


@pytest.fixture(autouse=True)
def folders(settings: Settings, tmp_path: Path) -> None:
    """Every test has its own store."""
    for name in ("STORE_ROOT", "STAGING_ROOT", "JOBS_ROOT"):
        setattr(settings, name, tmp_path / name.lower())
    settings.FILE_UPLOAD_TEMP_DIR = settings.STAGING_ROOT
    storage.prepare()


def _user(name: str) -> User:
    return User.objects.create_user(name, f"{name}@example.org", PASSWORD)


@pytest.fixture
def alice(db: None) -> User:
    return _user("alice")


@pytest.fixture
def bob(db: None) -> User:
    return _user("bob")


@pytest.fixture
def vera(db: None) -> User:
    return _user("vera")


@pytest.fixture
def charlie(db: None) -> User:
    return _user("charlie")


@pytest.fixture
def team(alice: User, bob: User, vera: User, charlie: User) -> Team:
    found = teams.create_team(Actor.of(alice), "Kitchen")
    found.memberships.create(user=bob, role=Role.EDITOR)
    found.memberships.create(user=vera, role=Role.VIEWER)
    return found


@pytest.fixture
def upload(team: Team, alice: User) -> Callable[..., Upload]:
    def receive(name: str, content: bytes) -> Upload:
        return uploads.receive(Actor.of(alice), team, name, io.BytesIO(content), len(content))

    return receive


@pytest.fixture
def version(team: Team, alice: User, upload: Callable[..., Upload], told: Told) -> ModelVersion:
    """A Keras file that was uploaded and inspected."""
    found = catalog.add_version(Actor.of(alice), team, [upload("soup.keras", keras_file())], "Soup")
    ModelVersion.objects.filter(pk=found.pk).update(
        state=ModelVersion.State.INSPECTED, summary_data=SUMMARY.to_json(), attempt=1
    )
    found.refresh_from_db()
    return found


@pytest.fixture
def artifact(version: ModelVersion) -> Artifact:
    return version.source


@pytest.fixture
def store_bytes() -> Callable[[bytes], storage.Stored]:
    return lambda content: storage.receive(io.BytesIO(content), len(content), len(content), "bytes")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def client_of(user: User | None) -> Client:
    client = Client(headers={"host": "localhost"})
    if user:
        client.force_login(user)
    return client


@pytest.fixture
def as_alice(alice: User) -> Client:
    return client_of(alice)


@pytest.fixture
def as_bob(bob: User) -> Client:
    return client_of(bob)


@pytest.fixture
def as_vera(vera: User) -> Client:
    return client_of(vera)


@pytest.fixture
def as_charlie(charlie: User) -> Client:
    return client_of(charlie)


LONG = timedelta(days=7)
TARGET = "h5"


def request_conversion(version: ModelVersion, user: User, target: str = TARGET, **options: str) -> Conversion:
    return conversions.request_conversion(Actor.of(user), version, target, options)


def event_tags(team: Team) -> list[str]:
    """What the history says, oldest first, without what made the team."""
    return list(team.history.order_by("pk").exclude(tag="team:created").values_list("tag", flat=True))
