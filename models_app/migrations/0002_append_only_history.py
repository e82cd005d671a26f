"""The database itself refuses to change or empty the history, whoever asks."""

from __future__ import annotations

from typing import Any

from django.db import migrations

TABLE = "models_app_auditevent"

SQLITE = {
    f"CREATE TRIGGER history_no_{verb.lower()} BEFORE {verb} ON {TABLE} "
    f"BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END": f"DROP TRIGGER history_no_{verb.lower()}"
    for verb in ("UPDATE", "DELETE")
} | {
    # INSERT OR REPLACE deletes the old row without telling the trigger on DELETE.
    f"CREATE TRIGGER history_no_replace BEFORE INSERT ON {TABLE} WHEN EXISTS (SELECT 1 FROM {TABLE} WHERE id = NEW.id) "  # noqa: S608 (a constant)
    f"BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END": "DROP TRIGGER history_no_replace"
}
POSTGRESQL = {
    "CREATE FUNCTION history_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the history is append-only'; END $$": "DROP FUNCTION history_refuse()",
    f"CREATE TRIGGER history_no_change BEFORE UPDATE OR DELETE ON {TABLE} "
    f"FOR EACH ROW EXECUTE FUNCTION history_refuse()": f"DROP TRIGGER history_no_change ON {TABLE}",
    f"CREATE TRIGGER history_no_truncate BEFORE TRUNCATE ON {TABLE} "
    f"FOR EACH STATEMENT EXECUTE FUNCTION history_refuse()": f"DROP TRIGGER history_no_truncate ON {TABLE}",
}
TRIGGERS = {"sqlite": SQLITE, "postgresql": POSTGRESQL}


def add(apps: Any, editor: Any) -> None:
    for statement in TRIGGERS[editor.connection.vendor]:
        editor.execute(statement)


def remove(apps: Any, editor: Any) -> None:
    for statement in reversed(TRIGGERS[editor.connection.vendor].values()):
        editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("models_app", "0001_initial")]
    operations = [migrations.RunPython(add, remove)]
