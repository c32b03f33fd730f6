"""What a file of `torch.save` may ask for, checked before PyTorch reads it.

PyTorch runs no code of such a file (`weights_only=True`), but it calls a few functions with the file's
arguments, unpacks what is compressed, and older versions believe the sizes of tensors. What `torch.save`
writes of tensors and plain values needs none of that.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

LARGEST_PICKLE = 1 << 24
"""Bytes of the objects beside the tensors; in memory they take some sixty times as much."""

LONGEST_SHAPE = 64
"""Dimensions of a tensor."""

LARGEST_NUMBER = 1 << 60
"""Of a key. Larger ones can be made to take the same place in a dictionary."""

ZIP_START = b"PK\3\4"
"""How a file begins that PyTorch takes for a zip file; others have the format before PyTorch 1.6."""

OLD_PICKLES = 5
"""Pickles at the beginning of an old file: kind, version, machine, objects, keys of the storages."""

STORAGES = {
    **{f"torch {name}Storage": 1 for name in ("Bool", "Byte", "Char")},
    **{f"torch {name}Storage": 2 for name in ("BFloat16", "Half", "Short")},
    **{f"torch {name}Storage": 4 for name in ("Float", "Int")},
    **{f"torch {name}Storage": 8 for name in ("ComplexFloat", "Double", "Long")},
    "torch ComplexDoubleStorage": 16,
    "torch.storage UntypedStorage": 1,
}
"""Bytes of an element."""

CALLED = frozenset({"torch Size", "torch device", *(f"torch._utils _rebuild_{name}" for name in (
    "parameter", "tensor", "tensor_v2", "tensor_v3",
))})  # fmt: skip
"""What is called with arguments; none takes more memory than they do."""

DAMAGES = (
    pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    MemoryError, ArithmeticError,
)  # fmt: skip
"""What :func:`check` and PyTorch raise of a file that is damaged, beside RuntimeError and OSError."""

_END, _END_64, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
"""The records behind the directory of a zip file: its end, the end with wide numbers, where that stands."""

_POPS = {"APPEND": 1, "SETITEM": 2}
_GETS = ("BINGET", "LONG_BINGET")
_PUTS = ("BINPUT", "LONG_BINPUT")
_PUSHES = frozenset({
    "BINFLOAT", "BININT", "BININT1", "BININT2", "BINUNICODE", "EMPTY_LIST", "LONG1", "NEWFALSE", "NEWTRUE",
    "NONE", "SHORT_BINSTRING",
})  # fmt: skip


class _Global(str):
    """A class or function, by its name: `collections OrderedDict`."""


class _Mapping:
    """A dictionary; it may become the attributes of one object, so that it cannot be copied without end."""

    is_taken = False


def check(path: Path) -> None:
    """Refuse a file that would take much more memory than it has bytes.

    Raises:
        ValueError: If it is refused.
        pickle.UnpicklingError: If it makes anything but tensors and plain values.
        OSError: If it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(ZIP_START))
        file.seek(0)
        if start == ZIP_START:
            _check_zip(file, size)
        else:
            objects, content = _Objects(None, size), io.BytesIO(file.read(LARGEST_PICKLE))
            for _ in range(OLD_PICKLES):
                objects.check(content)


def _check_zip(file: IO[bytes], size: int) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("its parts are compressed, which `torch.save` never does")
            if sum(entry.file_size for entry in entries) > size:
                raise ValueError("its parts claim more bytes than it has")
            _check_end(file, size, len(entries))
            names = [entry.filename for entry in entries]
            if (
                len({name.lower() for name in names}) < len(names)
                or len({name.partition("/")[0] for name in names}) != 1
            ):
                raise ValueError("its parts have the same names, or stand in several folders")
            sizes = {entry.filename.partition("/")[2]: entry.file_size for entry in entries}
            if sizes.get("data.pkl", 0) > LARGEST_PICKLE:
                raise ValueError(f"it has more than {LARGEST_PICKLE:,} bytes beside its tensors")
            for entry in entries:
                if entry.filename.endswith("/data.pkl"):
                    _Objects(sizes, size).check(io.BytesIO(archive.read(entry)))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(str(error)) from error


def _check_end(file: IO[bytes], size: int, count: int) -> None:
    """Refuse a zip file in which two programs may find two directories.

    Python looks for it right in front of the records at the end, PyTorch where these say that it is.

    Args:
        file: The file; its position moves.
        size: Its bytes.
        count: Entries that Python has found.

    Raises:
        ValueError: Then.
    """
    file.seek(max(size - _END_64.size - _LOCATOR.size - _END.size, 0))
    tail = file.read()
    signature, *_, entries, length, start, comment = _END.unpack(tail[-_END.size :])
    end = size - _END.size
    located = tail[: -_END.size]
    is_wide = located[-_LOCATOR.size :].startswith(b"PK\6\7") and len(located) == _END_64.size + _LOCATOR.size
    if is_wide:
        end -= len(located)
        wide_signature, wide_size, *_, wide_entries, wide_length, wide_start = _END_64.unpack(
            located[: _END_64.size]
        )
        _, _, place, _ = _LOCATOR.unpack(located[_END_64.size :])
        narrow = ((entries, wide_entries, 16), (length, wide_length, 32), (start, wide_start, 32))
        if (
            (wide_signature, wide_size, place) != (b"PK\6\6", _END_64.size - 12, end)
            or any(found not in (wanted, 2**bits - 1) for found, wanted, bits in narrow)
        ):  # fmt: skip
            raise ValueError("its end does not say where its directory is")
        entries, length, start = wide_entries, wide_length, wide_start
    if (signature, comment, entries, start + length) != (b"PK\5\6", 0, count, end):
        raise ValueError("its directory is not where its end says")


class _Objects:
    """The objects of a pickle, as its instructions put them together; none is made.

    Args:
        sizes: Bytes of each entry of a zip file; None for an old file, which has none.
        size: Bytes of the file.
    """

    def __init__(self, sizes: dict[str, int] | None, size: int) -> None:
        self._sizes = sizes
        self._left = size
        self._seen: set[str] = set()
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def check(self, file: IO[bytes]) -> None:
        """Go through the instructions up to the end of the pickle.

        Raises:
            pickle.UnpicklingError: If one of them is not of those that `torch.save` writes.
        """
        self._stack, self._marked, self._memo = [], [], {}
        try:
            for instruction, argument, _ in pickletools.genops(file):
                self._step(instruction.name, argument)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise pickle.UnpicklingError(str(error)) from error

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUTS:
            self._memo[argument] = stack[-1]
        elif name in _GETS:
            stack.append(self._memo[argument])
        elif name in _PUSHES:
            stack.append(argument)
        elif name == "GLOBAL":
            stack.append(_Global(argument))
        elif name == "EMPTY_DICT":
            stack.append(_Mapping())
        elif name.startswith("TUPLE") or name == "EMPTY_TUPLE":
            self._tuple(name)
        elif name == "MARK":
            self._marked.append(stack)
            self._stack = []
        elif name in ("APPENDS", "SETITEMS"):
            self._stack = self._marked.pop()
            _check_keys(stack[::2] if name == "SETITEMS" else [])
        elif name in _POPS:
            _check_keys(stack[-2:-1] if name == "SETITEM" else [])
            del stack[-_POPS[name] :]
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(_result(called, arguments))
        elif name == "BUILD":
            _take(stack.pop())
        elif name == "BINPERSID":
            self._check_storage(stack.pop())
            stack.append(None)
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"it has the instruction {name}")

    def _tuple(self, name: str) -> None:
        """Put the last values into a tuple: as many as the name says, or all since the last mark."""
        values = self._stack
        if name == "TUPLE":
            self._stack = self._marked.pop()
            self._stack.append(tuple(values))
        elif name == "EMPTY_TUPLE":
            values.append(())
        else:
            count = int(name[-1])
            values[-count:] = [tuple(values[-count:])]

    def _check_storage(self, found: Any) -> None:
        """Refuse a storage that has more bytes than there are."""
        kind, storage, key, _, count, *_ = found
        known = isinstance(storage, _Global) and storage in STORAGES
        if kind != "storage" or not known or not isinstance(key, str) or not isinstance(count, int):
            raise ValueError("it refers to something that is no tensor")
        wanted = count * STORAGES[storage]
        if key in self._seen and self._sizes is None:
            return
        self._seen.add(key)
        there = self._left if self._sizes is None else self._sizes[f"data/{key}"]
        if not 0 <= wanted <= there:
            raise ValueError(f"its tensor {key} claims {wanted:,} bytes")
        if self._sizes is None:
            self._left -= wanted


def _check_keys(keys: list[Any]) -> None:
    """Refuse keys that can be made to take the same place in a dictionary."""
    for key in keys:
        if not isinstance(key, (str, int)) or (isinstance(key, int) and abs(key) > LARGEST_NUMBER):
            raise ValueError("a key is neither a text nor a number of at most 60 bits")


def _result(called: Any, arguments: Any) -> Any:
    """Return what stands for the result of a call, or refuse it."""
    if not isinstance(called, _Global):
        raise ValueError("it calls what is no function")
    if called == "collections OrderedDict" and arguments == ():
        return _Mapping()
    if called == "collections Counter":
        _take(*arguments)
        return _Mapping()
    if called not in CALLED:
        raise ValueError(f"it calls {called}")
    for argument in arguments:
        if isinstance(argument, tuple) and len(argument) > LONGEST_SHAPE:
            raise ValueError(f"a tensor has {len(argument):,} dimensions")
    return None


def _take(state: Any) -> None:
    """Refuse attributes that are those of another object."""
    if not isinstance(state, _Mapping) or state.is_taken:
        raise ValueError("an object takes the attributes of another")
    state.is_taken = True
