"""Fixtures that every test may use."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from graftonnx import limits

ROOT = Path(__file__).parent.parent


limits.own_process()  # workers of pytest-xdist have threads


@pytest.fixture(scope="session", autouse=True)
def _heard_signals() -> None:
    """Hear SIGINT and SIGTERM even where the tests run in the background, which starts them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data sets; the test is skipped where it is absent."""
    folder = Path(os.environ.get("GRAFTONNX_SHARED", ROOT.parent / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip(f"no real models: '{folder / 'models'}' is absent (set GRAFTONNX_SHARED)")
    return folder


@pytest.fixture(scope="session")
def shared_models(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every real model lies unpacked under its own name."""
    folder = tmp_path_factory.mktemp("models")
    for file in (shared / "models").glob("*.onnx"):
        (folder / file.name).symlink_to(file.resolve())
    with zipfile.ZipFile(shared / "models" / "large_models.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB; only root can make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("no right to mount a small file system")
    yield place
    subprocess.run(["umount", place], check=True)
