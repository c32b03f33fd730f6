"""What several tests of the networks need."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "train_parents"


@pytest.fixture(scope="session")
def train_parents() -> ModuleType:
    """The script `tools/train_parents` as a module."""
    loader = SourceFileLoader("train_parents", str(SCRIPT))
    spec = importlib.util.spec_from_loader("train_parents", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_parents"] = module
    loader.exec_module(module)
    return module
