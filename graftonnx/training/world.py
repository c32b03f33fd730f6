"""The processes that train one network together, as `torchrun` starts them, and what they have to agree on.

Every process holds the network and takes its rows of each batch. The process of rank 0, the leader, decides
and writes; the others follow.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from graftonnx.errors import GraftError, RuntimeProviderError
from graftonnx.training.interrupt import Interrupted

T = TypeVar("T")

ROLE = "graftonnx"
"""What the `graftonnx` command calls the processes that it starts; it reports the death of one itself."""

PATIENCE = timedelta(days=1)
"""How long the followers wait for the leader: it may have many images to decode."""

BEREFT = 75
"""Exit code of a process that another's end has stopped, where the `graftonnx` command reports it."""

FAREWELL = timedelta(seconds=10)
"""How long a follower waits for the leader to report an error."""

_LOST = re.compile(r"gloo|nccl|connection (closed|reset)|peer", re.IGNORECASE)


@dataclass(frozen=True)
class World:
    """The place of this process among those that train together.

    Attributes:
        rank: Its number, counted from 0 over all nodes.
        size: How many processes there are.
        local_rank: Its number on this node, which is that of its GPU.
        local_size: How many processes this node has.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process decides and writes."""
        return self.rank == 0

    @property
    def rows(self) -> slice:
        """Which rows of a global batch this process takes."""
        return slice(self.rank, None, self.size)

    def check_batch(self, batch_size: int | str, *, is_resumed: bool = False) -> None:
        """Refuse a batch that the processes cannot share out evenly.

        Args:
            batch_size: Images per batch.
            is_resumed: Whether it is that of a run that goes on, which keeps it.

        Raises:
            GraftError: If the number of images does not divide.
        """
        if isinstance(batch_size, int) and batch_size % self.size:
            below = batch_size // self.size * self.size
            near = f"--batch-size {below} or {below + self.size}" if below else f"--batch-size {self.size}"
            hint = f"--devices with a number that divides {batch_size}" if is_resumed else near
            raise GraftError(
                f"cannot share {batch_size} images per batch out among {self.size} processes: each takes the "
                f"same number. Pass {hint}."
            )

    def once(self, work: Callable[[], T]) -> T:
        """Let the leader do something, and return what it returns.

        Raises:
            Followed: If it fails, in the followers; the leader raises the error itself.
        """
        if self.size == 1:
            return work()
        own = _attempt(work) if self.leads else None
        told = [None if own is None else own.told()]
        dist.broadcast_object_list(told, 0, group=_control())
        return _settled(own, told, 0)

    def once_per_node(self, work: Callable[[], T]) -> T:
        """Let the first process of each node do something, and return what that of this node returns.

        Raises:
            Followed: If it fails on any node, elsewhere; the process that failed raises the error itself.
        """
        if self.size == 1:
            return work()
        leader = self.rank - self.local_rank
        own = _attempt(work) if self.rank == leader else None
        told: list[_Outcome[T] | None] = [None] * self.size
        dist.all_gather_object(told, None if own is None else own.told(), group=_control())
        return _settled(own, told, leader)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier(group=_control())

    def sums(self, *numbers: float) -> list[float]:
        """Add up numbers over all processes."""
        return self._reduced(dist.ReduceOp.SUM, numbers)

    def largest(self, *numbers: float) -> list[float]:
        """Return the largest of each number over all processes."""
        return self._reduced(dist.ReduceOp.MAX, numbers)

    def _reduced(self, how: Any, numbers: tuple[float, ...]) -> list[float]:
        if self.size == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(values, how, group=_control())
        return values.tolist()

    def share(self, amount: Tensor) -> Tensor:
        """Return this process's amount [] as a multiple of the mean over all processes, on its device."""
        if self.size == 1:
            return torch.ones_like(amount)
        total = amount.detach().clone()
        dist.all_reduce(total)
        return amount * self.size / total


ALONE = World()
"""One process that trains by itself."""


class Followed(SystemExit):
    """Ends a follower after the leader has failed; the leader says why."""

    def __init__(self) -> None:
        super().__init__(1)


@dataclass(frozen=True)
class _Outcome(Generic[T]):
    """What came out of some work."""

    value: T | None = None
    failed: bool = False
    error: Exception | None = None

    def told(self) -> _Outcome[T]:
        """Return what the other processes are told: all but the error itself."""
        return _Outcome(self.value, self.failed)


def _attempt(work: Callable[[], T]) -> _Outcome[T]:
    try:
        return _Outcome(work())
    except Exception as error:  # whatever it is, the others must not wait for it
        return _Outcome(failed=True, error=error)


def _settled(own: _Outcome[T] | None, told: Sequence[_Outcome[T] | None], leader: int) -> T:
    """Return the value of the leader's outcome, or raise where some work has failed."""
    if own is not None and own.error is not None:
        raise own.error
    if any(outcome is not None and outcome.failed for outcome in told):
        raise Followed
    outcome = own or told[leader]
    assert outcome is not None
    return cast(T, outcome.value)


def is_launched() -> bool:
    """Return whether `torchrun`, or the `graftonnx` command in its way, has started this process."""
    return dist.is_torchelastic_launched()


def leads() -> bool:
    """Return whether this process reports to the person: it is alone, or the first of all."""
    return not is_launched() or os.environ.get("RANK") == "0"


def join(device: str, devices: int = 1, nodes: int = 1) -> World:
    """Return the world of this process, connected.

    Args:
        device: Where the settings want to train: `auto`, `cpu` or `cuda`.
        devices: Processes on each node that the settings want; with one node and one device any will do.
        nodes: Nodes that they want.

    Raises:
        GraftError: If there are other processes than wanted, or too few GPUs, or the variables of torchrun
            hold no such numbers.
    """
    wanted = (devices, nodes)
    if not is_launched():
        if wanted != (1, 1):
            raise GraftError(
                f"cannot train on {_described(*wanted)} from one process: start it with torchrun "
                f"--nproc-per-node {devices}, or use `graftonnx train`, which starts the others."
            )
        return ALONE
    size = _variable("WORLD_SIZE", 1)
    rank = _variable("RANK", 0, size - 1)
    local_size = _variable("LOCAL_WORLD_SIZE", 1, size)
    local_rank = _variable("LOCAL_RANK", 0, local_size - 1)
    found = (local_size, size // local_size)
    if wanted not in ((1, 1), found):
        raise GraftError(
            f"cannot train on {_described(*wanted)}: torchrun has started processes for "
            f"{_described(*found)}. Leave --devices and --nodes away, or let them agree."
        )
    if size == 1:
        return ALONE
    _connect(device, local_rank, local_size)
    return World(rank, size, local_rank, local_size)


def _variable(name: str, least: int, most: int = 1 << 24) -> int:
    """Return the whole number that an environment variable of torchrun holds.

    Raises:
        GraftError: If there is none, or it is out of range.
    """
    text = os.environ.get(name)
    number = int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text.strip()) else None
    if number is None or not least <= number <= most:
        found = "is missing" if text is None else f"is {text!r}"
        raise GraftError(
            f"cannot train as one of several processes: the environment variable {name} {found}, expected a "
            f"whole number from {least} to {most}. Start the processes with torchrun, or unset "
            "TORCHELASTIC_RUN_ID to train with one."
        )
    return number


def _connect(wanted: str, local_rank: int, local_size: int) -> None:
    """Make the process group that trains."""
    gpus = torch.cuda.device_count() if wanted != "cpu" else 0
    if 0 < gpus < local_size:
        raise RuntimeProviderError(
            f"cannot train on {local_size} GPUs: this machine has {gpus}. "
            f"Pass --devices {gpus}, or --device cpu."
        )
    if gpus:
        torch.cuda.set_device(local_rank)
    if not dist.is_initialized():
        device = torch.device("cuda", local_rank) if gpus else None
        dist.init_process_group("nccl" if gpus else "gloo", device_id=device)
        atexit.register(_disconnect)
        _control()  # takes all processes: later one of them may have ended


def _disconnect() -> None:
    if dist.is_initialized():
        _control.cache_clear()
        dist.destroy_process_group()


@functools.cache
def _control() -> dist.ProcessGroup:
    """Return the group through which the processes agree, on the CPU: a GPU never waits for it."""
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, dist.ProcessGroup)
    return group


class PeerLostError(GraftError):
    """Another process has ended in the middle of training."""


@contextlib.contextmanager
def peer_errors(world: World, resume: str) -> Iterator[None]:
    """Turn the loss of another process into a sentence.

    Args:
        world: The processes that train.
        resume: The command that goes on with the run.

    Raises:
        PeerLostError: If another process ends in the block.
    """
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        raise PeerLostError(
            f"training stopped: another of its {world.size} processes has ended. Go on with: {resume}"
        ) from error


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Let one process report: the followers leave after the leader, and silently where it has spoken.

    Where the `graftonnx` command watches over the processes, none reports the loss of another.
    """
    try:
        yield
    except Interrupted as stop:
        if leads():
            raise
        _outlives_leader()
        sys.exit(128 + stop.signal)
    except Followed:
        _outlives_leader()
        raise
    except PeerLostError:
        if os.environ.get("ROLE_NAME") == ROLE:
            sys.exit(BEREFT)
        _raise_unless_told()
    except GraftError:
        _raise_unless_told()


def _raise_unless_told() -> NoReturn:
    """Go on with the error at hand, unless the leader has ended by one of its own."""
    if leads() or not _outlives_leader():
        raise
    sys.exit(1)


def _outlives_leader() -> bool:
    """Return whether the leader ends within the time of a farewell."""
    if not dist.is_initialized():
        return False
    try:
        dist.barrier(group=_control(), async_op=True).wait(FAREWELL)
    except RuntimeError as error:
        return "timed out" not in str(error).lower()
    return False


def _described(devices: int, nodes: int) -> str:
    plural = f"{devices} device{'s' if devices > 1 else ''}"
    return f"{nodes} nodes with {plural} each" if nodes > 1 else plural
