"""Settings from the environment: typed, loud on nonsense, and listed with their defaults for docs/settings.md."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """One documented environment variable."""

    name: str
    default: str
    help: str


SETTINGS: list[Setting] = []


def _read(name: str, default: T, help: str, parse: Callable[[str], T]) -> T:
    SETTINGS.append(Setting(name, str(default), help))
    raw = os.environ.get(name, "")
    if raw == "":
        return default
    try:
        return parse(raw)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is {raw!r}: {error}. {help}") from None


def text(name: str, default: str, help: str) -> str:
    """A string."""
    return _read(name, default, help, str)


def integer(name: str, default: int, help: str) -> int:
    """A whole number of at least 0."""

    def parse(raw: str) -> int:
        if not raw.isdigit():
            raise ValueError("expected a whole number")
        return int(raw)

    return _read(name, default, help, parse)


def boolean(name: str, default: bool, help: str) -> bool:
    """1 or 0; nothing else, so that LARDER_X=off is not read as true."""

    def parse(raw: str) -> bool:
        if raw not in ("0", "1"):
            raise ValueError("expected 1 or 0")
        return raw == "1"

    return _read(name, default, help, parse)


def words(name: str, default: list[str], help: str) -> list[str]:
    """A comma-separated list."""
    return _read(name, default, help, lambda raw: [word.strip() for word in raw.split(",") if word.strip()])


def path(name: str, default: Path, help: str) -> Path:
    """An absolute path."""
    return _read(name, default, help, lambda raw: Path(raw).expanduser().resolve())


def secret(name: str, default: str, help: str) -> str:
    """A string that may also stand in the file named by NAME_FILE, as container secrets do."""
    file = os.environ.get(f"{name}_FILE", "")
    if not file:
        return text(name, default, help)
    SETTINGS.append(Setting(name, default, help))
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ImproperlyConfigured(f"{name}_FILE is {file!r}: {error.strerror}. {help}") from None
