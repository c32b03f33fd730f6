from __future__ import annotations

import subprocess
import sys

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
