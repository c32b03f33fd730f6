"""Texts: what is no text is not written, and what never ends is not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from graftonnx.errors import GraftError
from graftonnx.files import write_text


def test_what_is_no_text_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(
        GraftError, match=r"cannot write '.*a': '.*caf\\udce9 and' in it is not UTF-8 text\. "
    ):
        write_text(tmp_path / "a", f"{'x' * 100} caf\udce9 and {'y' * 100}"[:-101])
    assert not list(tmp_path.iterdir())
