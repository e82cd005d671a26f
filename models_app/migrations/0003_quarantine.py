"""Quarantine, and triggers so that the database itself keeps what a file carries for ever, whoever asks."""

from __future__ import annotations

from typing import Any

import django.db.models.deletion
import django.db.models.functions.text
import django.db.models.lookups
from django.conf import settings
from django.db import migrations, models

TABLE = "models_app_quarantine"
REFUSAL = "a release is for ever"

SQLITE = {
    f"CREATE TRIGGER release_no_change BEFORE UPDATE ON {TABLE} WHEN OLD.released_at IS NOT NULL "
    f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END": "DROP TRIGGER release_no_change",
    f"CREATE TRIGGER quarantine_no_delete BEFORE DELETE ON {TABLE} "
    f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END": "DROP TRIGGER quarantine_no_delete",
    # INSERT OR REPLACE deletes the old row without telling the trigger on DELETE.
    f"CREATE TRIGGER quarantine_replace BEFORE INSERT ON {TABLE} WHEN EXISTS (SELECT 1 FROM {TABLE} WHERE id = NEW.id) "  # noqa: S608
    f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END": "DROP TRIGGER quarantine_replace",
}
POSTGRESQL = {
    "CREATE FUNCTION release_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$": "DROP FUNCTION release_refuse()",
    f"CREATE TRIGGER release_no_change BEFORE UPDATE ON {TABLE} FOR EACH ROW WHEN (OLD.released_at IS NOT NULL) "
    f"EXECUTE FUNCTION release_refuse()": f"DROP TRIGGER release_no_change ON {TABLE}",
    f"CREATE TRIGGER quarantine_no_delete BEFORE DELETE ON {TABLE} "
    f"FOR EACH ROW EXECUTE FUNCTION release_refuse()": f"DROP TRIGGER quarantine_no_delete ON {TABLE}",
    f"CREATE TRIGGER quarantine_no_truncate BEFORE TRUNCATE ON {TABLE} "
    f"FOR EACH STATEMENT EXECUTE FUNCTION release_refuse()": f"DROP TRIGGER quarantine_no_truncate ON {TABLE}",
}
TRIGGERS = {"sqlite": SQLITE, "postgresql": POSTGRESQL}


def add(apps: Any, editor: Any) -> None:
    for statement in TRIGGERS[editor.connection.vendor]:
        editor.execute(statement)


def remove(apps: Any, editor: Any) -> None:
    for statement in reversed(TRIGGERS[editor.connection.vendor].values()):
        editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [
        ("models_app", "0002_append_only_history"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Quarantine",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "cause",
                    models.CharField(
                        choices=[
                            ("differs", "it does not compute the same as its source"),
                            ("altered", "its stored bytes are not those that were published"),
                            ("person", "somebody of its team put it there"),
                        ],
                        max_length=10,
                    ),
                ),
                ("reason", models.CharField(max_length=1000)),
                ("since", models.DateTimeField(auto_now_add=True)),
                ("released_at", models.DateTimeField(null=True)),
                ("release_reason", models.CharField(blank=True, max_length=1000)),
                (
                    "artifact",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="quarantines",
                        to="models_app.artifact",
                    ),
                ),
                (
                    "put_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "released_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("released_at__isnull", True)),
                        fields=("artifact",),
                        name="one_open_quarantine_per_file",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("release_reason", ""), ("released_at__isnull", True), ("released_by__isnull", True)
                            ),
                            models.Q(
                                ("released_at__isnull", False),
                                ("released_by__isnull", False),
                                django.db.models.lookups.GreaterThanOrEqual(
                                    django.db.models.functions.text.Length("release_reason"), 10
                                ),
                            ),
                            _connector="OR",
                        ),
                        name="release_has_person_time_and_reason",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("cause__in", ["differs", "altered"]), ("put_by__isnull", True)),
                            models.Q(("cause", "person"), ("put_by__isnull", False)),
                            _connector="OR",
                        ),
                        name="quarantine_is_put_by_a_check_or_a_person",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("reason", ""), _negated=True), name="quarantine_says_why"
                    ),
                ],
            },
        ),
        migrations.RunPython(add, remove),
    ]
