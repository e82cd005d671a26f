"""Asking for a conversion, and no longer wanting one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from models_app.actions.quarantine import check_handed_out
from models_app.models import Actor, Conversion, ModelVersion, Samples, Tag, record
from models_app.models.consents import needs_consent, refusal
from models_app.models.samples import samples_in_use
from worker import pipeline, routes, tasks
from worker.errors import LarderError, StateError, from_json
from worker.options import SIGNATURE

State = Conversion.State
TARGET_LENGTH = 32  # of a slug; what is typed longer is refused, and need not fill the history


def request_conversion(
    actor: Actor, version: ModelVersion, target: str, options: Mapping[str, str] | None = None
) -> Conversion:
    """The conversion of this version to ``target``: a new one, or the one that was already asked for.

    A failed or canceled one may be asked for again. Raises what the page says next to an impossible format; that
    stands in the history.
    """
    target = target[:TARGET_LENGTH]
    with _refusals(actor, version, target):
        _check_inspected(version)
        check_handed_out(version.source)
        found, summary = version.source.format, version.summary
        chosen = pipeline.check_options(target, options or {}, found, summary)
        meant = summary.of_signature(chosen.get(SIGNATURE, ""))
        routes.find_route(found, target, meant, settings.JOB_MEMORY_BYTES)
    samples = None if SIGNATURE in chosen else samples_in_use(version)  # they are inputs of the usual signature
    key = _options_key(chosen, samples)
    wanted = {"target": target, "options": chosen, "options_key": key, "samples": samples}
    return _asked_already(version, target, key) or _create(actor, version, wanted)


def cancel_conversion(actor: Actor, conversion: Conversion) -> None:
    """Stop it: at once where it still waits, else as soon as the worker looks. StateError where it is final."""
    same = Conversion.objects.filter(pk=conversion.pk)
    with transaction.atomic():
        stopped = same.filter(state=State.QUEUED).update(
            state=State.CANCELED, cancel_requested=True, finished_at=timezone.now()
        )
        if not stopped and not same.filter(state=State.RUNNING).update(cancel_requested=True):
            raise StateError(problem="the conversion has already ended")
        record(actor, Tag.CONVERSION_CANCELED, conversion.team, conversion)


@contextmanager
def _refusals(actor: Actor, version: ModelVersion, target: str) -> Iterator[None]:
    try:
        yield
    except LarderError as error:
        said = {"target": target, "code": error.code, "message": error.message}
        record(actor, Tag.CONVERSION_REFUSED, version.team, version, **said)
        raise


def _check_inspected(version: ModelVersion) -> None:
    if version.state == ModelVersion.State.WAITING:
        raise StateError(problem="the file is still being inspected; ask again in a moment")
    if needs_consent(version):
        raise refusal(version)
    if version.error:
        raise from_json(version.error)


def _asked_already(version: ModelVersion, target: str, key: str) -> Conversion | None:
    alive = [State.QUEUED, State.RUNNING, State.SUCCEEDED]
    return version.conversions.filter(target=target, options_key=key, state__in=alive, cancel_requested=False).first()


def _create(actor: Actor, version: ModelVersion, wanted: dict[str, Any]) -> Conversion:
    target, options, key = (wanted[name] for name in ("target", "options", "options_key"))
    try:
        with transaction.atomic():
            conversion = version.conversions.create(requested_by=actor.person, **wanted)
            record(actor, Tag.CONVERSION_REQUESTED, version.team, conversion, target=target, options=options)
            transaction.on_commit(lambda: tasks.dispatch(tasks.convert, conversion))
    except IntegrityError:  # somebody asked for the same in this moment, or it is still being canceled
        conversion = version.conversions.filter(target=target, options_key=key).latest("requested_at")
    return conversion


def _options_key(options: Mapping[str, Any], samples: Samples | None) -> str:
    """With other samples it is another question: a verdict on them, and for whole numbers another result."""
    asked = {**options, "samples": samples.sha256} if samples else options
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
