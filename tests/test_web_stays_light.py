"""The web process sees files, Summaries and routes, but never the libraries that read models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.stack import ROOT, clean_environment

HEAVY = ("tensorflow", "keras", "tf_keras", "h5py", "numpy")

# A person does everything that a person can do, on a team that has one thing of everything; then modules are counted.
SESSION = """
import io, json, sys
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("collectstatic", verbosity=0)

from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import get_resolver, reverse
import worker.celery, worker.tasks
from models_app.actions import conversions, sharing, teams
from models_app.models import SYSTEM, Actor, ModelVersion
from models_app.models.quarantine import Cause, put_in_quarantine
from tests.models_app.conftest import LONG, SUMMARY, a_report, keras_file

alice = User.objects.create_user("alice", is_staff=True)
actor = Actor.of(alice)
team = teams.create_team(actor, "Kitchen")
client = Client(headers={"host": "localhost"})
client.force_login(alice)
client.post("/t/kitchen/upload/", {"files": SimpleUploadedFile("soup.keras", keras_file())})
client.post("/t/kitchen/upload/", {"files": SimpleUploadedFile("soup.keras", b"no model")})
ModelVersion.objects.update(state="inspected", summary_data=SUMMARY.to_json())
version = ModelVersion.objects.get()
conversion = conversions.request_conversion(actor, version, "h5")
type(conversion).objects.update(report_data=a_report().to_json())
link, token = sharing.create_share_link(actor, version.source, LONG)
kept = version.artifacts.create(format="h5", name="soup-v1.h5", sha256="0" * 64, size=7, origin="converted")
put_in_quarantine(SYSTEM, kept, Cause.DIFFERS, "the outputs differ")
known = {"team": "kitchen", "model": version.model.slug, "number": 1, "name": version.source.name, "token": token}
keys = {"conversion": conversion.pk, "conversion-report": conversion.pk, "conversion-cancel": conversion.pk}
keys["quarantine"] = kept.pk
refused = []
for pattern in get_resolver().url_patterns[0].url_patterns:
    names = next(iter(get_resolver().reverse_dict.getlist(pattern.name)))[0][0][1]
    key = {"pk": keys.get(pattern.name, version.source.pk)}
    answer = client.get(reverse(pattern.name, kwargs={name: (known | key)[name] for name in names}))
    b"".join(answer)
    if answer.status_code not in (200, 302, 405) and pattern.name != "healthz":
        refused.append([pattern.name, answer.status_code])
heavy = sorted(name for name in sys.modules if name.split(".")[0] in %r)
print(json.dumps({"heavy": heavy, "refused": refused}))
"""


def test_it_works(tmp_path: Path) -> None:
    environment = clean_environment(DJANGO_SETTINGS_MODULE="project.settings", LARDER_DATA=str(tmp_path))
    command = [sys.executable, "-c", SESSION % (HEAVY,)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '{"heavy": [], "refused": []}', done.stdout
