"""The page in a real browser: nothing is fetched, nothing complains, everything is there and fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import LOW_CONTRASTS, chromium, requested
from browser import show as show_page

from graftonnx.training.run import RunFolder

SECTIONS = ["curves", "classes", "confusion", "mistakes", "skips", "network", "data", "settings"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def show(browser: Any, finished: RunFolder) -> Any:
    """Open the page at a width, in pixels, and in a colour scheme."""

    def opened(width: int = 1200, scheme: str = "light") -> Any:
        return show_page(browser, finished.report, width, scheme)

    return opened


def test_complains_about_nothing_and_requests_nothing_but_itself(show: Any, finished: RunFolder) -> None:
    browser = show()
    assert browser.get_log("browser") == []
    assert requested(browser) == {finished.report.as_uri()}


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
    browser = show(scheme=scheme)
    selectors = ["body", ".lead", "a", ".c1", ".c2", ".c3"]
    assert browser.execute_script(LOW_CONTRASTS, selectors) == []
    dark = (
        browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 27)"
    )
    assert dark == (scheme == "dark")
