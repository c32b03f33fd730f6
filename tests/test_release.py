"""What is handed on: built the same everywhere, holding what it should, needing what it says."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DATA = re.compile(
    r"graftonnx/(py\.typed|conversion/OPERATORS\.md|bundling/files/(MODEL_CARD\.md\.jinja|requirements\.txt)"
    r"|(drawing|pages|training/report)/templates/\w+\.(html|css|js|svg))"
)
"""Files in the wheel that are no Python."""

PYTHON = re.compile(r"graftonnx/[a-z0-9_/]+\.py")
ABOUT = re.compile(
    r"graftonnx-[\d.]+\.dist-info/(METADATA|RECORD|WHEEL|entry_points\.txt|top_level\.txt|licenses/LICENSE)"
)
SOURCE = re.compile(
    r"graftonnx-[\d.]+/(LICENSE|README\.md|PKG-INFO|pyproject\.toml|setup\.cfg|graftonnx\.egg-info/[\w.-]+"
    r"|models/\w+\.py|graftonnx/.+)"
)
pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no clone to build from"
)


@pytest.fixture(scope="module")
def release() -> ModuleType:
    """tools/release."""
    loader = SourceFileLoader("release", str(ROOT / "tools" / "release"))
    spec = importlib.util.spec_from_loader("release", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(release: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Wheel and source archive."""
    return release.build(ROOT, tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_modules_templates_and_its_papers_only(built: tuple[Path, Path]) -> None:
    names = zipfile.ZipFile(built[0]).namelist()
    strange = [n for n in names if not (DATA.fullmatch(n) or PYTHON.fullmatch(n) or ABOUT.fullmatch(n))]
    assert strange == []
    tracked = subprocess.run(
        ["git", "ls-files", "graftonnx", "models"], cwd=ROOT, capture_output=True, text=True
    )
    sources = {f"graftonnx/{n}" if n.startswith("models/") else n for n in tracked.stdout.splitlines()}
    expected = {
        n for n in sources if (PYTHON.fullmatch(n) or DATA.fullmatch(n)) and (ROOT / _place(n)).exists()
    }
    assert {n for n in names if not ABOUT.fullmatch(n)} == expected


def _place(name: str) -> str:
    """Return where the file of a wheel is in the clone."""
    return name.removeprefix("graftonnx/") if name.startswith("graftonnx/models/") else name


def test_the_source_archive_holds_what_the_wheel_is_built_from(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        members = archive.getmembers()
        assert [m.name for m in members if not (m.isreg() and SOURCE.fullmatch(m.name))] == []
        assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
        inside = {m.name.partition("/")[2] for m in members}
    wheel = {_place(n) for n in zipfile.ZipFile(built[0]).namelist() if not ABOUT.fullmatch(n)}
    assert wheel <= inside
    assert not {n for n in inside if "__pycache__" in n or n.endswith((".pyc", ".png", ".onnx", ".pth"))}


@pytest.mark.slow
def test_two_builds_in_different_folders_at_different_times_give_the_same_bytes(
    release: ModuleType, built: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "a clone with another name"
    subprocess.run(["git", "clone", "-q", ROOT, copy], check=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):  # what is not committed yet as well
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
            os.utime(copy / name, (1e9, 1e9))
    subprocess.run(["git", "add", "-A"], cwd=copy, check=True)
    (tmp_path / "dist").mkdir()
    again = release.build(copy, tmp_path / "dist")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]


def imported() -> set[str]:
    """Return the first names of all modules that graftonnx imports."""
    found: set[str] = set()
    for path in [*(ROOT / "graftonnx").rglob("*.py"), *(ROOT / "models").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def test_every_dependency_is_imported_and_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    given = tomllib.loads(text)["project"]["dependencies"]
    provided: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for name in distributions:
            provided.setdefault(name.lower().replace("_", "-"), set()).add(module)
    modules = imported()
    for requirement in given:
        name = re.split(r"[<>=\[]", requirement)[0]
        homes = provided.get(name.lower().replace("_", "-")) or {name.removesuffix("-gpu")}
        assert homes & modules, f"{name} is not imported"
        assert re.search(rf'"{re.escape(requirement)}",\s*# \w+', text), f"{name} has no reason"


@pytest.mark.pip
@pytest.mark.slow
def test_the_wheel_works_in_a_new_environment(built: tuple[Path, Path], tmp_path: Path) -> None:
    if not os.environ.get("GRAFTONNX_PIP"):
        pytest.skip("set GRAFTONNX_PIP=1 to install packages")
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    constraints = ROOT / "constraints.txt"
    torch = next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))
    for wanted in ([torch], ["-c", constraints, built[0]]):
        subprocess.run([programs / "pip", "install", "-qq", *wanted], check=True)
    pair = [ROOT / "models" / name for name in ("custom16-mnist.onnx", "squeezenet-cifar100.onnx")]
    done = subprocess.run(
        [programs / "graftonnx", "fuse", *pair, "-o", "fused.onnx", "--classes", "2"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "wrote fused.onnx" in done.stdout
    shown = subprocess.run([programs / "graftonnx", "view", "fused.onnx"], cwd=tmp_path, capture_output=True)
    assert (shown.returncode, (tmp_path / "fused.html").is_file()) == (0, True)
