"""What is said about a configuration at the start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from models_app import checks
from tests.stack import ROOT, clean_environment


def ids(found: list[Any]) -> list[str]:
    return [message.id for message in found]


def test_it_works() -> None:
    assert checks.data_folder() + checks.lease() + checks.exposure() == []


def test_data_folder(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.LARDER_DATA = tmp_path / "missing"
    (message,) = checks.data_folder()
    assert (message.id, "is not a folder" in message.msg) == ("larder.E001", True)
    settings.LARDER_DATA = tmp_path
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert "is not writable" in checks.data_folder()[0].msg


def test_lease(settings: Settings) -> None:
    settings.LEASE_SECONDS = 5
    assert ids(checks.lease()) == ["larder.E002"]


@pytest.mark.parametrize(
    ("bind", "https", "demo", "expected"),
    [
        ("127.0.0.1:8000", False, True, []),
        ("localhost:8000", False, True, []),
        ("0.0.0.0:8000", False, False, ["larder.W001"]),
        ("0.0.0.0:8000", False, True, ["larder.W001", "larder.W002"]),
        ("192.0.2.1:8000", True, False, []),
    ],
)
def test_exposure(settings: Settings, bind: str, https: bool, demo: bool, expected: list[str]) -> None:
    settings.LARDER_BIND, settings.HTTPS, settings.LARDER_DEMO = bind, https, demo
    assert ids(checks.exposure()) == expected


def test_deployment_with_https_has_nothing_to_say(tmp_path: Path) -> None:
    key = "".join(chr(65 + number % 57) for number in range(120))
    environment = clean_environment(
        LARDER_DATA=str(tmp_path), LARDER_HTTPS="1", LARDER_SECRET_KEY=key, LARDER_HOSTS="larder.example.org"
    )
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
