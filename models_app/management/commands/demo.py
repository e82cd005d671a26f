"""`manage.py demo`: an account, a team and two sample models, so that the first start shows something."""

from __future__ import annotations

import json
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from models_app.actions import catalog, teams, uploads
from models_app.models import Actor, Team
from project.launcher.preflight import is_loopback
from project.walls import walls
from worker.errors import LarderError
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits

NAME = "demo"
WELL_KNOWN_PASSWORD = "larder-demo"  # noqa: S105 - shown on the sign-in page, and only set where nobody else can reach it
TEAM = "Demo kitchen"


@dataclass(frozen=True)
class Sample:
    """A model that the ``sample`` step makes."""

    kind: str
    format: str
    file: str
    name: str


SAMPLES = (
    Sample("dense", "keras", "sample-classifier.keras", "Sample classifier"),
    Sample("conv", "h5", "sample-image-classifier.h5", "Sample image classifier"),
)


@dataclass(frozen=True)
class Login:
    """The demo account. ``password`` is None where a person has chosen one."""

    password: str | None
    wants_samples: bool

    @property
    def is_shown(self) -> bool:
        """May the sign-in page tell it to everybody who sees that page?"""
        return self.password is not None and is_private()

    def __str__(self) -> str:
        return f"{NAME} / {self.password or 'the password that was chosen for it'}"


class Command(BaseCommand):
    help = "Makes the demo account, its team and two sample models, where they are missing."

    def handle(self, *args: Any, **options: Any) -> None:
        login = prepare_login(wanted=True)
        if login is None:
            raise CommandError("There is no demo account, and none is made where other accounts exist.")
        if login.wants_samples:
            self.make_samples()
        self.stdout.write(f"Sign in with {login}")

    def make_samples(self) -> None:
        try:
            make_samples(User.objects.get(username=NAME), Team.objects.get(name=TEAM))
        except LarderError as error:
            raise CommandError(f"The sample models could not be made. {error}") from None


def prepare_login(*, wanted: bool) -> Login | None:
    """The demo account, made where it is wanted and no other exists; wanted or not, its password is guarded."""
    if wanted and not User.objects.exists():
        create_account()
    user = User.objects.filter(username=NAME, is_active=True).first()
    if user is None:
        return None
    password = guarded_password(user)
    samples = Team.objects.filter(name=TEAM, memberships__user=user, models__isnull=True)
    return Login(password, wants_samples=samples.exists()) if wanted else None


@transaction.atomic
def create_account() -> None:
    """The demo account, which owns a team of its own."""
    teams.create_team(Actor.of(User.objects.create_user(NAME, password=WELL_KNOWN_PASSWORD)), TEAM)


def guarded_password(user: User) -> str | None:
    """The account's password where Larder set it: a random one as soon as others can reach the pages."""
    found = next((known for known in (kept_password(), WELL_KNOWN_PASSWORD) if user.check_password(known)), None)
    if found == WELL_KNOWN_PASSWORD and not is_private():
        found = secrets.token_urlsafe(12)
        keep(found)  # first, or a crash between the two would lock the account
        user.set_password(found)
        user.save(update_fields=["password"])
    elif found:
        keep(found)
    return found


def kept_password() -> str:
    """The password that was set last, for the sign-in page too."""
    file: Path = settings.DEMO_FILE
    return str(json.loads(file.read_text(encoding="utf-8"))["password"]) if file.exists() else ""


def keep(password: str) -> None:
    settings.DEMO_FILE.touch(mode=0o600)
    settings.DEMO_FILE.write_text(json.dumps({"username": NAME, "password": password}), encoding="utf-8")


def is_private() -> bool:
    """Do the settings say that only this machine reaches the pages? Behind a proxy they name its host, or HTTPS."""
    hosts = [settings.LARDER_BIND.rpartition(":")[0], *settings.ALLOWED_HOSTS]
    return not settings.HTTPS and all(is_loopback(host.strip("[]")) for host in hosts)


def make_samples(user: User, team: Team) -> None:
    """Let a job make each sample model, and upload it as a person would."""
    with Zygote(walls=walls()) as zygote:
        for sample in SAMPLES:
            with tempfile.TemporaryDirectory(dir=settings.JOBS_ROOT) as folder:
                upload_sample(Actor.of(user), team, sample, make_sample(zygote, sample, Path(folder)))


def make_sample(zygote: Zygote, sample: Sample, folder: Path) -> Path:
    path = folder / sample.file
    arguments = {"kind": sample.kind, "path": str(path), "format": sample.format}
    zygote.run("sample", arguments, read=[], folder=folder, limits=Limits())
    return path


def upload_sample(actor: Actor, team: Team, sample: Sample, path: Path) -> None:
    with path.open("rb") as file:
        upload = uploads.receive(actor, team, sample.file, file, path.stat().st_size)
    catalog.add_version(actor, team, [upload], name=sample.name)
