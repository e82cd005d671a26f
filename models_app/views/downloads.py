"""Sending a stored file: whole or a range of it, so that an interrupted download can go on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.http import content_disposition_header, parse_etags

from models_app import storage
from models_app.actions import quarantine
from models_app.models import Artifact
from models_app.models.quarantine import Cause

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Span:
    """The bytes to send; ``partial`` where the request named a range."""

    start: int
    end: int  # inclusive
    partial: bool = False

    @property
    def length(self) -> int:
        return self.end - self.start + 1


class Chunks:
    """Reads the span piece by piece. The response closes it, also where nobody has read anything."""

    def __init__(self, file: BinaryIO, span: Span) -> None:
        self._file, self._left = file, span.length
        file.seek(span.start)

    def __iter__(self) -> Iterator[bytes]:
        while self._left > 0 and (chunk := self._file.read(min(CHUNK_BYTES, self._left))):
            self._left -= len(chunk)
            yield chunk

    def close(self) -> None:
        self._file.close()


def send(request: HttpRequest, artifact: Artifact, record: Callable[[], None]) -> HttpResponseBase:
    """The file, after ``record`` has written down that it is being downloaded; Quarantined where nobody may have it."""
    quarantine.check_handed_out(artifact)
    etag = f'"{artifact.sha256}"'
    if etag in parse_etags(request.headers.get("If-None-Match", "")):
        return HttpResponse(status=304, headers={"ETag": etag})
    span = _span(request, artifact.size, etag)
    if span is None:
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{artifact.size}"})
    response = _body(request, artifact, span, record)
    for name, value in _headers(artifact, span, etag).items():
        response[name] = value
    return response


def _body(request: HttpRequest, artifact: Artifact, span: Span, record: Callable[[], None]) -> HttpResponseBase:
    if request.method == "HEAD":
        return HttpResponse()
    file = _open(artifact)
    record()
    return StreamingHttpResponse(Chunks(file, span), status=206 if span.partial else 200)


def _open(artifact: Artifact) -> BinaryIO:
    """The file, unless its bytes are no longer those that were published: then it is in quarantine from now on."""
    try:
        return storage.open_whole(storage.Stored(artifact.sha256, artifact.size))
    except storage.Altered:
        quarantine.put_altered(artifact)
        raise quarantine.refusal(artifact, Cause.ALTERED) from None


def _headers(artifact: Artifact, span: Span, etag: str) -> dict[str, str]:
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(span.length),
        "Content-Disposition": content_disposition_header(True, artifact.name) or "attachment",
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if span.partial:
        headers["Content-Range"] = f"bytes {span.start}-{span.end}/{artifact.size}"
    return headers


def _span(request: HttpRequest, size: int, etag: str) -> Span | None:
    """One range of RFC 9110 §14; several at once, or of another file (If-Range), mean the whole. None: beyond it."""
    whole = Span(0, size - 1)
    asked = re.fullmatch(r"bytes=(\d{0,19})-(\d{0,19})", request.headers.get("Range", ""))
    if request.method != "GET" or not asked or asked[0] == "bytes=-" or request.headers.get("If-Range", etag) != etag:
        return whole
    first, last = asked.groups()
    start, end = (int(first), int(last or size)) if first else (max(0, size - int(last)), size)
    if first and last and start > end:
        return whole  # not a range at all
    return Span(start, min(end, size - 1), partial=True) if start < size else None
