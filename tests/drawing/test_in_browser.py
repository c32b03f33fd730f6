"""The pages in a real browser: nothing is fetched, nothing complains, everything can be reached and works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import LOW_CONTRASTS, chromium, requested, show
from builders import plain_cnn, residual_cnn
from click.testing import CliRunner
from dags import random_dag
from onnx import ModelProto

import graftonnx
from graftonnx.cli import graftonnx as cli
from graftonnx.fusion import fuse
from graftonnx.matching import candidates, match
from graftonnx.model import from_proto, load, save
from graftonnx.network import Network
from graftonnx.plan import Plan, from_yaml
from graftonnx.printable import printable

HOSTILE = "</script><script>document.title='owned'</script> \"'<img src=x onerror=alert(1)> \U0001f600 $x_$"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page of everything that can be drawn."""
    folder = tmp_path_factory.mktemp("pages")
    graftonnx.view(work / "a.onnx", output=folder / "parent.html")
    graftonnx.view(work / "plan.yaml", work / "a.onnx", work / "b.onnx", output=folder / "plan.html")
    graftonnx.view(work / "fused.onnx", output=folder / "fused.html")
    graftonnx.view(work / "run", output=folder / "run.html")
    return folder


def renamed(model: ModelProto, suffix: str) -> ModelProto:
    """Append text to the name of every value of a model but its input and output, and to every node's."""
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        node.name += suffix
        for names in (node.input, node.output):
            names[:] = [name if name in kept else name + suffix for name in names]
    for tensor in model.graph.initializer:
        tensor.name += suffix
    return model


@pytest.mark.parametrize("name", ["parent", "plan", "fused", "run"])
def test_complains_about_nothing_and_requests_nothing_but_itself(
    browser: Any, pages: Path, name: str
) -> None:
    page = pages / f"{name}.html"
    requested(browser)
    show(browser, page)
    for key in browser.execute_script("return [...shapes.keys()]"):
        browser.execute_script("choose(arguments[0])", key)
    assert browser.get_log("browser") == []
    assert requested(browser) == {page.as_uri()}


@pytest.mark.parametrize("width", [360, 768, 1600])
@pytest.mark.parametrize("name", ["plan", "run"])
def test_is_never_wider_than_the_window(browser: Any, pages: Path, width: int, name: str) -> None:
    show(browser, pages / f"{name}.html", width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(browser: Any, pages: Path, scheme: str) -> None:
    show(browser, pages / "run.html", scheme=scheme)
    selectors = ["body", ".lead", ".legend", "button.link", ".figure text", ".figure text.soft"]
    assert browser.execute_script(LOW_CONTRASTS, selectors) == []


def test_a_click_on_a_block_shows_its_operators_and_skips(browser: Any, pages: Path, fused: Network) -> None:
    show(browser, pages / "fused.html")
    skip = Plan.model_validate_json(fused.metadata.plan or "").skips[0]
    box = browser.find_element("css selector", f'.box[aria-label^="{skip.target},"]')
    box.click()
    details = browser.find_element("id", "details")
    assert details.find_element("tag name", "h3").text == skip.target
    operators = [row.text.split("\n")[0] for row in details.find_elements("css selector", "tbody th")]
    view = fused.view
    assert operators[-1] == view.kinds[view.position[skip.target]]
    assert skip.source in details.text
    assert "lit" in browser.find_element("css selector", '[data-key="s0"]').get_attribute("class")


def test_a_click_on_a_skip_leads_to_its_ends(browser: Any, pages: Path, plan: Plan) -> None:
    show(browser, pages / "fused.html")
    browser.execute_script("shapes.get('s1').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    details = browser.find_element("id", "details")
    assert str(plan.skips[1].projection) in details.text
    details.find_elements("css selector", "button.link")[0].click()
    assert details.find_element("tag name", "h3").text == plan.skips[1].source


def test_search_finds_names_and_operators(browser: Any, pages: Path) -> None:
    show(browser, pages / "fused.html")
    field = browser.find_element("id", "search")
    field.send_keys("s1.inner")
    results = browser.find_element("id", "results")
    assert results.find_element("tag name", "p").text == "1 block"
    assert len(browser.find_elements("css selector", ".box.found")) == 1
    field.send_keys("\ue007")  # Enter
    assert browser.find_element("css selector", "#details h3").text == "a/s1.inner"
    field.send_keys("\ue00c")  # Escape
    assert results.text == ""


def test_keys_reach_every_block_and_follow_the_figure(browser: Any, pages: Path) -> None:
    show(browser, pages / "fused.html")
    stops = browser.execute_script("return [...document.querySelectorAll('.figure [tabindex=\"0\"]')].length")
    assert stops == 1
    browser.execute_script("boxes[0].focus()")
    active = browser.switch_to.active_element
    active.send_keys("\ue015")  # down
    active = browser.switch_to.active_element
    assert active.get_attribute("data-key") == "0-1-0"
    active.send_keys("\ue014")  # right
    active = browser.switch_to.active_element
    assert active.get_attribute("data-key").startswith("1-")
    active.send_keys("\ue007")
    label = active.get_attribute("aria-label")
    assert browser.find_element("css selector", "#details h3").text == label.split(",")[0]


def test_zoom_changes_the_size_of_the_figure(browser: Any, pages: Path) -> None:
    show(browser, pages / "fused.html")
    width = "return figure.getBoundingClientRect().width"
    before = browser.execute_script(width)
    browser.find_element("css selector", '[data-zoom="in"]').click()
    assert browser.execute_script(width) == pytest.approx(1.25 * before, rel=0.01)
    browser.find_element("css selector", '[data-zoom="whole"]').click()
    height = browser.execute_script("return figure.getBoundingClientRect().height - stage.clientHeight")
    assert height <= 1


def test_a_run_draws_skips_by_their_strength(browser: Any, pages: Path) -> None:
    show(browser, pages / "run.html")
    widths = browser.execute_script(
        "return data.skips.map(s => [s.share, Number(shapes.get(s.key).querySelector('.line')"
        ".getAttribute('stroke-width'))])"
    )
    assert [width for _, width in sorted(widths)] == sorted(width for _, width in widths)
    assert "adds" in browser.execute_script("choose('s0'); return details.textContent")


def test_a_copied_plan_gives_the_skips_that_are_on(
    browser: Any, pages: Path, work: Path, plan: Plan, tmp_path: Path
) -> None:
    show(browser, pages / "fused.html")
    browser.find_element("css selector", '[data-skip="s0"]').click()
    assert "off" in browser.find_element("css selector", '[data-key="s0"]').get_attribute("class")
    browser.find_element("id", "copy").click()
    browser.execute_async_script("setTimeout(arguments[0], 100)")
    said = browser.find_element("id", "copied").text
    assert said in ("Copied.", "Selected: copy it with Ctrl+C.")
    text = browser.find_element("id", "yaml").get_property("value")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    arguments = ["fuse", work / "a.onnx", work / "b.onnx", "--plan", tmp_path / "mine.yaml", "--classes", 2]
    result = CliRunner().invoke(cli, [*map(str, arguments), "-o", str(tmp_path / "mine.onnx")])
    assert result.exit_code == 0, result.output
    found = Plan.model_validate_json(load(tmp_path / "mine.onnx").metadata.plan or "")
    assert found.skips == plan.skips[1:]


def test_all_skips_can_be_switched_off_and_on(browser: Any, pages: Path, plan: Plan) -> None:
    show(browser, pages / "plan.html")
    browser.find_element("css selector", '[data-all="off"]').click()
    assert browser.find_element("id", "yaml").get_property("value").endswith("skips: []\n")
    browser.find_element("css selector", '[data-all="on"]').click()
    assert f"{len(plan.skips)} of {len(plan.skips)} skips on" in browser.find_element("id", "sums").text
    rejected = browser.find_element("id", "rejections").text
    assert all(item.reason in rejected for item in plan.rejections[:3])


def test_names_are_texts_and_nothing_else(browser: Any, tmp_path: Path) -> None:
    a = from_proto(renamed(residual_cnn(), HOSTILE), f"a{HOSTILE}.onnx")
    b = from_proto(renamed(plain_cnn((8, 16)), HOSTILE), "b.onnx")
    plan = match(a, b)
    save(fuse(a, b, plan=plan, prove=False), tmp_path / "odd.onnx")
    page = graftonnx.view(tmp_path / "odd.onnx", output=tmp_path / "odd.html")
    why = graftonnx.explain_plan(plan, a, b, output=tmp_path / "why.html")
    show(browser, page)
    title = browser.execute_script("choose('s0'); chooseBlock(blocks[0]); return document.title")
    assert title == "odd.onnx \u2013 graftonnx"
    assert HOSTILE in browser.execute_script("return details.textContent")
    assert browser.execute_script("return document.querySelectorAll('main img, main script').length") == 0
    kept = Plan.model_validate_json(load(tmp_path / "odd.onnx").metadata.plan or "")
    assert shown_skips(browser) == kept.skips
    show_match(browser, why)
    assert HOSTILE in browser.title
    assert browser.execute_script("return document.images.length") == 1
    assert browser.get_log("browser") == []


def test_no_name_turns_the_details_around(browser: Any, tmp_path: Path) -> None:
    hostile = "\x1b\u202e\U000e0041"
    page = graftonnx.view(from_proto(renamed(residual_cnn(), hostile), "a.onnx"), output=tmp_path / "a.html")
    show(browser, page)
    browser.execute_script("for (const block of blocks) chooseBlock(block)")
    text = browser.execute_script("return details.textContent")
    assert printable(hostile) == r"\x1b\u202e\U000e0041" in text
    assert printable(text) == text


def shown_skips(browser: Any) -> tuple[object, ...]:
    """Return the skips of the plan that the page shows as YAML."""
    return from_yaml(browser.find_element("id", "yaml").get_property("value")).skips


def test_real_networks_of_two_exporters(browser: Any, shared_models: Path, tmp_path: Path) -> None:
    names = ("resnet8_cifar10_keras_tf2onnx_opset13.onnx", "squeezenet1.1_caffe2_opset7.onnx")
    parents = [load(shared_models / names[0]), load(shared_models / names[1], input_size=(64, 64))]
    plan = match(*parents)
    save(fuse(*parents, plan=plan, classes=10, prove=False), tmp_path / "fused.onnx")
    show(browser, graftonnx.view(tmp_path / "fused.onnx", output=tmp_path / "page.html"))
    for key in browser.execute_script("return [...shapes.keys()]"):
        browser.execute_script("choose(arguments[0])", key)
    assert shown_skips(browser) == plan.skips
    taps = browser.execute_script("return blocks.map(block => block.tap)")
    assert {f"a/{tap.name}" for tap in candidates(parents[0])} <= set(taps)
    assert browser.execute_script("return sum(data.macs, [0, data.macs.length])") > 10_000_000
    assert browser.get_log("browser") == []


def test_a_large_network_opens_at_once_and_stays_usable(browser: Any, tmp_path: Path) -> None:
    network = from_proto(random_dag(20_000), "large.onnx")
    page = graftonnx.view(network, output=tmp_path / "large.html")
    assert page.stat().st_size < 2_000_000
    show(browser, page)
    assert browser.execute_script("return values.length") == len(network.view.nodes)
    assert browser.execute_script("return boxes.length") < 500
    loaded = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert loaded < 20_000  # milliseconds; a hundredth of that where nothing else runs
    browser.execute_script("choose(boxes.at(-2).dataset.key)")
    assert browser.find_element("css selector", "#details h3").text
    found = browser.execute_script("search.value = 'relu_19'; return find().length")
    assert found > 100
    assert browser.get_log("browser") == []


@pytest.fixture(scope="module")
def why(plan: Plan, parents: tuple[Network, Network], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graftonnx.explain_plan(plan, *parents, output=tmp_path_factory.mktemp("match") / "why.html")


def show_match(browser: Any, page: Path, width: int = 1200) -> None:
    """Open the page of a match, and wait until it has read its scores."""
    show(browser, page, width)
    browser.execute_async_script(
        "const wait = done => 'ready' in document.body.dataset ? done() : setTimeout(wait, 20, done);"
        "wait(arguments[0]);"
    )


def test_the_page_of_a_match_complains_about_nothing_and_requests_nothing_but_itself(
    browser: Any, why: Path
) -> None:
    requested(browser)
    show_match(browser, why, 360)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert browser.get_log("browser") == []
    assert requested(browser) == {why.as_uri()}


def test_it_shows_every_tap_and_the_chosen_path(
    browser: Any, why: Path, plan: Plan, parents: tuple[Network, Network]
) -> None:
    show_match(browser, why)
    names = [element.text.split("\n") for element in browser.find_elements("css selector", ".tap .name")]
    taps = [tap.name for network in parents for tap in candidates(network)]
    assert [name for (name,) in names] == taps
    assert len(browser.find_elements("css selector", ".matrix .chosen")) == len(plan.exchanges)
    assert len(browser.find_elements("css selector", ".lines .chosen")) == len(plan.exchanges)


def test_it_says_why_a_tap_is_not_exchanged(browser: Any, why: Path, plan: Plan) -> None:
    show_match(browser, why)
    rejection = plan.rejections[0]
    name = rejection.a.removeprefix("a/")
    browser.execute_script(f'document.querySelector(\'.tap[data-side="0"][title="{name}"]\').focus()')
    readout = browser.find_element("css selector", ".readout").text
    assert rejection.reason in readout
    assert rejection.b.removeprefix("b/") in readout
    assert f"{rejection.score:.2f}" in readout


def test_its_arrow_keys_move_from_pair_to_pair(browser: Any, why: Path, plan: Plan) -> None:
    show_match(browser, why)
    matrix = browser.find_element("css selector", ".matrix")
    browser.execute_script("arguments[0].focus()", matrix)
    readout = browser.find_element("css selector", ".readout")
    assert "Exchange 0." in readout.text
    matrix.send_keys("\ue015")
    assert "Exchange 0." not in readout.text


def test_skips_in_one_direction_show_one_projection(
    browser: Any, parents: tuple[Network, Network], tmp_path: Path
) -> None:
    plan = match(*parents, into=("a",))
    show_match(browser, graftonnx.explain_plan(plan, *parents, into=("a",), output=tmp_path / "why.html"))
    browser.execute_script("document.querySelector('.matrix').focus()")
    readout = browser.find_element("css selector", ".readout").text
    assert "into a" in readout
    assert str(plan.skips[0].projection) in readout
    assert "into b" not in readout
    assert "cost of both" not in readout
    assert browser.get_log("browser") == []
