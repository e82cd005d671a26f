"""Share links: making and revoking them, and what somebody without an account sees."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from models_app.actions import sharing
from models_app.actions.quarantine import check_handed_out
from models_app.forms import LASTS, LASTS_DEFAULT, ShareForm
from models_app.models import Actor, Artifact, ShareLink
from models_app.models.quarantine import look_up_stays
from models_app.views import access
from models_app.views.access import Request, actor, address, may, team_or_404
from models_app.views.downloads import send
from models_app.views.errors import Gone
from models_app.views.rows import checksum_line, format_of, snippet, snippet_title, verdict

GONE = "This link does not exist, was revoked, or has ended. Ask whoever sent it to you for a new one."


@require_safe
def shares(request: Request, team: str) -> HttpResponse:
    found = team_or_404(request, team)
    related = ("artifact__version__model__team", "created_by")
    of_team = ShareLink.objects.filter(artifact__version__model__team=found)
    links = list(of_team.select_related(*related))
    look_up_stays(found, [link.artifact for link in links])
    return render(request, "sharing/shares.html", {"team": found, "may": may(request.user, found), "links": links})


@never_cache
@require_POST
def share_create(request: Request, pk: int) -> HttpResponse:
    artifacts = Artifact.objects.visible_to(request.user).select_related("version__model__team")
    artifact = get_object_or_404(artifacts, pk=pk)
    access.check(request, "share", artifact)
    form = ShareForm({"lasts": request.POST.get("lasts", LASTS_DEFAULT)})
    lasts = form.duration if form.is_valid() else LASTS[LASTS_DEFAULT][1]
    link, token = sharing.create_share_link(actor(request), artifact, lasts)
    context = {
        "team": artifact.team,
        "may": may(request.user, artifact.team),
        "link": link,
        "artifact": artifact,
        "version": artifact.version,
        "url": request.build_absolute_uri(reverse("public-share", args=[token])),
    }
    return render(request, "sharing/created.html", context, status=201)


@require_POST
def share_revoke(request: Request, pk: int) -> HttpResponse:
    links = ShareLink.objects.visible_to(request.user).select_related("artifact__version__model__team")
    link = get_object_or_404(links, pk=pk)
    access.check(request, "share", link)
    sharing.revoke_share_link(actor(request), link)
    messages.success(request, f"The link to {link.artifact} no longer works.")
    return redirect("shares", link.team.slug)


def _link_or_gone(token: str) -> ShareLink:
    """Unknown, revoked and ended links look the same from outside; whoever has a good one learns of the quarantine."""
    links = ShareLink.objects.opened_by(token).select_related("artifact__version__model__team", "created_by")
    link = links.first()
    if link is None or not link.artifact.is_shareable:
        raise Gone(GONE)
    check_handed_out(link.artifact)
    return link


def _visitor(request: HttpRequest) -> Actor:
    return Actor(None, "a share link", address(request))


@login_not_required
@never_cache
@require_safe
def public_share(request: HttpRequest, token: str) -> HttpResponse:
    link = _link_or_gone(token)
    if request.method == "GET":
        sharing.open_share_link(_visitor(request), link)
    artifact = link.artifact
    conversion = artifact.conversions.first()
    context = {
        "link": link,
        "artifact": artifact,
        "format": format_of(artifact.format),
        "download_url": reverse("public-download", args=[token, artifact.name]),
        "checksum_line": checksum_line(artifact),
        "snippet": snippet(artifact, conversion),
        "snippet_title": snippet_title(format_of(artifact.format)),
        "verdict": verdict(conversion),
        "shared_by": link.created_by.get_full_name() or link.created_by.get_username(),
        "team_name": link.team.name,
    }
    return render(request, "sharing/public.html", context)


@login_not_required
@require_safe
def public_download(request: HttpRequest, token: str, name: str) -> HttpResponseBase:
    link = _link_or_gone(token)
    if name != link.artifact.name:
        raise Gone(GONE)
    return send(request, link.artifact, lambda: sharing.download_by_link(_visitor(request), link))
