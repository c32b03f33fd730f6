"""YAML documents: what they mean, what is refused, and that little is read of what is too large."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import yaml

from graftonnx import documents, parsing
from graftonnx.errors import PlanError
from graftonnx.plan import read_plan

PARSERS = pytest.mark.parametrize("parser", [parsing.Parser, yaml.SafeLoader], ids=["libyaml", "Python"])


@PARSERS
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!omap [{a: 1}, {a: 2}]", "line 1: could not determine a constructor"),
        ("a: 1\n2305843009213693951: 1", "line 2: expected a text as key"),
        ("a: [1\n]]", "line 2: did not find|line 2: expected"),
        ("a: 1\n--- \nb: 1", "line 2: expected a single document"),
        ("a: *b", "line 1: found undefined alias"),
        ("a: {<<: 3}", "line 1: expected a mapping, or a list of them, for merging"),
        ("a: \x00", "not allowed"),
    ],
    ids=["omap", "key", "flow", "documents", "alias", "merge", "zero"],
)
def test_what_is_no_document_for_people_is_refused_with_its_line(
    text: str, message: str, parser: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "Parser", parser)
    with pytest.raises(documents.YAMLError, match=message):
        documents.load(text)


@PARSERS
def test_a_document_of_many_values_is_refused_as_soon_as_there_are_too_many(
    parser: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "Parser", parser)
    text = "a: [" + "1," * 1_500_000 + "1]"
    tracemalloc.start()
    with pytest.raises(documents.YAMLError, match="it holds more than 2,000 values"):
        parsing.parse(text, 2_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * len(text)


@PARSERS
@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("{a: 1e-05, b: 0o17, c: yes, d: 'no', e: ~, f: x:0}", [1e-05, 15, "yes", "no", None, "x:0"]),
        ("{a: &p {x: 1}, b: {<<: *p, y: 2}, c: *p}", [{"x": 1}, {"x": 1, "y": 2}, {"x": 1}]),
        ("{a: {<<: [{x: 1}, {x: 2, y: 2}], x: 3}}", [{"x": 3, "y": 2}]),
        ("a: |\n b\n c\n", ["b\nc\n"]),
        ("# nothing", None),
    ],
)
def test_a_document_means_what_yaml_1_2_says(
    text: str, content: object, parser: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "Parser", parser)
    found = documents.load(text)
    assert (found and list(found.values())) == content


@pytest.mark.parametrize(
    "name", ["a: b", "#", "1e5", "\x85x", "a\u2028b", "\u202e", "-", "'", "é", " ", "<<"]
)
def test_a_name_is_read_as_it_was_written(name: str) -> None:
    assert documents.load(documents.dump({name: [name, 1]})) == {name: [name, 1]}


def test_no_more_of_a_plan_is_read_than_shows_that_it_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 28)
    tracemalloc.start()
    with pytest.raises(PlanError, match="more than 4,194,304 characters"):
        read_plan(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 26
    tracemalloc.stop()
