"""Agreeing to run the Python code that a version brings, taking that back, and where a team allows it at all."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from models_app.actions.conversions import cancel_conversion
from models_app.actions.quarantine import check_handed_out
from models_app.models import Actor, Consent, Measurement, ModelVersion, Tag, Team, record
from models_app.models.consents import needs_consent, refusal
from models_app.models.conversions import Conversion
from worker import tasks
from worker.errors import StateError

CUSTOM_CODE = "custom code"  # the policy's name in the history
INSPECT_AGAIN: dict[str, Any] = {
    "state": ModelVersion.State.WAITING,
    "error": None,
    "attempt": 0,
    "lease_token": None,  # whoever inspects it now does so by another word
    "lease_until": None,
    "dispatched_at": None,
}


def set_custom_code_policy(actor: Actor, team: Team, allowed: bool) -> None:
    """May members agree to run the code that a model brings? Where not, what they agreed to is over, at once.

    StateError where it is so already."""
    with transaction.atomic():
        if not Team.objects.filter(pk=team.pk).exclude(custom_code_allowed=allowed).update(custom_code_allowed=allowed):
            raise StateError(problem=f"the policy of {team} says so already")
        record(actor, Tag.TEAM_POLICY_CHANGED, team, team, policy=CUSTOM_CODE, before=not allowed, after=allowed)
        given = Consent.objects.current().filter(version__model__team=team).select_related("version__model__team")
        for consent in given if not allowed else ():
            _end(actor, consent, because="the team's policy was changed")


def give_consent(actor: Actor, version: ModelVersion) -> Consent:
    """Let the version's code run in its jobs from now on, beginning with another inspection.

    ConsentNeeded where the team's policy does not allow that; StateError where no code waits for it; Quarantined where
    the file, or another one with its bytes, is not handed out."""
    try:
        with transaction.atomic():
            _check_policy(version)
            check_handed_out(version.source)
            if not needs_consent(version):
                raise StateError(problem="no code of this version waits for consent")
            consent = version.consents.create(given_by=actor.person, **_what(version))
            record(actor, Tag.CONSENT_GIVEN, version.team, version, **_what(version))
            _inspect_again(version)
    except IntegrityError:
        raise StateError(problem="somebody else has just agreed") from None
    return consent


def revoke_consent(actor: Actor, version: ModelVersion) -> None:
    """No job of the version begins with its code any more, and those that run are stopped. StateError where nobody
    agreed."""
    with transaction.atomic():
        consent = Consent.objects.current().filter(version=version).select_related("version__model__team").first()
        if consent is None:
            raise StateError(problem="nobody has agreed to run the code of this version")
        _end(actor, consent, because="")


def _check_policy(version: ModelVersion) -> None:
    """While nobody changes it."""
    if not Team.objects.select_for_update().get(pk=version.team.pk).custom_code_allowed:
        raise refusal(version)


def _what(version: ModelVersion) -> dict[str, Any]:
    """Which code: as it was shown, with the digests of both files, which never change."""
    names = list(version.summary.code) or [str((version.error or {}).get("details", {}).get("names", ""))]
    return {"names": names, "file_sha256": version.source.sha256, "code_sha256": version.code_sha256}


def _end(actor: Actor, consent: Consent, because: str) -> None:
    ended = {"ended_at": timezone.now(), "ended_by": actor.person}
    if not Consent.objects.current().filter(pk=consent.pk).update(**ended):
        raise StateError(problem="somebody else has just taken the consent back")
    version = consent.version
    said = {"names": consent.names, "given_by": str(consent.given_by), "because": because}
    record(actor, Tag.CONSENT_REVOKED, version.team, version, **said)
    for conversion in Conversion.objects.unfinished().filter(version=version).select_related("version__model__team"):
        with suppress(StateError):  # it has ended in this moment
            cancel_conversion(actor, conversion)
    waiting = version.measurements.filter(state=Measurement.State.WAITING)
    waiting.update(lease_token=None, lease_until=None, dispatched_at=None)  # the reconciler has it measured without
    _inspect_again(version)


def _inspect_again(version: ModelVersion) -> None:
    ModelVersion.objects.filter(pk=version.pk).update(**INSPECT_AGAIN)
    transaction.on_commit(lambda: tasks.dispatch(tasks.inspect_version, version))
