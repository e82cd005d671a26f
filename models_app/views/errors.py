"""Every refusal and failure becomes a page, or JSON, here and nowhere else."""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied, TooManyFilesSent
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseServerError, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from worker.errors import LarderError

log = logging.getLogger(__name__)
View = TypeVar("View", bound=Callable[..., Any])

TITLES = {
    400: "This request cannot be answered",
    403: "You may not do this",
    404: "There is nothing here",
    409: "This cannot be done any more",
    413: "The file is too large",
    423: "This file is in quarantine",
    429: "Too many attempts",
    503: "This cannot be done just now",
}
NOT_FOUND = "The address may be mistyped, or what was here belongs to a team that you are not a member of."


def answers_json(view: View) -> View:
    """Marks a view that scripts call: its errors are JSON too."""
    view.answers_json = True  # type: ignore[attr-defined]
    return view


class ErrorPages:
    """Turns a LarderError that a view lets through into its sentence and status."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        request.answers_json = getattr(view, "answers_json", False)  # type: ignore[attr-defined]

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, LarderError):
            return error_response(request, error.http_status, error.message, error.code)
        return None


@contextmanager
def telling_refusals(request: HttpRequest) -> Iterator[None]:
    """Whatever LarderError ends the block, the person reads its sentence on the next page, and the view goes on."""
    try:
        yield
    except LarderError as error:
        messages.error(request, error.message)


def error_response(request: HttpRequest, status: int, sentence: str, code: str) -> HttpResponse:
    if getattr(request, "answers_json", False):
        return JsonResponse({"error": {"code": code, "message": sentence}}, status=status)
    said = {"status": status, "title": TITLES.get(status, TITLES[400]), "sentence": sentence, "code": code}
    return render(request, "errors/error.html", said, status=status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    sentence = "Something in this request was not as expected. Go back, reload the page and try again."
    if isinstance(exception, TooManyFilesSent):
        most = settings.DATA_UPLOAD_MAX_NUMBER_FILES
        sentence = f"More than {most} files were sent at once. Send fewer, or put them all into one ZIP."
    return error_response(request, 400, sentence, "bad-request")


def forbidden(request: HttpRequest, exception: PermissionDenied) -> HttpResponse:
    return error_response(request, 403, str(exception) or "You may not do this.", "forbidden")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    sentence = "The page was open for too long, or cookies are switched off. Reload the page and try again."
    return error_response(request, 403, sentence, "csrf")


def not_found(request: HttpRequest, exception: Http404) -> HttpResponse:
    said = str(exception)
    return error_response(request, 404, said if isinstance(exception, Gone) else NOT_FOUND, "not-found")


class Gone(Http404):
    """A 404 with a sentence of its own."""


def server_error(request: HttpRequest) -> HttpResponse:
    """The page knows nothing of the request: whatever broke may be what a page would need."""
    reference = uuid.uuid4().hex[:8]
    log.error("reference %s: %s %s failed", reference, request.method, request.path, exc_info=sys.exc_info())
    if getattr(request, "answers_json", False):
        return JsonResponse({"error": LarderError(reference=reference).to_json()}, status=500)
    return HttpResponseServerError(render_to_string("errors/server_error.html", {"reference": reference}))
