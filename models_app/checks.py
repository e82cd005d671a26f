"""What can be wrong with a configuration, found when Larder starts rather than when somebody needs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks

LOOPBACK = ("127.", "localhost", "[::1]", "unix:")
MIN_LEASE_SECONDS = 6


def register_all() -> None:
    found: list[Callable[..., Sequence[checks.CheckMessage]]] = [data_folder, lease, exposure]
    for check in found:
        checks.register(check, "larder")


def data_folder(**scope: Any) -> list[checks.CheckMessage]:
    """Everything Larder writes goes there."""
    folder: Path = settings.LARDER_DATA
    problem = ""
    if not folder.is_dir():
        problem = "is not a folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem = "is not writable"
    if not problem:
        return []
    hint = "Make it writable for the account that runs Larder, or set LARDER_DATA to another folder."
    return [checks.Error(f"LARDER_DATA {folder} {problem}.", hint=hint, id="larder.E001")]


def lease(**scope: Any) -> list[checks.CheckMessage]:
    """A lease is renewed after a third of it, once a second at most."""
    if settings.LEASE_SECONDS >= MIN_LEASE_SECONDS:
        return []
    hint = f"Set it to {MIN_LEASE_SECONDS} or more, or a busy worker loses work that it is doing."
    return [checks.Error(f"LARDER_LEASE_SECONDS is {settings.LEASE_SECONDS}.", hint=hint, id="larder.E002")]


def exposure(**scope: Any) -> list[checks.CheckMessage]:
    """Passwords must not travel in the clear, and the demo account is for one's own machine."""
    if settings.LARDER_BIND.startswith(LOOPBACK):
        return []
    found: list[checks.CheckMessage] = []
    if not settings.HTTPS:
        hint = "Put a proxy with HTTPS before it and set LARDER_HTTPS=1, or bind 127.0.0.1."
        found.append(
            checks.Warning(f"LARDER_BIND {settings.LARDER_BIND} is served in the clear.", hint, id="larder.W001")
        )
    if settings.LARDER_DEMO:
        hint = "Set LARDER_DEMO=0, or bind 127.0.0.1: the sign-in page shows the demo account's password."
        found.append(checks.Warning("Others can reach the demo account.", hint, id="larder.W002"))
    return found
