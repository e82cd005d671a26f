"""Pages show what is hidden in the names and texts of strangers, wherever these stand in them."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from worker.visible import visible


class ShowHidden:
    """Goes over every finished page: our own templates hold no such character, so that each is somebody else's."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if not response.streaming and response.get("Content-Type", "").startswith("text/html"):
            _show(response)
        return response


def _show(response: HttpResponse) -> None:
    text = response.content.decode()
    if (shown := visible(text)) != text:
        response.content = shown.encode()
        response["Content-Length"] = str(len(response.content))
