"""Programs that tests need: Graphviz, and chromium, driven by playwright.

`opened` opens a page and notes whatever goes wrong in it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


def program(package: str, *names: str) -> str:
    """A program's path; without it the test is skipped, but fails in CI, which installs it."""
    found = [path for name in names if (path := shutil.which(name))]
    if not found:
        message = f"no {names[0]}: apt-get install {package}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return found[0]


def chromium() -> str:
    """The browser's path."""
    return program("chromium", *NAMES)


def graphviz() -> str:
    """The path of Graphviz' dot."""
    return program("graphviz", "dot")


@contextmanager
def started() -> Iterator[Any]:
    """A browser, headless."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, **context: Any) -> Iterator[tuple[Any, list[str]]]:
    """The page in the browser, and a list that grows with its errors, warnings and requests."""
    with browser.new_context(**{"viewport": WIDE, **context}) as window:
        page = window.new_page()
        page.set_default_timeout(90_000)  # busy machines: a page of megabytes takes its time
        troubles: list[str] = []

        def dismissed(dialog: Any) -> None:
            troubles.append(f"a dialog: {dialog.message}")
            dialog.dismiss()

        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text)
                if message.type in ("error", "warning") else None)  # fmt: skip
        page.on("dialog", dismissed)
        page.on("request", lambda request: troubles.append(request.url)
                if not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        yield page, troubles


def until(page: Any, condition: str, seconds: float = 10) -> None:
    """Waits until the condition (JavaScript) holds; asked from outside: pages allow no eval."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"{condition}: not within {seconds} s"
        page.wait_for_timeout(50)
