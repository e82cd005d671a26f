"""The account of the first start: there for whoever tries Larder, and never a door for anybody else."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django.fixtures import Settings

from models_app.management.commands import demo
from models_app.models import AuditEvent, Role, Tag, Team

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_machine(settings: Settings, tmp_path: Path) -> None:
    """The default: only this machine reaches the pages. Django's test runner has added a host name."""
    settings.DEMO_FILE = tmp_path / "demo-login.json"
    settings.ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]


def test_it_works(settings: Settings) -> None:
    login = demo.prepare_login(wanted=True)
    assert login == demo.Login("larder-demo", wants_samples=True)
    assert login.is_shown
    assert str(login) == "demo / larder-demo"
    team = Team.objects.get(name="Demo kitchen")
    assert team.role_of(User.objects.get(username="demo")) == Role.OWNER
    assert AuditEvent.objects.filter(team=team, tag=Tag.TEAM_CREATED).count() == 1
    assert stat.S_IMODE(settings.DEMO_FILE.stat().st_mode) == 0o600


def test_second_start_changes_nothing() -> None:
    demo.prepare_login(wanted=True)
    assert demo.prepare_login(wanted=True) == demo.Login("larder-demo", wants_samples=True)
    assert User.objects.count() == Team.objects.count() == 1


def test_samples_are_made_once(django_user_model: type[User]) -> None:
    demo.prepare_login(wanted=True)
    Team.objects.get().models.create(slug="any", name="Any")
    assert demo.prepare_login(wanted=True) == demo.Login("larder-demo", wants_samples=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LARDER_BIND", "0.0.0.0:8000"),
        ("ALLOWED_HOSTS", ["larder.example.org"]),
        ("ALLOWED_HOSTS", ["*"]),
        ("HTTPS", True),
    ],
)
def test_password_is_random_where_others_reach_the_pages(settings: Settings, name: str, value: object) -> None:
    demo.prepare_login(wanted=True)
    setattr(settings, name, value)
    login = demo.prepare_login(wanted=True)
    assert login
    assert login.password not in (None, "larder-demo")
    assert not login.is_shown
    assert User.objects.get().check_password(str(login.password))
    assert demo.prepare_login(wanted=True) == login


def test_account_that_is_not_wanted_any_more_is_guarded_too(settings: Settings) -> None:
    demo.prepare_login(wanted=True)
    settings.LARDER_BIND = "0.0.0.0:8000"
    assert demo.prepare_login(wanted=False) is None
    assert not User.objects.get().check_password("larder-demo")


def test_password_that_a_person_chose_is_not_touched(settings: Settings) -> None:
    demo.prepare_login(wanted=True)
    user = User.objects.get()
    user.set_password("chosen by a person")
    user.save()
    settings.LARDER_BIND = "0.0.0.0:8000"
    login = demo.prepare_login(wanted=True)
    assert login
    assert str(login) == "demo / the password that was chosen for it"
    assert User.objects.get().check_password("chosen by a person")


def test_no_account_is_made_where_others_exist_or_none_is_wanted(django_user_model: type[User]) -> None:
    assert demo.prepare_login(wanted=False) is None
    django_user_model.objects.create_user("alice")
    assert demo.prepare_login(wanted=True) is None
    with pytest.raises(CommandError, match="none is made where other accounts exist"):
        call_command("demo")
