"""One Chromium a test process, for all tests that look at pages, and a watch on what these pages do.

A test that opens a page fails when that page logs an error or a warning, asks for a file that is not there, or asks for
anything that is not a file beside it. `tests/conftest.py` makes the fixtures known: a process can have only one
Playwright.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TIMEOUT = 30_000  # milliseconds; a page takes one second, on a machine that is busy with other tests far longer
NAMES = ("chromium", "chromium-browser", "google-chrome")
Visit = Callable[..., "Page"]


def find_chromium() -> str | None:
    """The browser named by REPRISE_CHROMIUM, or the first of the usual names on PATH."""
    named = os.environ.get("REPRISE_CHROMIUM")
    if named:
        return shutil.which(named)
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `make lock` installs it")
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium: `apt-get install chromium`, or name one with REPRISE_CHROMIUM")
    with api.sync_playwright() as playwright:
        # Containers run as root and have little shared memory.
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens pages: `visit(path, width=1280, dark=False, script=True)`; what goes wrong there fails the test."""
    problems: list[str] = []
    contexts = []

    def visit(path: Path, *, fragment: str = "", width: int = 1280, dark: bool = False, script: bool = True) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme="dark" if dark else "light",
            java_script_enabled=script,
            reduced_motion="reduce",
        )
        contexts.append(context)
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        watch(page, problems)
        page.goto(path.as_uri() + fragment)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


def watch(page: Page, problems: list[str]) -> None:
    """Note everything that a page should not do."""
    page.on("console", lambda said: problems.append(f"{said.type}: {said.text}") if said.type != "log" else None)
    page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
    page.on("request", lambda request: None if _is_local(request.url) else problems.append(f"asks for {request.url}"))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))


def _is_local(url: str) -> bool:
    return url.startswith(("file:", "data:"))
