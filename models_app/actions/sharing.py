"""Share links: making, using and revoking them."""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from models_app.actions.quarantine import check_handed_out, mark
from models_app.models import Actor, Artifact, ShareLink, Tag, record
from models_app.models.sharing import token_hash
from worker.errors import StateError, UnsafeContent

LONGEST = timedelta(days=90)


@transaction.atomic
def create_share_link(actor: Actor, artifact: Artifact, lasts: timedelta) -> tuple[ShareLink, str]:
    """A link that ends after ``lasts``, and its token, which is kept nowhere and cannot be shown again."""
    if why := artifact.why_not_shared:
        raise UnsafeContent(name=artifact.name, reason=why)
    check_handed_out(artifact)
    token = secrets.token_urlsafe(32)
    ends = timezone.now() + min(lasts, LONGEST)
    link = ShareLink.objects.create(
        artifact=artifact, token_sha256=token_hash(token), created_by=actor.person, expires_at=ends
    )
    said = {"link": link.pk, "expires_at": ends.isoformat(), **mark(artifact)}
    record(actor, Tag.SHARE_CREATED, artifact.team, artifact, **said)
    return link, token


@transaction.atomic
def revoke_share_link(actor: Actor, link: ShareLink) -> None:
    """End a link now. StateError where it was revoked before."""
    if not ShareLink.objects.filter(pk=link.pk, revoked_at__isnull=True).update(revoked_at=timezone.now()):
        raise StateError(problem="the link was revoked already")
    record(actor, Tag.SHARE_REVOKED, link.team, link.artifact, link=link.pk)


@transaction.atomic
def open_share_link(actor: Actor, link: ShareLink) -> None:
    """Count and record that somebody looked at the link's page."""
    ShareLink.objects.filter(pk=link.pk).update(opened_count=F("opened_count") + 1)
    record(actor, Tag.SHARE_OPENED, link.team, link.artifact, link=link.pk)


@transaction.atomic
def download_by_link(actor: Actor, link: ShareLink) -> None:
    """Count and record a download by link, before its first byte is sent."""
    ShareLink.objects.filter(pk=link.pk).update(downloaded_count=F("downloaded_count") + 1)
    said = {"link": link.pk, "sha256": link.artifact.sha256, **mark(link.artifact)}
    record(actor, Tag.SHARE_DOWNLOADED, link.team, link.artifact, **said)
