"""What a worker says of itself for the operator's page: its libraries, and its sandbox as it measured it, and when."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("models_app", "0007_samples_fit")]

    operations = [
        migrations.AddField("workernode", "versions", models.JSONField(default=dict)),
        migrations.AddField("workernode", "sandbox_probes", models.JSONField(default=dict)),
        migrations.AddField("workernode", "checked_at", models.DateTimeField(null=True)),
        migrations.AddField("workernode", "check_asked_at", models.DateTimeField(null=True)),
    ]
