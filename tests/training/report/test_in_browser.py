"""The page in a real browser: nothing is fetched, nothing complains, everything is there and fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from graftonnx.training.run import RunFolder

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

SECTIONS = ["curves", "classes", "confusion", "mistakes", "skips", "network", "data", "settings"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, which records what it requests."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium with its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture
def show(browser: Any, finished: RunFolder) -> Any:
    """Open the page at a width, in pixels, and in a colour scheme."""

    def opened(width: int = 1200, scheme: str = "light") -> Any:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(finished.report.as_uri())
        return browser

    return opened


def test_complains_about_nothing_and_requests_nothing_but_itself(show: Any, finished: RunFolder) -> None:
    browser = show()
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in requested if not url.startswith("data:")} == {finished.report.as_uri()}


def test_shows_every_section_and_every_picture(show: Any) -> None:
    browser = show()
    assert (
        browser.execute_script("return [...document.querySelectorAll('section')].map(s => s.id)") == SECTIONS
    )
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) >= 1
    assert min(widths) > 1
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('svg.chart')].map(s => s.getBoundingClientRect().height)"
    )
    assert len(boxes) == 4
    assert min(boxes) > 100


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_is_never_wider_than_the_window(show: Any, width: int) -> None:
    browser = show(width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(show: Any, scheme: str) -> None:
    # Contrast by WCAG 2.1, success criterion 1.4.3: at least 4.5.
    browser = show(scheme=scheme)
    contrasts = browser.execute_script(
        """
        const light = c => c <= 10 ? c / 3294 : ((c / 255 + 0.055) / 1.055) ** 2.4;
        const luminance = colour => {
            const [r, g, b] = colour.match(/[0-9.]+/g).map(Number).map(light);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const paper = luminance(getComputedStyle(document.body).backgroundColor);
        const contrast = colour => {
            const [low, high] = [luminance(colour), paper].sort((a, b) => a - b);
            return (high + 0.05) / (low + 0.05);
        };
        return ['body', '.lead', 'a', '.c1', '.c2', '.c3'].map(
            name => [name, contrast(getComputedStyle(document.querySelector(name)).color)]);
        """
    )
    assert {name: value for name, value in contrasts if value < 4.5} == {}
    dark = (
        browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 27)"
    )
    assert dark == (scheme == "dark")
