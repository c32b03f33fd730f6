"""Fixtures of the comparison tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from graftonnx.training import trainer


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on many threads, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Dozens of small runs take longer to draw than to train."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_curves", "write_report"):
            patch.setattr(trainer, name, lambda *_: None)
        yield
