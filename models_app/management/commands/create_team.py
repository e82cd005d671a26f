"""`manage.py create_team NAME --owner USER`: a team, and who owns it; members are then added on its page."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.text import slugify

from models_app.actions import teams
from models_app.models import Actor, Team


class Command(BaseCommand):
    help = "Makes a team and lets an account own it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="what the team is called")
        parser.add_argument("--owner", required=True, metavar="USER", help="the user name of an account")

    def handle(self, *args: Any, **options: Any) -> None:
        name, owner = options["name"], User.objects.filter(username=options["owner"]).first()
        slug = slugify(name)[:64]
        if owner is None:
            raise CommandError(f"There is no account {options['owner']}. `manage.py createsuperuser` makes one.")
        if not slug:
            raise CommandError(f"{name!r} has no letter or digit that an address could hold. Choose another name.")
        if Team.objects.filter(slug=slug).exists():
            raise CommandError(f"There is a team {slug} already; one of its owners can add members.")
        team = teams.create_team(Actor.of(owner), name[:100], slug)
        self.stdout.write(f"{owner} owns {team}: {team.get_absolute_url()}")
