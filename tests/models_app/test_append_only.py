"""The history refuses to change: in the model, and below it in the database."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction

from models_app.models import SYSTEM, AuditEvent, Tag, Team, record
from models_app.models.audit import AppendOnly


@pytest.fixture
def event(team: Team) -> AuditEvent:
    return record(SYSTEM, Tag.VERSION_INSPECTED, team, "soup v1", findings=["x"])


def test_it_works(event: AuditEvent) -> None:
    kept = AuditEvent.objects.get(pk=event.pk)
    assert (kept.actor_name, kept.tag, kept.subject, kept.data) == (
        "larder",
        "version:inspected",
        "soup v1",
        {"findings": ["x"]},
    )


def test_model_refuses(event: AuditEvent) -> None:
    event.subject = "another"
    for change in (
        event.save,
        event.delete,
        lambda: AuditEvent.objects.update(subject="another"),
        AuditEvent.objects.all().delete,
        lambda: AuditEvent.objects.bulk_update([event], ["subject"]),
        lambda: AuditEvent.objects.bulk_create([event], update_conflicts=True),
    ):
        with pytest.raises(AppendOnly):
            change()


def test_a_known_key_cannot_overwrite(event: AuditEvent) -> None:
    with pytest.raises(DatabaseError), transaction.atomic():
        AuditEvent(pk=event.pk, actor_name="mallory", tag="x", subject="another").save()


@pytest.mark.parametrize(
    "statement", ["UPDATE models_app_auditevent SET subject = 'another'", "DELETE FROM models_app_auditevent"]
)
def test_database_refuses(event: AuditEvent, statement: str) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEvent.objects.get(pk=event.pk).subject == "soup v1"


def test_sqlite_refuses_to_replace(event: AuditEvent) -> None:
    """PostgreSQL has no INSERT OR REPLACE: its ON CONFLICT DO UPDATE is an update."""
    statement = (
        "INSERT OR REPLACE INTO models_app_auditevent (id, actor_name, tag, subject, subject_url, data, at) "
        "VALUES (%s, 'mallory', 'x', 'another', '', '{}', '2026-01-01')"
    )
    if connection.vendor == "sqlite":
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement, [event.pk])
    assert AuditEvent.objects.get(pk=event.pk).subject == "soup v1"


def test_postgresql_refuses_to_truncate(event: AuditEvent) -> None:
    """SQLite has no TRUNCATE: its DELETE without a condition is the statement above."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor, transaction.atomic():
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
                cursor.execute("TRUNCATE models_app_auditevent CASCADE")
    assert AuditEvent.objects.filter(pk=event.pk).exists()


def test_numbers_and_names_out_of_hostile_files_can_be_kept(team: Team) -> None:
    event = record(SYSTEM, Tag.VERSION_INSPECTED, team, "soup v1", name="a\0b\ud800", worst=float("nan"))
    event.refresh_from_db()
    assert event.data == {"name": "a�b?", "worst": "nan"}
