"""What the Celery worker does: take a primary key, claim the row, have a job do the work, write down what came of it.

The rows are the truth and messages are hints: a task that finds nothing to claim ends quietly. TensorFlow is in the
jobs only; this module is imported by the web process, so whatever runs jobs is imported inside functions.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import close_old_connections, connections, transaction
from django.db.models import F
from django.utils import timezone

from models_app import storage
from models_app.models import (
    SYSTEM,
    Artifact,
    Conversion,
    Measurement,
    ModelVersion,
    Quarantine,
    Samples,
    Tag,
    Upload,
    WorkerNode,
    record,
)
from models_app.models.consents import consent_of
from models_app.models.leases import lease_end
from models_app.models.measurements import variants_of
from models_app.models.quarantine import Cause, put_in_quarantine
from worker import archive, formats, options
from worker.celery import app
from worker.errors import (
    BadSamples,
    Canceled,
    Forbidden,
    LarderError,
    SandboxError,
    SandboxMissing,
    VerificationError,
    WorkerLost,
)
from worker.heartbeat import Heartbeat
from worker.report import Report, Verdict, findings_from_json
from worker.sandbox.limits import Limits
from worker.versions import versions

if TYPE_CHECKING:
    from worker.custom_code import Consent
    from worker.fitting import Fit
    from worker.measuring import Table, Variant
    from worker.pipeline import Inspection, Result

log = logging.getLogger(__name__)

STOPPED_MEANWHILE = "doing what somebody then stopped"
LOOK_SECONDS = 1.0  # how soon a running job notices that it was canceled
NODE_SECONDS = 5.0
STALE = timedelta(hours=24)
FREE: dict[str, Any] = {"lease_token": None, "lease_until": None}
QUEUED_AGAIN: dict[str, Any] = {
    **FREE,
    "state": Conversion.State.QUEUED,
    "stage": "",
    "stages": [],
    "dispatched_at": None,
}


Row = Conversion | ModelVersion | Measurement | Samples


class LostLease(Exception):
    """The row is no longer this worker's, or nobody wants the result any more."""


@dataclass
class Hold:
    """One row that this worker has claimed, for as long as nobody takes it away."""

    rows: Callable[[], Any]  # the row while the token is still its own, else nothing
    given_up: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Renew the lease once a third of it is over; notice a lost lease and a cancel."""
        close_old_connections()
        row = self.rows().first()
        if row is None or getattr(row, "cancel_requested", False):
            self.given_up.set()
        elif row.lease_until - timezone.now() < timedelta(seconds=settings.LEASE_SECONDS * 2 / 3):
            self.rows().update(lease_until=lease_end())

    def canceled(self) -> bool:
        from worker import runtime

        return self.given_up.is_set() or runtime.stopping.is_set()

    def publish(self, **values: Any) -> None:
        """Write the outcome and leave the row; LostLease, which undoes the transaction, where it is not ours."""
        if not self.rows().update(**FREE, **values):
            raise LostLease

    def publish_wanted(self, **values: Any) -> None:
        """The same where nobody has asked to stop it: in the same UPDATE, for that may be in this moment."""
        if not self.rows().filter(cancel_requested=False).update(**FREE, **values):
            raise LostLease

    def put_back(self) -> None:
        """Leave the row to the next worker, as if this attempt had not been."""
        back = QUEUED_AGAIN if self.rows().model is Conversion else FREE
        self.rows().update(attempt=F("attempt") - 1, **back)


def wake_for_check() -> None:
    """Have a worker look now whether its sandbox is to be tried out again; the others look every few seconds."""
    try:
        check_sandbox.apply_async(retry=False, expires=NODE_SECONDS)
    except Exception as error:  # whatever a broker's client raises; the rows are the truth
        log.warning("could not tell a worker to check its sandbox: %s", error)


def dispatch(task: Any, row: Row) -> None:
    """Tell a worker that there is work. Without a broker nothing is lost: the reconciler tells again."""
    type(row).objects.filter(pk=row.pk).update(dispatched_at=timezone.now())
    try:
        task.apply_async((str(row.pk),), retry=False)
    except Exception as error:  # whatever a broker's client raises; the row is the truth
        log.warning("could not tell a worker about %s: %s", row, error)


@app.task(name="worker.inspect_version")
def inspect_version(pk: str) -> None:
    """Have a job read the uploaded file's structure, and keep its Summary or its error."""
    _take(ModelVersion.objects, int(pk), ("model__team",), _inspect, _mark_unreadable)


@app.task(name="worker.fit_samples")
def fit_samples(pk: str) -> None:
    """Have a job read the samples against what the version takes, and keep what it found, or what does not fit."""
    _take(Samples.objects, int(pk), ("version__model__team",), _fit_samples, _mark_unfit)


@app.task(name="worker.convert")
def convert(pk: str) -> None:
    """Have jobs convert and verify, and keep the result, or the error."""
    _take(Conversion.objects, uuid.UUID(pk), ("version__model__team", "samples"), _convert, _fail)


@app.task(name="worker.measure")
def measure(pk: str) -> None:
    """Have jobs run each file of the version, and keep the table, or the error."""
    _take(Measurement.objects, int(pk), ("version__model__team",), _measure, _mark_unmeasured)


@app.task(name="worker.reconcile")
def reconcile() -> None:
    """Find work that was lost with its worker or its message, and see that it goes on. Safe to run at any time."""
    for version in ModelVersion.objects.lost():
        _recover(version, _mark_unreadable)
    for conversion in Conversion.objects.lost().select_related("version__model__team"):
        _recover_conversion(conversion)
    for measurement in Measurement.objects.lost().select_related("version__model__team"):
        _recover(measurement, _mark_unmeasured)
    for samples in Samples.objects.lost().select_related("version__model__team"):
        _recover(samples, _mark_unfit)
    _tell_again()
    _sweep()


def _tell_again() -> None:
    """Tell workers of what nobody holds, and nobody was told of lately."""
    told: list[tuple[Any, Any]] = [
        (inspect_version, ModelVersion),
        (convert, Conversion),
        (measure, Measurement),
        (fit_samples, Samples),
    ]
    for task, table in told:
        for row in table.objects.overdue()[:100]:
            dispatch(task, row)


@app.task(name="worker.check_sandbox")
def check_sandbox() -> None:
    """Say that this worker is here, and begin to try its sandbox out where an operator has asked for that."""
    _say_here()


def _take(
    rows: Any,
    pk: int | uuid.UUID,
    related: tuple[str, ...],
    work: Callable[[Hold, Any, Path], None],
    fail: Callable[..., None],
) -> None:
    """Claim one row and work on it; nothing where there is nothing to claim. ``related``: rows that are read with it.
    ``fail`` is given how to publish, the row and the error."""
    token = rows.claim(pk)
    if token is None:
        return
    row = rows.select_related(*related).get(pk=pk)
    hold = Hold(lambda: rows.held(pk, token))
    _work(hold, lambda folder: work(hold, row, folder), lambda error: _end(hold, row, error, fail))


def _end(hold: Hold, row: Row, error: LarderError, fail: Callable[..., None]) -> None:
    """Write the error down. Who no longer wants the answer hides nothing of what the job tried: not even by taking
    the row away."""
    try:
        fail(hold.publish, row, error)
    except LostLease:
        with transaction.atomic():
            _raise_alarm(row if isinstance(row, ModelVersion) else row.version, STOPPED_MEANWHILE, error)
        raise


def _work(hold: Hold, work: Callable[[Path], None], fail: Callable[[LarderError], None]) -> None:
    """Run one claimed piece of work to its end, whatever the end is."""
    try:
        with Heartbeat(hold.look, LOOK_SECONDS, connections.close_all), _job_folder() as folder:
            _settle(hold, fail, lambda: work(folder))
    except LostLease:
        _let_go(hold)


def _settle(hold: Hold, fail: Callable[[LarderError], None], work: Callable[[], None]) -> None:
    try:
        work()
    except Canceled:
        raise LostLease from None
    except LarderError as error:
        stopped = isinstance(error, SandboxError) and not isinstance(error, Forbidden)
        if stopped and hold.canceled():
            raise LostLease from None  # the job died because this worker was told to end, not by itself
        fail(error)
    except LostLease:
        raise
    except Exception:
        reference = uuid.uuid4().hex[:8]
        log.exception("reference %s: a job failed in a way that nobody foresaw", reference)
        fail(LarderError(reference=reference))


def _let_go(hold: Hold) -> None:
    """The work was stopped: canceled by somebody, given back by a worker that ends, or already another worker's."""
    from worker import runtime

    rows = hold.rows()
    now = timezone.now()
    if rows.model is Conversion and rows.filter(cancel_requested=True).update(
        state=Conversion.State.CANCELED, finished_at=now, **FREE
    ):
        return
    if runtime.stopping.is_set():
        hold.put_back()


def _inspect(hold: Hold, version: ModelVersion, folder: Path) -> None:
    from worker import pipeline, runtime

    source = version.source
    path = storage.path_of(source.sha256)
    try:
        consent = _consent(version)
        seen = pipeline.inspect(
            runtime.zygote(),
            path,
            source.format,
            folder,
            _limits(),
            consent=consent,
            canceled=hold.canceled,
            name=version.upload_name,
        )
    except SandboxMissing:  # the file is not at fault: it waits for a worker that can contain jobs
        hold.put_back()
    else:
        _mark_inspected(hold, version, seen)


@transaction.atomic
def _mark_inspected(hold: Hold, version: ModelVersion, seen: Inspection) -> None:
    """Keep what was seen, also of a model that does not load."""
    known = version.findings
    together = known + [finding for finding in seen.findings if finding not in known]
    weights = seen.weights if re.fullmatch("[0-9a-f]{64}", seen.weights) else ""  # a job wrote it

    def publish(**outcome: Any) -> None:
        said = [finding.to_json() for finding in together]
        hold.publish(summary_data=seen.summary.to_json(), findings_data=said, weights_sha256=weights, **outcome)

    if seen.error:
        _mark_unreadable(publish, version, seen.error)
        return
    publish(state=ModelVersion.State.INSPECTED)
    transaction.on_commit(lambda: _tell_of_samples(version))
    record(SYSTEM, Tag.VERSION_INSPECTED, version.team, version, findings=[item.code for item in together])


@transaction.atomic
def _mark_unreadable(publish: Callable[..., None], version: ModelVersion, error: LarderError) -> None:
    publish(state=ModelVersion.State.UNREADABLE, error=error.to_json())
    record(SYSTEM, Tag.VERSION_UNREADABLE, version.team, version, code=error.code, message=error.message)
    _raise_alarm(version, "inspecting it", error)


def _consent(version: ModelVersion) -> Consent | None:
    """What the version's jobs may go by, looked up for each; code runs behind whole walls alone, or not at all."""
    from worker import runtime
    from worker.custom_code import Consent, check_walls

    given = consent_of(version)
    if given is None:
        return None
    check_walls(runtime.zygote().absent)
    return Consent(str(given.given_by), storage.path_of(version.code_sha256) if version.code_sha256 else None)


def _raise_alarm(version: ModelVersion, doing: str, error: LarderError) -> None:
    """Where a job tried what no model needs: nothing of the version goes anywhere any more, and people are told."""
    if not isinstance(error, Forbidden):
        return
    found = findings_from_json(error.details.get("attempts", ()))
    tried = [finding.to_json() for finding in found]
    version.attempts.create(doing=doing, findings_data=tried)
    said = {"doing": doing, "tried": [finding.sentence for finding in found]}
    record(SYSTEM, Tag.ATTEMPT_STOPPED, version.team, version, **said)
    _stop_others(version)  # before its files are looked for: what is published from now on is not
    fresh = ModelVersion.objects.select_for_update().get(pk=version.pk)
    fresh.findings_data += [finding for finding in tried if finding not in fresh.findings_data]
    fresh.save(update_fields=["findings_data"])
    for artifact in version.artifacts.exclude(quarantines__in=Quarantine.objects.open()):
        put_in_quarantine(SYSTEM, artifact, Cause.FORBIDDEN, error.message)


def _stop_others(version: ModelVersion) -> None:
    under_way = Conversion.objects.unfinished().filter(version=version)
    under_way.filter(state=Conversion.State.RUNNING).update(cancel_requested=True)
    canceled = {"state": Conversion.State.CANCELED, "cancel_requested": True, "finished_at": timezone.now()}
    under_way.filter(state=Conversion.State.QUEUED).update(**canceled)


def _tell_of_samples(version: ModelVersion) -> None:
    """Those that were given while nobody knew what the model takes."""
    for samples in Samples.objects.waiting().filter(version=version):
        dispatch(fit_samples, samples)


def _fit_samples(hold: Hold, samples: Samples, folder: Path) -> None:
    from worker import fitting, runtime

    inputs = samples.version.summary.inputs
    if not inputs:
        hold.publish(state=Samples.State.UNKNOWN)
        return
    link = _link_to(samples, folder)
    try:
        found = fitting.fit(runtime.zygote(), link, inputs, folder, _limits(), canceled=hold.canceled)
    except SandboxMissing:  # the samples are not at fault
        hold.put_back()
    else:
        _mark_fit(hold, samples, found)


@transaction.atomic
def _mark_fit(hold: Hold, samples: Samples, found: Fit) -> None:
    hold.publish(state=Samples.State.FITS, fit_data=found.to_json())
    said = {"name": samples.name, "sha256": samples.sha256, "inputs": [item.said for item in found.inputs]}
    record(SYSTEM, Tag.SAMPLES_FIT, samples.team, samples.version, **said)


@transaction.atomic
def _mark_unfit(publish: Callable[..., None], samples: Samples, error: LarderError) -> None:
    """They do not fit; or it could not be found out, which is not held against them."""
    if not isinstance(error, BadSamples):
        publish(state=Samples.State.UNKNOWN, error=error.to_json())
        return
    publish(state=Samples.State.UNFIT, error=error.to_json())
    said = {"name": samples.name, "sha256": samples.sha256, "message": error.message}
    record(SYSTEM, Tag.SAMPLES_UNFIT, samples.team, samples.version, **said)


def _convert(hold: Hold, conversion: Conversion, folder: Path) -> None:
    from worker import pipeline, runtime

    version = conversion.version
    upload = version.source
    path = storage.path_of(upload.sha256)
    source = pipeline.Source(path, upload.format, version.summary, name=version.upload_name)
    result = pipeline.convert(
        runtime.zygote(),
        source,
        conversion.target,
        conversion.options,
        folder,
        _limits(),
        samples=_link_to(conversion.samples, folder) if conversion.samples else None,
        consent=_consent(version),
        stage=_stages(hold),
        canceled=hold.canceled,
    )
    _keep(hold, conversion, result)


def _link_to(samples: Samples, folder: Path) -> Path:
    """A link to the samples under the name that people gave them, which is what messages say."""
    link = folder / "samples" / samples.name.rpartition("/")[2][:60]  # four bytes each at most
    link.parent.mkdir(mode=0o700)
    link.symlink_to(storage.path_of(samples.sha256))
    return link


def _stages(hold: Hold) -> Callable[[str], None]:
    """Writes each stage down with its time, for the people who watch."""
    passed: list[dict[str, str]] = []

    def stage(text: str) -> None:
        passed.append({"at": timezone.now().isoformat(), "text": text})
        hold.rows().update(stage=text[:120], stages=passed)

    return stage


def _keep(hold: Hold, conversion: Conversion, result: Result) -> None:
    """Store the result: to be handed out, or in quarantine where it differs from its source."""
    name = download_name(conversion.version, conversion.target, conversion.options, result.path)
    keep = _set_aside if result.report.verdict is Verdict.DIFFERS else _offer
    keep(hold, conversion, name, storage.adopt(result.path), result.report)


@transaction.atomic
def _offer(hold: Hold, conversion: Conversion, name: str, stored: storage.Stored, report: Report) -> None:
    artifact = _add_artifact(conversion, name, stored)
    hold.publish_wanted(**_final(Conversion.State.SUCCEEDED, report), artifact=artifact)
    said = {"target": conversion.target, "verdict": report.verdict, "sha256": stored.sha256}
    record(SYSTEM, Tag.CONVERSION_SUCCEEDED, conversion.team, conversion, **said)


@transaction.atomic
def _set_aside(hold: Hold, conversion: Conversion, name: str, stored: storage.Stored, report: Report) -> None:
    """The conversion has failed, and what came out is kept where nobody gets it until a person releases it."""
    artifact = _add_artifact(conversion, name, stored)
    error = VerificationError(problem=report.reason.removesuffix("."))
    _fail(partial(hold.publish_wanted, artifact=artifact), conversion, error, report)
    put_in_quarantine(SYSTEM, artifact, Cause.DIFFERS, report.reason)


def _add_artifact(conversion: Conversion, name: str, stored: storage.Stored) -> Artifact:
    """LostLease where somebody no longer wants it."""
    artifact = conversion.version.artifacts.create(
        format=conversion.target,
        name=name,
        sha256=stored.sha256,
        size=stored.size,
        origin=Artifact.Origin.CONVERTED,
    )
    if Conversion.objects.filter(pk=conversion.pk, cancel_requested=True).exists():
        raise LostLease
    return artifact


@transaction.atomic
def _fail(
    publish: Callable[..., None], conversion: Conversion, error: LarderError, report: Report | None = None
) -> None:
    publish(**_final(Conversion.State.FAILED, report), error=error.to_json())
    said = {"target": conversion.target, "code": error.code, "message": error.message}
    record(SYSTEM, Tag.CONVERSION_FAILED, conversion.team, conversion, **said)
    _raise_alarm(conversion.version, f"converting it to {conversion.title}"[:100], error)


def _final(state: Conversion.State, report: Report | None) -> dict[str, Any]:
    data = report.to_json() if report else None
    return {"state": state, "finished_at": timezone.now(), "stage": "", "report_data": data}


def _measure(hold: Hold, measurement: Measurement, folder: Path) -> None:
    from worker import measuring, runtime

    table = measuring.measure(
        runtime.zygote(),
        [_variant(*pair) for pair in variants_of(measurement.version)],
        folder,
        _limits(),
        consent=_consent(measurement.version),
        stage=partial(_say_stage, hold),
        canceled=hold.canceled,
    )
    _mark_measured(hold, measurement, table)


def _say_stage(hold: Hold, text: str) -> None:
    hold.rows().update(stage=text[:120])


def _variant(artifact: Artifact, conversion: Conversion | None) -> Variant:
    from worker.measuring import Variant, nearness

    report = conversion.report if conversion else None
    return Variant(
        path=storage.path_of(artifact.sha256),
        format=artifact.format,
        name=artifact.name,
        sha256=artifact.sha256,
        options=conversion.options_said if conversion else "",
        near=nearness(report),
        verdict=report.verdict if report else None,
        is_source=conversion is None,
    )


@transaction.atomic
def _mark_measured(hold: Hold, measurement: Measurement, table: Table) -> None:
    hold.publish(state=Measurement.State.DONE, table=table.to_json(), finished_at=timezone.now())
    said = {"files": len(table.rows), "rounds": table.rounds}
    record(SYSTEM, Tag.MEASUREMENT_DONE, measurement.team, measurement.version, **said)


@transaction.atomic
def _mark_unmeasured(publish: Callable[..., None], measurement: Measurement, error: LarderError) -> None:
    publish(state=Measurement.State.FAILED, error=error.to_json(), finished_at=timezone.now())
    said = {"code": error.code, "message": error.message}
    record(SYSTEM, Tag.MEASUREMENT_FAILED, measurement.team, measurement.version, **said)
    _raise_alarm(measurement.version, "measuring it", error)


def download_name(version: ModelVersion, slug: str, chosen: Mapping[str, Any], result: Path) -> str:
    """``mnist-v2-int8.tflite``: archives carry the format too, or all of them would be called ``mnist-v2.zip``.

    What was written anew says so: the file that it was made of has the same suffix.
    """
    suffix = archive.suffix_of(result, formats.get(slug).suffixes)
    shared = f"-{slug.replace('_', '-')}" if suffix in (".zip", ".tar.gz") else ""
    renewed = "-renewed" if slug == version.source.format else ""
    return f"{version.model.slug}-v{version.number}{shared}{options.in_a_name(slug, chosen)}{renewed}{suffix}"


def _limits() -> Limits:
    return Limits(
        memory_bytes=settings.JOB_MEMORY_BYTES,
        disk_bytes=settings.JOB_DISK_BYTES,
        wall_seconds=settings.JOB_WALL_SECONDS,
    )


def _recover_conversion(conversion: Conversion) -> None:
    """Cancel a conversion whose worker is gone where somebody asked for that; else as any other row."""
    if conversion.cancel_requested:
        _still_lost(conversion).update(state=Conversion.State.CANCELED, finished_at=timezone.now(), **FREE)
    else:
        _recover(conversion, _fail)


def _recover(row: Row, fail: Callable[..., None]) -> None:
    """Leave a row whose worker is gone to the next one, or give it up after the last attempt."""
    same = _still_lost(row)
    if row.attempt < settings.MAX_ATTEMPTS:
        same.update(**(QUEUED_AGAIN if isinstance(row, Conversion) else {**FREE, "dispatched_at": None}))
    else:
        with suppress(LostLease):
            fail(Hold(lambda: same).publish, row, WorkerLost(attempts=row.attempt))


def _still_lost(row: Row) -> Any:
    """The row as long as its worker is silent and nobody else has taken it."""
    rows: Any = type(row).objects
    return rows.lost().filter(pk=row.pk, lease_token=row.lease_token)


@contextmanager
def _job_folder() -> Iterator[Path]:
    """A private folder for one piece of work (mkdtemp gives it mode 0700) that is gone afterwards."""
    storage.prepare()
    folder = Path(tempfile.mkdtemp(dir=settings.JOBS_ROOT))
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(path: Path) -> None:
    """Remove a file or folder, also one whose inner folders a job has made unreadable, or too deep for ``rmtree``."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    pending = [path]
    while pending:
        folder = pending.pop()
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                pending.append(path / uuid.uuid4().hex)  # to the top, so that no path grows and nothing recurses
                os.chmod(entry.path, 0o700)
                os.rename(entry.path, pending[-1])
            else:
                os.unlink(entry.path)
        if folder != path:
            folder.rmdir()
    path.rmdir()


def _sweep() -> None:
    """Remove what an interrupted process left behind a day ago."""
    limit = time.time() - STALE.total_seconds()
    for root in (settings.STAGING_ROOT, settings.JOBS_ROOT):
        for left in root.glob("*"):
            with suppress(OSError):
                if left.lstat().st_mtime < limit:
                    _remove(left)
    long_ago = timezone.now() - STALE
    Upload.objects.filter(created_at__lt=long_ago).delete()
    WorkerNode.objects.filter(seen_at__lt=long_ago).delete()


_node = Heartbeat(lambda: _say_here(), NODE_SECONDS, connections.close_all)


def come_up() -> None:
    """Called once when the worker is ready."""
    storage.prepare()
    _say_here()
    _node.start()
    reconcile()
    connections.close_all()


def go_down() -> None:
    """Called once when the worker ends: nobody should wait for it any more."""
    _node.stop()
    WorkerNode.objects.filter(name=_node_name()).delete()
    connections.close_all()


def _say_here() -> None:
    from worker import runtime

    close_old_connections()
    said = {
        "seen_at": timezone.now(),
        "versions": versions(*formats.formats().values()),
        "sandbox_layers": runtime.runtime.layers,
        "sandbox_probes": runtime.runtime.probes,
        "sandbox_problem": runtime.runtime.problem,
        "checked_at": runtime.runtime.checked_at,
    }
    node, _ = WorkerNode.objects.update_or_create(name=_node_name(), defaults=said)
    if node.is_check_due:
        runtime.check_again()


def _node_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
