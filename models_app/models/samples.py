"""People's own inputs for a version: what each of its conversions is compared and calibrated on, from then on."""

from __future__ import annotations

import re
import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from models_app.models.catalog import ModelVersion
from models_app.models.fields import PlainJSONField
from models_app.models.leases import Leased, expired, new_lease, untold
from models_app.models.teams import Team
from worker.fitting import Fit

READY = Q(version__state=ModelVersion.State.INSPECTED)  # before that nobody knows what the model takes


class SamplesQuerySet(models.QuerySet["Samples"]):
    def current(self) -> SamplesQuerySet:
        """Those that nobody has replaced or removed."""
        return self.filter(ended_at__isnull=True)

    def waiting(self) -> SamplesQuerySet:
        """The current ones that a worker has yet to look at."""
        return self.current().filter(state=Samples.State.WAITING)

    def claim(self, pk: int) -> uuid.UUID | None:
        """Take these samples to look at them; None where somebody else has them, nothing is left to do, or the version
        was not inspected yet."""
        free = Q(lease_token__isnull=True) | expired()
        lease = new_lease()
        ready = ModelVersion.objects.filter(state=ModelVersion.State.INSPECTED)
        waiting = self.waiting().filter(free, pk=pk, version__in=ready, attempt__lt=settings.MAX_ATTEMPTS)
        taken = waiting.update(attempt=F("attempt") + 1, **lease)
        return uuid.UUID(str(lease["lease_token"])) if taken else None

    def held(self, pk: int, token: uuid.UUID) -> SamplesQuerySet:
        """The samples, as long as this token holds them."""
        return self.filter(pk=pk, state=Samples.State.WAITING, lease_token=token)

    def lost(self) -> SamplesQuerySet:
        """Those whose worker went silent."""
        return self.waiting().filter(expired())

    def overdue(self) -> SamplesQuerySet:
        """Those that nobody holds, no worker was told of lately, and that can be looked at."""
        return self.waiting().filter(READY, untold(), lease_token__isnull=True)


class Samples(Leased):
    """One file of samples; its bytes lie in the store under their sha256, and are read in jobs alone.

    current  conversions that are asked for are made with it, unless it does not fit
    ended    it was replaced or removed; the conversions that were made with it still name it

    current → ended by one conditional UPDATE whose row count is looked at. Beside that, whether they fit:

    waiting  a worker has yet to look, once the version is inspected, or holds the lease and does
    fits     ``fit_data`` says what each input is given (worker.fitting.Fit)
    unfit    ``error`` says what does not fit; no conversion is made with them
    unknown  nobody knows what the model takes, or ``error`` says why it could not be found out

    waiting → fits | unfit | unknown, by a conditional UPDATE fenced by the lease's token.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "Being looked at"
        FITS = "fits", "They fit"
        UNFIT = "unfit", "They do not fit"
        UNKNOWN = "unknown", "Not known"

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="samples")
    name = models.CharField(max_length=255)
    sha256 = models.CharField(max_length=64)
    size = models.PositiveBigIntegerField()  # bytes
    given_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    given_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    fit_data = PlainJSONField(null=True)
    error = PlainJSONField(null=True)  # LarderError.to_json

    objects = SamplesQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "samples"
        constraints = [
            models.UniqueConstraint(fields=["version"], condition=Q(ended_at__isnull=True), name="one_file_of_samples"),
            models.CheckConstraint(
                condition=Q(state="waiting", fit_data__isnull=True, error__isnull=True)
                | Q(state="fits", fit_data__isnull=False, error__isnull=True)
                | Q(state="unfit", fit_data__isnull=True, error__isnull=False)
                | Q(state="unknown", fit_data__isnull=True),
                name="samples_have_what_their_state_says",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_several(self) -> bool:
        """Were several files given, so that the name is not one of a file that anybody has?"""
        return re.search(r" \+ \d+ more$", self.name) is not None

    @property
    def team(self) -> Team:
        return self.version.team

    @property
    def fit(self) -> Fit | None:
        """What each input is given, where that is known."""
        return Fit.from_json(self.fit_data) if self.fit_data else None


def samples_of(version: ModelVersion) -> Samples | None:
    """The current ones of the version, whether they fit or not."""
    return Samples.objects.current().filter(version=version).select_related("given_by").first()


def samples_in_use(version: ModelVersion) -> Samples | None:
    """Those that a conversion is made with that is asked for now: the current ones, unless they do not fit."""
    found = samples_of(version)
    return None if found and found.state == Samples.State.UNFIT else found
