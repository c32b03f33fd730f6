"""The page about security names tests that exist, and limits that hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from graftonnx import decoders, images, parsing, reading
from graftonnx.bundling import sums
from graftonnx.data import bounds
from graftonnx.metadata import LARGEST_SIDE, MOST_PARENTS
from graftonnx.models import pickles
from graftonnx.plan import MOST_SKIPS

PAGE = Path(__file__).parents[1] / ".github" / "SECURITY.md"
NAMED = re.findall(r"`([\w/]+\.py)::([\w:]+)`", PAGE.read_text(encoding="utf-8"))


def defined(tree: ast.AST, path: list[str]) -> bool:
    """Return whether a function, or one of a class, is defined."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == path[0]:
            return len(path) == 1 or defined(node, path[1:])
    return False


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_every_test_that_the_page_names_exists(file: str, name: str) -> None:
    path = Path(__file__).parent / file
    assert path.is_file()
    assert defined(ast.parse(path.read_text(encoding="utf-8")), name.split("::"))


def test_every_class_in_the_table_has_its_test() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## Known classes of attacks")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(NAMED) > 30
    assert all("::test_" in row for row in rows)


def test_the_limits_are_those_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for said in (
        f"| {decoders.MOST_PIXELS / 1e6:.0f} million |",
        f"| {decoders.MOST_SLOW_PIXELS / 1e6:.0f} million |",
        f"| {images.PIXELS_AT_ONCE / 1e6:.0f} million |",
        f"| {images.LARGEST_FILE >> 20} MiB |",
        f"| {bounds.LARGEST_IMAGE >> 20} MiB |",
        f"| {reading.LARGEST_TEXT >> 20} MiB |",
        f"| {bounds.MOST_ENTRIES // 10**6} million |",
        f"| {bounds.ALLOWED_GROWTH >> 30} GiB, or {bounds.MOST_GROWTH} times its size |",
        f"| {bounds.LARGEST_HEADER >> 20} MiB |",
        f"| {bounds.LONGEST_LABEL >> 10} KiB; {bounds.LARGEST_RECORD >> 20} MiB |",
        f"| {LARGEST_SIDE:,} pixels each |",
        f"| {sums.LARGEST >> 20} MiB |",
        f"| {bounds.MOST_ITEMS // 10**6} million; {bounds.LARGEST_DIRECTORY >> 20} MiB |",
        f"| {bounds.ALLOWED_PACKED:,}, or one for each {bounds.LEAST_PACKED} bytes |",
        f"| {parsing.LONGEST >> 20} Mi characters, {parsing.DEEPEST} levels, {parsing.MOST_VALUES:,} values",
        f"| {pickles.LARGEST_PICKLE >> 20} MiB | |",
        f"| {MOST_PARENTS}; {MOST_SKIPS:,} |",
    ):
        assert said in text


def test_the_readme_leads_to_the_page() -> None:
    assert "](.github/SECURITY.md)" in (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
