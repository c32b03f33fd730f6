"""Write files so that a reader sees the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from graftonnx.errors import GraftError

fcntl: ModuleType | None
try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

PART = ".part"
"""How the names of files end that are being written."""

_RANDOM = 4
"""Bytes, in the middle of such names, that nobody can know before."""

_ADDED = len(f"..{PART}") + 2 * _RANDOM
"""Characters by which such a name is longer than that of its target."""

MODEL_FILE = "model.onnx"
"""The trained network in a run folder."""

SPLIT_FILE = "split.json"
"""The images that trained and validated it, likewise."""


def is_folder(path: Path, doing: str) -> bool:
    """Return whether there is a folder where one is to be written; false where nothing is.

    Args:
        path: Where.
        doing: What for, for the message: `cannot <doing> 'run': ...`.

    Raises:
        GraftError: If something else is there, nobody lets us look, or the name is no text.
    """
    check_text(path, doing, "Choose another -o.")
    try:
        mode = _mode(path)
    except OSError as error:
        raise GraftError(f"cannot {doing} '{path}': {error.strerror}. Choose another -o.") from error
    if mode is None and os.path.lexists(path):
        raise GraftError(f"cannot {doing} '{path}': it is a link that leads nowhere. Choose another -o.")
    if mode is not None and not stat.S_ISDIR(mode):
        raise GraftError(f"cannot {doing} '{path}': it is a file. Choose another -o.")
    return mode is not None


def check_text(path: Path, doing: str, advice: str) -> None:
    """Refuse a name that is not UTF-8, which libraries cannot open.

    Args:
        path: With the name.
        doing: What for, for the message: `cannot <doing> 'run': ...`.
        advice: What to do.

    Raises:
        GraftError: Then.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise GraftError(f"cannot {doing} '{path}': its name is not UTF-8 text. {advice}") from error


def check_writable(path: Path, *, force: bool) -> None:
    """Refuse a target that cannot or should not be written, before any work is done.

    Args:
        path: The file (or folder) to be written.
        force: Whether an existing target may be replaced.

    Raises:
        GraftError: If the target exists and `force` is false, is something else than a file, if its name is
            too long, if its folder is missing, or if the folder does not let us write.
    """
    try:
        _check_kind(path)
        if os.path.lexists(path) and not force:
            raise GraftError(f"cannot write '{path}': it exists. Choose another -o, or pass --force.")
        _check_place(path)
    except OSError as error:
        advice = f" in '{path.parent}'. Choose a folder you can write to."
        if error.errno == errno.ENAMETOOLONG:
            advice = (
                f", with the {_ADDED} characters that are added while it is written. Choose a shorter one."
            )
        raise GraftError(f"cannot write '{path}': {error.strerror}{advice}") from error


def _check_kind(path: Path) -> None:
    """Refuse a target that is something else than a file, or a link to something else.

    A link to a file, or to nothing, may be replaced: the new file takes the place of the link.

    Raises:
        GraftError: If it is a folder, a device, a pipe or a socket.
        OSError: If nobody lets us look at it.
    """
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise GraftError(f"cannot write '{path}': it is a folder. Give the name of a file in it.")
    if mode is not None and not stat.S_ISREG(mode):
        raise GraftError(
            f"cannot write '{path}': it is a device, a pipe or a socket, which is never replaced. "
            "Choose another -o."
        )


def _check_place(path: Path) -> None:
    """Refuse a target whose folder is missing.

    Raises:
        GraftError: Then.
        OSError: If the folder does not let us write, or the name of the temporary file is too long.
    """
    folder = path.parent
    mode = _mode(folder)
    if mode is None or not stat.S_ISDIR(mode):
        raise GraftError(f"cannot write '{path}': the folder '{folder}' does not exist. Create it first.")
    with tempfile.TemporaryFile(dir=folder):
        pass
    _mode(temporary_name(path))


def _mode(path: Path) -> int | None:
    """Return what is there, links followed; None for nothing.

    Raises:
        OSError: If nobody lets us look, or the name is longer than the file system takes.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends without an error.

    The file is made by this call alone, under a name that nobody can know before, and stays locked until it
    is renamed, so that :func:`sweep` knows it from what a killed process has left. The data is flushed to
    disk before the rename. On an error the temporary file is removed and `path` is what it was.

    Raises:
        GraftError: If the file system refuses (no space, no permission), or `path` is something else than a
            file.
    """
    temporary: Path | None = None
    try:
        _check_kind(path)
        sweep(path)
        with _made(path) as temporary:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        raise GraftError(f"cannot write '{path}': {error.strerror or error}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path, kind: str = PART) -> Path:
    """Return a new name beside `path` for what will take its place."""
    return path.with_name(f".{path.name}.{secrets.token_hex(_RANDOM)}{kind}")


def sweep(path: Path) -> None:
    """Remove what killed processes have begun to write beside `path`, be it files or folders.

    What a living process writes is locked, and stays. Where the system has no locks, everything stays.
    """
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        begun = [e.path for e in entries if e.name.startswith(f".{path.name}.") and e.name.endswith(PART)]
        for place in map(Path, begun):
            with contextlib.suppress(OSError, BusyError), locked(place):
                shutil.rmtree(place) if place.is_dir() else place.unlink()


class BusyError(Exception):
    """Another process has locked the file or folder."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file or folder for the block, where the system knows how; a process that ends lets go of it.

    Raises:
        BusyError: If another process has locked it, or has removed it meanwhile.
        OSError: If it cannot be opened, or is something else: a pipe, a device, a link.
    """
    if fcntl is None:
        yield
        return
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        mode = os.fstat(number).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "it is neither a file nor a folder", str(path))
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError from error
        if not _is_still(number, path):
            raise BusyError
        yield
    finally:
        os.close(number)


def _is_still(number: int, path: Path) -> bool:
    """Return whether an open file or folder is what its name leads to."""
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False


def replace_folder(new: Path, place: Path) -> None:
    """Rename a folder to `place`; a folder that is there takes the name `new`.

    Linux exchanges the two in one step. Elsewhere there is a moment without either, and the one that was
    there comes back if the renaming fails.
    """
    if not os.path.lexists(place):
        new.rename(place)
    elif not _exchanged(new, place):
        old = temporary_name(place, ".old")
        place.rename(old)
        try:
            new.rename(place)
        except OSError:
            old.rename(place)
            raise
        old.rename(new)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; return whether the system and its disk can."""
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or glibc before 2.28
        return False
    return not renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange)


@contextlib.contextmanager
def _made(path: Path) -> Iterator[Path]:
    """Make a new file beside `path`, and lock it for the block."""
    while True:
        temporary = temporary_name(path)
        number = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            if not _is_swept(number) and temporary.exists():
                yield temporary
                return
        finally:
            os.close(number)


def _is_swept(number: int) -> bool:
    """Lock a new file; return whether another process has done so, which is about to remove it."""
    if fcntl is not None:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            pass
    return False


@contextlib.contextmanager
def made_folder(path: Path) -> Iterator[Path]:
    """Make a new folder beside `path`, and lock it for the block, so that :func:`sweep` leaves it alone.

    In the end it goes away, if it has not got another name.
    """
    with contextlib.ExitStack() as stack:
        while True:
            temporary = temporary_name(path)
            temporary.mkdir()
            stack.callback(shutil.rmtree, temporary, ignore_errors=True)
            with contextlib.suppress(BusyError, FileNotFoundError):  # it was swept before it was locked
                stack.enter_context(locked(temporary))
                break
        yield temporary


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8.

    Raises:
        GraftError: If the file system refuses, or the content is no text: a name that is not UTF-8 is in it.
    """
    try:
        encoded = content.encode()
    except UnicodeEncodeError as error:
        around = content[max(error.start - 20, 0) : error.end + 20]
        raise GraftError(
            f"cannot write '{path}': {around!a} in it is not UTF-8 text. Rename the file, folder or class "
            "that is called so."
        ) from error
    write_bytes(path, encoded)
