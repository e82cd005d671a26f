"""The history: append-only. Rows refuse to change here, and database triggers refuse it below (migration 0002)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from django.conf import settings
from django.db import models
from django.db.models import Q

from models_app.models.fields import PlainJSONField
from models_app.models.teams import Team
from worker.visible import one_line

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from models_app.models.teams import Person


class Tag(models.TextChoices):
    """What happened, as ``subject:verb``."""

    USER_SIGNED_IN = "user:signed-in", "signed in"
    USER_SIGN_IN_FAILED = "user:sign-in-failed", "failed to sign in"
    TEAM_CREATED = "team:created", "created the team"
    TEAM_POLICY_CHANGED = "team:policy-changed", "changed a policy of"
    VERSION_UPLOADED = "version:uploaded", "uploaded"
    VERSION_INSPECTED = "version:inspected", "inspected"
    VERSION_UNREADABLE = "version:unreadable", "could not load"
    CONSENT_GIVEN = "consent:given", "agreed to run the code of"
    CONSENT_REVOKED = "consent:revoked", "took back the consent to run the code of"
    ATTEMPT_STOPPED = "attempt:stopped", "stopped an attempt of"
    ATTEMPT_SEEN = "attempt:seen", "has seen the attempt of"
    SAMPLES_GIVEN = "samples:given", "gave samples for"
    SAMPLES_FIT = "samples:fit", "found that the samples fit"
    SAMPLES_UNFIT = "samples:unfit", "found that the samples do not fit"
    SAMPLES_REMOVED = "samples:removed", "removed the samples of"
    UPLOAD_REFUSED = "upload:refused", "had an upload refused"
    CONVERSION_REQUESTED = "conversion:requested", "asked to convert"
    CONVERSION_REFUSED = "conversion:refused", "had a conversion refused"
    CONVERSION_SUCCEEDED = "conversion:succeeded", "converted"
    CONVERSION_FAILED = "conversion:failed", "failed to convert"
    CONVERSION_CANCELED = "conversion:canceled", "canceled the conversion of"
    MEASUREMENT_REQUESTED = "measurement:requested", "asked to measure"
    MEASUREMENT_DONE = "measurement:done", "measured"
    MEASUREMENT_FAILED = "measurement:failed", "failed to measure"
    ARTIFACT_DOWNLOADED = "artifact:downloaded", "downloaded"
    ARTIFACT_QUARANTINED = "artifact:quarantined", "quarantined"
    ARTIFACT_RELEASED = "artifact:released", "released"
    SHARE_CREATED = "share:created", "shared"
    SHARE_REVOKED = "share:revoked", "revoked the link to"
    SHARE_OPENED = "share:opened", "opened the link to"
    SHARE_DOWNLOADED = "share:downloaded", "downloaded by link"
    MEMBER_ADDED = "member:added", "added"
    MEMBER_REMOVED = "member:removed", "removed"
    MEMBER_ROLE_CHANGED = "member:role-changed", "changed the role of"


class AppendOnly(Exception):
    """The history cannot be changed."""


@dataclass(frozen=True)
class Actor:
    """Who acts, and from where: a person, Larder itself, or whoever holds a share link."""

    user: User | None
    name: str
    address: str | None = None

    @classmethod
    def of(cls, user: User, address: str | None = None) -> Actor:
        return cls(user, user.get_username(), address)

    @property
    def person(self) -> User:
        """The account behind an act that only people can do; a programming mistake where there is none."""
        if self.user is None:
            raise ValueError(f"{self.name} is not a person")
        return self.user


SYSTEM = Actor(None, "larder")


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    def visible_to(self, user: Person) -> AuditEventQuerySet:
        """The history of the teams this person belongs to."""
        return self.filter(team__in=Team.objects.visible_to(user))

    def update(self, **kwargs: Any) -> NoReturn:
        raise AppendOnly("the history is append-only")

    def delete(self) -> NoReturn:
        raise AppendOnly("the history is append-only")

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly("the history is append-only")

    def bulk_create(self, *args: Any, **kwargs: Any) -> list[AuditEvent]:
        if kwargs.get("update_conflicts"):
            raise AppendOnly("the history is append-only")
        return super().bulk_create(*args, **kwargs)


class AuditEvent(models.Model):
    """Who did what to which thing, when and from where. ``subject`` is a snapshot: it outlives the thing."""

    team = models.ForeignKey(Team, null=True, on_delete=models.PROTECT, related_name="history")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    actor_name = models.CharField(max_length=150)  # as it was; "larder" for the system, "a share link" for visitors
    tag = models.CharField(max_length=40)
    subject = models.CharField(max_length=300)
    subject_url = models.CharField(max_length=300, blank=True)
    data = PlainJSONField(default=dict)
    address = models.GenericIPAddressField(null=True)
    at = models.DateTimeField(auto_now_add=True)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["team", "-id"], name="history_of_team"),
            models.Index(fields=["team", "tag", "-id"], name="history_by_tag"),
            models.Index(fields=["team", "actor", "-id"], name="history_by_actor"),
            models.Index(fields=["team", "subject_url", "-id"], name="history_of_thing"),
            models.Index(
                fields=["subject", "address", "at"], condition=Q(tag="user:sign-in-failed"), name="failed_sign_ins"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.tag} {self.subject}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnly("the history is append-only")
        super().save(*args, **kwargs | {"force_insert": True})  # or a known primary key would mean UPDATE

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnly("the history is append-only")

    @property
    def sentence(self) -> str:
        return Tag(self.tag).label if self.tag in Tag.values else self.tag


def record(actor: Actor, tag: Tag, team: Team | None, subject: object, **data: Any) -> AuditEvent:
    """Write down what happened. Call it inside the transaction of the act, so that neither is without the other."""
    url = getattr(subject, "get_absolute_url", str)()
    return AuditEvent.objects.create(
        team=team,
        actor=actor.user,
        actor_name=one_line(actor.name)[:150],
        tag=tag,
        subject=one_line(str(subject))[:300],
        subject_url=url,
        data=data,
        address=actor.address,
    )
