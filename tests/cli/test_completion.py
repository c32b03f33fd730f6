"""What a shell is offered at a press of Tab, and the shells themselves, as people use them."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from graftonnx.cli import graftonnx


def completed(typed: str) -> list[str]:
    """Return what a shell is offered behind `typed`."""
    words = typed.split(" ")
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner().invoke(
        graftonnx, env={**asked, "_GRAFTONNX_COMPLETE": "bash_complete"}, prog_name="graftonnx"
    )
    assert result.exit_code == 0
    return result.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("graftonnx ma", ["plain,match"]),
        ("graftonnx match --pol", ["plain,--policy"]),
        ("graftonnx match --policy ", ["plain,exact", "plain,near", "plain,all"]),
        ("graftonnx match a", ["file,a"]),
        ("graftonnx eval run --data d", ["file,d"]),
        ("graftonnx bench run --cache c", ["dir,c"]),
        ("graftonnx zoo e", ["plain,export"]),
        ("graftonnx zoo export sq", ["plain,squeezenet1_0", "plain,squeezenet1_1"]),
        ("graftonnx completion z", ["plain,zsh"]),
    ],
)
def test_completion(typed: str, offered: list[str]) -> None:
    assert completed(typed) == offered


@pytest.mark.parametrize(
    ("shell", "sign"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete ")]
)
def test_completion_scripts(shell: str, sign: str) -> None:
    result = CliRunner().invoke(graftonnx, ["completion", shell])
    assert result.exit_code == 0
    assert sign in result.stdout
    assert f"{shell}_complete" in result.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.stdout, text=True, check=True)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one file and one folder, `graftonnx` on the path, and no settings of the user's."""
    program = tmp_path / "bin" / "graftonnx"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom graftonnx.cli import main\nsys.argv[0] = 'graftonnx'\nmain()\n"
    )
    program.chmod(0o755)
    folder = tmp_path / "folder"
    (folder / "photos").mkdir(parents=True)
    (folder / "fused.onnx").touch()
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("PS1", "ready$ ")
    return folder


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "bind 'set enable-bracketed-paste off'; "),
    "zsh": (["zsh", "-f", "-i"], "unset zle_bracketed_paste; autoload -U compinit; compinit -u -D; "),
}
"""How an interactive shell starts without its user's settings, and what has to run first."""


def until(terminal: int, sign: str) -> str:
    """Read what a terminal shows, bells left out, up to `sign`, or all of it after 30 s of silence."""
    shown = ""
    while sign not in shown and select.select([terminal], [], [], 30)[0]:
        shown += os.read(terminal, 4096).decode(errors="replace").replace("\a", "")
    return shown


def at_tab(shell: str, typed: str, offered: str, folder: Path) -> str:
    """Type into an interactive shell, press Tab and return what then stands there, up to `offered`."""
    command, before = SHELLS[shell]
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvp(command[0], command)
    try:
        until(terminal, "ready$ ")
        os.write(terminal, f"{before}eval \"$(graftonnx completion {shell})\"; PS1='se''t$ '\n".encode())
        until(terminal, "set$ ")
        os.write(terminal, f"{typed}\t".encode())
        return until(terminal, offered)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


@pytest.mark.parametrize("shell", list(SHELLS))
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("graftonnx fuse --skip-init p", "graftonnx fuse --skip-init paper "),
        ("graftonnx fuse --policy=n", "graftonnx fuse --policy=near "),
        ("graftonnx eval run --data=p", "graftonnx eval run --data=photos/"),
        ("graftonnx view f", "graftonnx view fused.onnx "),
    ],
)
def test_an_interactive_shell_completes(shell: str, typed: str, offered: str, bench: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    assert offered in at_tab(shell, typed, offered, bench)


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("graftonnx fuse --skip-init ", ["zero", "paper", "lsq"]),
        ("graftonnx fuse --policy=n", ["--policy=near"]),
        ("graftonnx eval run --data=p", ["--data=photos/"]),
        ("graftonnx bench run --cache ", ["photos/"]),
        ("graftonnx view f", ["fused.onnx"]),
        ("graftonnx fuse 'a b' --polic", ["--policy"]),
    ],
)
def test_fish_completes(typed: str, offered: list[str], bench: Path) -> None:
    script = 'graftonnx completion fish | source; complete -C "$TYPED"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env={**os.environ, "TYPED": typed},
        cwd=bench,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == offered
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish_shows_descriptions_with_commas_whole(bench: Path) -> None:
    script = "graftonnx completion fish | source; complete -C 'graftonnx fuse --polic'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], cwd=bench, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith(", or any.\n")
