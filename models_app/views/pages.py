"""Pages that belong to no noun: signing in, whether all is well, why not pickle."""

from __future__ import annotations

import json
import logging
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.utils.functional import SimpleLazyObject
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from models_app.actions import accounts
from models_app.models import Actor, ModelVersion, Team, WorkerNode
from models_app.views.access import address, may
from models_app.views.catalog import fragment_or_page
from models_app.views.rows import offer_rows, rescue
from worker.celery import app as celery
from worker.errors import TooManyAttempts

log = logging.getLogger(__name__)
BROKER_SECONDS = 1


def frame(request: HttpRequest) -> dict[str, Any]:
    """What the frame around every page needs; the teams are only asked for where they are shown."""
    teams = Team.objects.visible_to(request.user).order_by("name") if hasattr(request, "user") else Team.objects.none()
    shown = {"max_upload_bytes": settings.MAX_UPLOAD_BYTES, "weak_sandbox": settings.WEAK_SANDBOX}
    return {"my_teams": SimpleLazyObject(lambda: list(teams)), **shown}


class SignIn(LoginView):
    """Django's own sign-in, which also stands in the history and gives up after too many failures."""

    template_name = "accounts/login.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            accounts.check_sign_in_allowed(request.POST.get("username", ""), address(request))
        except TooManyAttempts as error:
            context = self.get_context_data(form=AuthenticationForm(request), throttled=error.message)
            return self.render_to_response(context, status=error.http_status)
        return super().post(request, *args, **kwargs)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        assert isinstance(user, User)
        with transaction.atomic():
            response = super().form_valid(form)
            accounts.record_sign_in(Actor.of(user, address(self.request)))
        return response

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        if form.non_field_errors():
            accounts.record_failed_sign_in(form.data.get("username", ""), address(self.request))
        return super().form_invalid(form)

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(demo=_demo_account(), **kwargs)


def _demo_account() -> dict[str, str] | None:
    """The account that the one-command start has made, for the person in front of that machine."""
    if not settings.LARDER_DEMO or not settings.DEMO_FILE.exists():
        return None
    account: dict[str, str] = json.loads(settings.DEMO_FILE.read_text(encoding="utf-8"))
    return account


@login_not_required
@vary_on_headers("HX-Request")
@require_safe
def why_not_pickle(request: HttpRequest) -> HttpResponse:
    """The answer for everybody; with ``?version=`` for one's own file, with what opening it would import."""
    version = _own_version(request, request.GET.get("version", ""))
    waiting = version is not None and version.state == ModelVersion.State.WAITING
    context = {
        "version": version,
        "imports": version.summary.imports if version else (),
        "team": version.team if version else None,
        "may": may(request.user, version.team) if version and isinstance(request.user, User) else None,
        "poll_seconds": 1 if waiting else 0,
        **(rescue(version, offer_rows(version)) if version else {}),
    }
    return render(request, fragment_or_page(request, "pages/_imports.html", "pages/why_not_pickle.html"), context)


def _own_version(request: HttpRequest, pk: str) -> ModelVersion | None:
    if not pk.isdecimal():
        return None
    versions = ModelVersion.objects.visible_to(request.user).select_related("model__team")
    return get_object_or_404(versions, pk=int(pk))


@login_not_required
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 once pages, database, broker and a worker are up, else 503 with what is not."""
    state = {"web": True, "database": _database_answers(), "broker": _broker_answers()}
    state["worker"] = state["database"] and WorkerNode.objects.alive().exists()
    return JsonResponse(state, status=200 if all(state.values()) else 503, headers={"Cache-Control": "no-store"})


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Exception as error:
        log.warning("the database does not answer: %s", error)
        return False
    return True


def _broker_answers() -> bool:
    try:
        with celery.connection_for_write(connect_timeout=BROKER_SECONDS) as broker:
            broker.default_channel.close()  # opening a channel pings the broker
    except Exception as error:
        log.warning("the broker does not answer: %s", error)
        return False
    return True
