"""The digest of a version's weights, by which the same model is known in another format."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("models_app", "0004_samples")]

    operations = [
        migrations.AddField(
            model_name="modelversion",
            name="weights_sha256",
            field=models.CharField(blank=True, default="", max_length=64),
            preserve_default=False,
        ),
        migrations.AddIndex(
            model_name="modelversion",
            index=models.Index(
                condition=models.Q(("weights_sha256", ""), _negated=True),
                fields=["weights_sha256"],
                name="versions_by_weights",
            ),
        ),
    ]
