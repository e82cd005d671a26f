"""What every test may use: a whole running Larder, and a browser that is signed in to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import CHROMIUM_ARGUMENTS, find_chromium, sign_in
from tests.stack import Stack
from worker.sandbox.client import Zygote

if TYPE_CHECKING:
    from playwright.sync_api import Page


MAX_UPLOAD_MIB = 64  # of the shared Larder, so that a file over the limit is quickly made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: Playwright's event loop stays in the main thread, and the ORM will not work beside one."""
    items.sort(key=lambda item: "acceptance" in item.path.parts)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running Larder with its demo account and sample models: real Redis, worker, zygote and web server."""
    with Stack(tmp_path_factory.mktemp("stack"), {"LARDER_MAX_UPLOAD_MB": str(MAX_UPLOAD_MIB)}) as running:
        yield running


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """The system's Chromium."""
    return {**browser_type_launch_args, "executable_path": find_chromium(), "args": CHROMIUM_ARGUMENTS}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any], stack: Stack) -> dict[str, Any]:
    """Pages are given by path: ``page.goto("/")``."""
    return {**browser_context_args, "base_url": stack.url, "viewport": {"width": 1280, "height": 900}}


@pytest.fixture
def signed_in_page(page: Page, stack: Stack) -> Page:
    """A page of the demo account."""
    sign_in(page, *stack.login)
    return page


@pytest.fixture
def shared() -> Path:
    """The corpus and the hostile files that lie beside the checkout on the project's own machines."""
    return Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """One warm zygote for every test that runs jobs: the product's steps, and those that misbehave."""
    with Zygote(steps=("worker.steps", "tests.worker.fake_steps")) as warm:
        yield warm
