"""A real browser for tests: Debian's headless Chromium, or one that playwright brought; None where there is neither."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


def missing_browser() -> str | None:
    """Why no browser can be tested with."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "no playwright: pip install playwright"
    if any(shutil.which(name) for name in NAMES) or (Path.home() / ".cache/ms-playwright").is_dir():
        return None
    return f"no browser: install one of {', '.join(NAMES)}"


@contextmanager
def open_browser() -> Iterator[Any]:
    """A browser that draws with the CPU."""
    from playwright.sync_api import sync_playwright

    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()
