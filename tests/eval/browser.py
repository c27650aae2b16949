"""Headless Chromium for the tests of pages: Debian's packages `chromium` and `chromium-driver`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Root needs --no-sandbox; the rest keeps Chromium from looking for a network."""

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")

requires_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium here; apt-get install chromium chromium-driver"
)


@contextmanager
def open_page(page: Path | str, *, width: int = 1280, height: int = 900) -> Iterator:
    """Open a file or an address in Chromium at a window size in CSS pixels and yield selenium's driver."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; pip install selenium")
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory() as profile:
        options = selenium.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = selenium.Chrome(options=options, service=Service(DRIVER))
        try:
            # Narrower than Chromium's smallest window is only possible through the emulation of a device.
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            driver.get(page if isinstance(page, str) else page.resolve().as_uri())
            yield driver
        finally:
            driver.quit()
