"""How long pages of `graftonnx view` take: to write, and to open in Chromium, by the number of operators.

    .venv/bin/python tools/bench/view.py [--sizes 300 3000 20000] [--repeats 5]

Networks are random: convolutions, sums, activations. A page is open when its script has run and two frames
are drawn; a search and a click on a block are timed likewise. Medians of five on two cores that other work
shared:

    operators    page MB    load s    write s    open ms    search ms    click ms
          301       0.08       0.0        0.4        599           74          30
        3,001       0.28       0.8        1.3        761          138          23
       20,001       1.34       4.4        8.4       1101          150         227
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver

from graftonnx.drawing import view
from graftonnx.model import from_proto

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from dags import random_dag

AFTER_FRAMES = """
const [act, done] = arguments;
const start = performance.now();
new Function(act)();
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
"""

OPENED = """
const done = arguments[0];
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())));
"""

SEARCH = (
    "const s = document.getElementById('search'); s.value = 'relu_1'; s.dispatchEvent(new Event('input'));"
)
CLICK = (
    "document.querySelectorAll('.box[data-key]')[3].dispatchEvent(new MouseEvent('click', {bubbles: true}));"
)


def open_browser() -> webdriver.Chrome:
    """Return Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[300, 3_000, 20_000])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print("operators    page MB    load s    write s    open ms    search ms    click ms")
    browser = open_browser()
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            start = time.perf_counter()
            network = from_proto(random_dag(size), f"dag{size}.onnx")
            loaded = time.perf_counter()
            page = view(network, output=Path(folder) / f"{size}.html")
            written = time.perf_counter()
            found: list[list[float]] = [[], [], []]
            for _ in range(arguments.repeats):
                browser.get(page.as_uri())
                found[0].append(browser.execute_async_script(OPENED))
                found[1].append(browser.execute_async_script(AFTER_FRAMES, SEARCH))
                found[2].append(browser.execute_async_script(AFTER_FRAMES, CLICK))
            opened, searched, clicked = (statistics.median(times) for times in found)
            print(
                f"{len(network.view.nodes):9,}  {page.stat().st_size / 1e6:9.2f}  {loaded - start:8.1f}  "
                f"{written - loaded:9.1f}  {opened:9.0f}  {searched:11.0f}  {clicked:10.0f}"
            )
    browser.quit()


if __name__ == "__main__":
    main()
