"""Receiving files, and writing down the ones that were refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings

from models_app import storage
from models_app.models import Actor, Tag, Team, Upload, record
from worker.errors import LengthRequired, UploadError
from worker.visible import is_hidden

NAME_LENGTH = 255


def receive(actor: Actor, team: Team, name: str, stream: storage.Readable, length: int | None) -> Upload:
    """Store one file that a person sends; a refusal is an UploadError and stands in the history."""
    name = clean_name(name)
    with refusals(actor, team, name):
        if length is None:
            raise LengthRequired
        stored = storage.receive(stream, length, settings.MAX_UPLOAD_BYTES, name)
    return Upload.objects.create(team=team, user=actor.person, name=name, size=stored.size, sha256=stored.sha256)


@contextmanager
def refusals(actor: Actor, team: Team, name: str) -> Iterator[None]:
    """Record any UploadError of the block, then let it go on. Outside of transactions, or the record would go too."""
    try:
        yield
    except UploadError as error:
        record(actor, Tag.UPLOAD_REFUSED, team, name, code=error.code, message=error.message)
        raise


def clean_name(typed: str) -> str:
    """The name for display: a relative path without control characters, "..", or anything that leads elsewhere."""
    seen = "".join(char for char in typed if not is_hidden(char)).replace("\\", "/")
    parts = [part.strip() for part in seen[-NAME_LENGTH:].split("/")]
    return "/".join(part for part in parts if part not in ("", ".", "..")) or "file"
