"""Asking for the table of a version's variants, and for the variants that there could be."""

from __future__ import annotations

from django.db import IntegrityError, transaction
from django.db.models import Q

from models_app.actions.conversions import request_conversion
from models_app.models import Actor, Conversion, Measurement, ModelVersion, Tag, record
from models_app.models.measurements import can_be_measured, variants_of
from models_app.models.samples import samples_in_use
from worker import formats, tasks
from worker.errors import StateError
from worker.options import SIGNATURE

TFLITE, PRECISION = "tflite", "precision"


def request_measurement(actor: Actor, version: ModelVersion) -> Measurement:
    """The measurement of this version's files: a new one, or the one that is under way.

    StateError where no result of it runs here."""
    if under_way := version.measurements.filter(state=Measurement.State.WAITING).first():
        return under_way
    if not can_be_measured(variants_of(version)):
        raise StateError(problem="no format of this version runs here; convert it first")
    try:
        with transaction.atomic():
            measurement = version.measurements.create(asked_by=actor.person)
            record(actor, Tag.MEASUREMENT_REQUESTED, version.team, version)
            transaction.on_commit(lambda: tasks.dispatch(tasks.measure, measurement))
    except IntegrityError:  # somebody else has asked in this moment
        measurement = version.measurements.latest("pk")
    return measurement


def request_missing_precisions(actor: Actor, version: ModelVersion) -> list[Conversion]:
    """The conversions to TensorFlow Lite in every precision that nobody has asked for yet, on the version's samples."""
    return [request_conversion(actor, version, TFLITE, {PRECISION: each}) for each in missing_precisions(version)]


def missing_precisions(version: ModelVersion) -> list[str]:
    """Those of TensorFlow Lite that nobody has asked for on the samples that the version has now. One that has failed
    was asked for: it would fail again."""
    samples = samples_in_use(version)
    same = Q(samples__sha256=samples.sha256) if samples else Q(samples=None)
    asked = version.conversions.filter(same, target=TFLITE).exclude(options__has_key=SIGNATURE)
    asked = asked.filter(Q(options__keep_float="") | ~Q(options__has_key="keep_float"))  # those are no plain ones
    known = {str(each.options.get(PRECISION)) for each in asked.exclude(state=Conversion.State.CANCELED)}
    return [each for each in precisions() if each not in known]


def precisions() -> tuple[str, ...]:
    """Those that TensorFlow Lite files are made in."""
    (option,) = (option for option in formats.get(TFLITE).options if option.name == PRECISION)
    return tuple(map(str, option.choices))
