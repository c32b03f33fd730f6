"""Fixtures of the comparison tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from graftonnx.training import trainer


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on many threads, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package", autouse=True)
def no_curves() -> Iterator[None]:
    """Dozens of small runs take longer to draw than to train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "write_curves", lambda *_: None)
        yield
