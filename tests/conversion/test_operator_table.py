"""The list of operators beside the code is what the code registers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_operator_table_is_not_stale() -> None:
    """If this fails, run tools/operator_table."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "operator_table", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
