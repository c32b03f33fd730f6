from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import graftonnx


@pytest.mark.parametrize("name", graftonnx.__all__)
def test_every_public_name_is_there_and_no_module(name: str) -> None:
    assert type(getattr(graftonnx, name)).__name__ != "module"


def test_public_names_survive_the_import_of_every_module() -> None:
    import graftonnx.conversion
    import graftonnx.evaluation
    import graftonnx.exporting
    import graftonnx.training  # imported for its effect on the package's attributes

    assert all(callable(getattr(graftonnx, name)) for name in graftonnx.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'graftonnx' has no attribute 'splize'"):
        graftonnx.splize  # noqa: B018 # the access is the test


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, graftonnx; print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


ROOT = Path(__file__).parent.parent


def test_the_api_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "api_page", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_table_in_the_readme_has_every_function_with_what_it_takes_and_returns() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)\((.*?)` \|", readme, re.MULTILINE))
    functions = {name for name in graftonnx.__all__ if not inspect.isclass(getattr(graftonnx, name))}
    assert rows.keys() == functions
    for name, text in rows.items():
        signature = inspect.signature(getattr(graftonnx, name))
        positional = [
            f"{'*' if parameter.kind is parameter.VAR_POSITIONAL else ''}{parameter.name}"
            for parameter in signature.parameters.values()
            if parameter.kind is not parameter.KEYWORD_ONLY
        ]
        named, returned = text.split(") -> ")
        assert named.split(", ") == (positional if positional else [""]), name
        assert returned == signature.return_annotation, name
