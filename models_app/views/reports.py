"""The report on a conversion as one JSON document (docs/report.md), and how anybody repeats its check at home."""

from __future__ import annotations

import re
import shlex
from typing import Any

from models_app.models import Artifact, Conversion, Quarantine
from worker import formats, loadback, node
from worker.report import SCHEMA, Report

Json = dict[str, Any]
LIBRARIES = ("tensorflow", "keras", "numpy")  # of every job; the others are those that its formats need
RELEASE = re.compile(r"[0-9A-Za-z.+!]+")
SAMPLES = "SAMPLES"  # stands for the folder or ZIP with several files, which has no name


def document(conversion: Conversion) -> Json:
    """All that is known about a conversion that has a report, and of the file that came out."""
    said: Json = conversion.report_data
    return {
        **said,
        "schema": SCHEMA,  # also of a report that was stored before its schema had a number
        "conversion": _conversion(conversion),
        "files": _files(conversion),
        "quarantine": [_stay(stay) for stay in conversion.artifact.quarantines.all()] if conversion.artifact else [],
        "repeat": repeat(conversion),
    }


def repeat(conversion: Conversion) -> Json | None:
    """The shell lines that repeat the check next to the two files; None where no file came out."""
    report, result = conversion.report, conversion.artifact
    if report is None or result is None:
        return None
    return {"install": _install(report), "node": _node(report), "command": _command(conversion, result)}


def _node(report: Report) -> str:
    """The shell line that installs TensorFlow.js, where it took part; else "". A checkout has its releases locked."""
    took_part = any(package in report.versions for package in node.PACKAGES)
    return f"scripts/setup  # TensorFlow.js, where Node {node.OLDEST} or newer and npm are there" if took_part else ""


def _install(report: Report) -> str:
    """The very libraries that took part; "" where none is known.

    A job wrote the names and releases, and people run this: nothing but the libraries of our own formats is named.
    """
    pins = [f"{name}=={release}" for name, release in sorted(report.versions.items()) if _is_pin(name, release)]
    return shlex.join(["python", "-m", "pip", "install", *pins]) if pins else ""


def _is_pin(name: str, release: object) -> bool:
    known = {*LIBRARIES, *(need.replace("_", "-") for item in formats.formats().values() for need in item.needs)}
    known |= {name for item in loadback.RUNTIMES.values() if not item.by_node for name in item.packages}
    return name in known and isinstance(release, str) and RELEASE.fullmatch(release) is not None


def _command(conversion: Conversion, result: Artifact) -> str:
    words = ["python", "manage.py", "verify", _argument(conversion.version.source.name), _argument(result.name)]
    for name, value in sorted(conversion.options.items()):
        words += ["--option", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
    if conversion.samples:
        name = SAMPLES if conversion.samples.is_several else conversion.samples.name.rpartition("/")[2]
        words += ["--inputs", _argument(name)]
    return shlex.join(words)


def _argument(name: str) -> str:
    """A file's name that no command takes for an option."""
    return f"./{name}" if name.startswith("-") else name


def _conversion(conversion: Conversion) -> Json:
    return {
        "id": str(conversion.pk),
        "team": conversion.team.slug,
        "model": conversion.version.model.slug,
        "version": conversion.version.number,
        "options": conversion.options,
        "state": conversion.state,
        "requested_at": conversion.requested_at.isoformat(),
        "finished_at": conversion.finished_at.isoformat() if conversion.finished_at else None,
    }


def _files(conversion: Conversion) -> Json:
    samples = conversion.samples
    given = {"name": samples.name, "sha256": samples.sha256, "size": samples.size} if samples else None
    source, result = _file(conversion.version.source), _file(conversion.artifact)
    return {"source": source, "result": result, "samples": given}


def _file(artifact: Artifact | None) -> Json | None:
    if artifact is None:
        return None
    return {
        "name": artifact.name,
        "format": artifact.format,
        "sha256": artifact.sha256,
        "size": artifact.size,
        "in_quarantine": artifact.quarantine is not None,
    }


def _stay(stay: Quarantine) -> Json:
    released = None
    if stay.released_at:
        by, reason = str(stay.released_by), stay.release_reason
        released = {"at": stay.released_at.isoformat(), "by": by, "reason": reason}
    put_by = str(stay.put_by) if stay.put_by else "larder"
    since = stay.since.isoformat()
    return {"cause": stay.cause, "reason": stay.reason, "since": since, "put_by": put_by, "released": released}
