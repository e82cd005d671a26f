"""Consent to running a model's own code, attempts of files, and quarantine for good. The triggers of the quarantine
step aside, for SQLite makes its table anew."""

from importlib import import_module

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import models_app.models.fields

stays = import_module("models_app.migrations.0003_quarantine")


class Migration(migrations.Migration):
    dependencies = [
        ("models_app", "0008_worker_status"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunPython(stays.remove, stays.add),
        migrations.CreateModel(
            name="Attempt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("doing", models.CharField(max_length=100)),
                ("findings_data", models_app.models.fields.PlainJSONField(default=list)),
                ("at", models.DateTimeField(auto_now_add=True)),
                ("seen_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["-pk"],
            },
        ),
        migrations.CreateModel(
            name="Consent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("names", models_app.models.fields.PlainJSONField(default=list)),
                ("file_sha256", models.CharField(max_length=64)),
                ("code_sha256", models.CharField(blank=True, max_length=64)),
                ("given_at", models.DateTimeField(auto_now_add=True)),
                ("ended_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["-pk"],
            },
        ),
        migrations.RemoveConstraint(
            model_name="quarantine",
            name="quarantine_is_put_by_a_check_or_a_person",
        ),
        migrations.AddField(
            model_name="modelversion",
            name="code_sha256",
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name="modelversion",
            name="code_size",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="team",
            name="custom_code_allowed",
            field=models.BooleanField(default=False),
        ),
        migrations.AlterField(
            model_name="quarantine",
            name="cause",
            field=models.CharField(
                choices=[
                    ("differs", "it does not compute the same as its source"),
                    ("forbidden", "while it was opened, it tried what no model needs"),
                    ("altered", "its stored bytes are not those that were published"),
                    ("person", "somebody of its team put it there"),
                ],
                max_length=10,
            ),
        ),
        migrations.AddConstraint(
            model_name="quarantine",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("cause__in", ["differs", "forbidden", "altered"]), ("put_by__isnull", True)),
                    models.Q(("cause", "person"), ("put_by__isnull", False)),
                    _connector="OR",
                ),
                name="quarantine_is_put_by_a_check_or_a_person",
            ),
        ),
        migrations.AddField(
            model_name="attempt",
            name="seen_by",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="attempt",
            name="version",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="attempts", to="models_app.modelversion"
            ),
        ),
        migrations.AddField(
            model_name="consent",
            name="ended_by",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="consent",
            name="given_by",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="consent",
            name="version",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="consents", to="models_app.modelversion"
            ),
        ),
        migrations.AddConstraint(
            model_name="attempt",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("seen_at__isnull", True), ("seen_by__isnull", True)),
                    models.Q(("seen_at__isnull", False), ("seen_by__isnull", False)),
                    _connector="OR",
                ),
                name="attempt_is_seen_by_somebody",
            ),
        ),
        migrations.AddConstraint(
            model_name="consent",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_at__isnull", True)), fields=("version",), name="one_consent_at_a_time"
            ),
        ),
        migrations.AddConstraint(
            model_name="consent",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("ended_at__isnull", True), ("ended_by__isnull", True)),
                    models.Q(("ended_at__isnull", False), ("ended_by__isnull", False)),
                    _connector="OR",
                ),
                name="consent_is_ended_by_somebody",
            ),
        ),
        migrations.RunPython(stays.add, stays.remove),
    ]
