"""Start the processes that train together, watch over them, and say in one sentence which of them died.

PyTorch's elastic agent does the work, as under `torchrun`; the processes run the same command.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from graftonnx.errors import GraftError
from graftonnx.training.interrupt import POLITE
from graftonnx.training.run import RunFolder
from graftonnx.training.world import BEREFT, ROLE

PORT = "29400"
"""Where the nodes meet on the first of them, if MASTER_PORT does not say; the default of torchrun."""

REFUSED = (1, 2)
"""Exit codes of errors that are told in a sentence."""

TOLD = (*REFUSED, *(128 + number for number in POLITE))
"""Exit codes of processes that have said why themselves."""

SAVING = 600
"""Seconds that the processes have after a signal, to end what they do and save."""


def launch(arguments: Sequence[str], devices: int, nodes: int, run: Path) -> int:
    """Run `graftonnx` with the same arguments in several processes, and wait for them.

    Args:
        arguments: Of the command line.
        devices: Processes on this node.
        nodes: Nodes, of which each runs this command.
        run: The run folder, for the sentence about a process that died.

    Returns:
        The exit code: that of the first process that failed, or 128 and the number of the signal.

    Raises:
        GraftError: If a process died, or nothing says where the nodes meet.
    """
    logging.disable(logging.CRITICAL)  # the agent tells in many lines what we tell in one
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // devices, 1)))
    start = elastic_launch(_config(devices, nodes), sys.executable)
    try:
        start("-P", "-m", "graftonnx", *arguments)
    except SignalException as stop:
        return 128 + stop.sigval
    except ChildFailedError as error:
        rank, failure = _first(error.failures)
        if failure.exitcode in TOLD:
            return failure.exitcode
        raise GraftError(_sentence(rank, devices * nodes, failure, run)) from None
    return 0


def _config(devices: int, nodes: int) -> LaunchConfig:
    """Return how the agents of the nodes meet; one that is alone stays within its machine."""
    address = "localhost:0"
    if nodes == 1:
        if "lo" in (name for _, name in socket.if_nameindex()):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    elif "MASTER_ADDR" not in os.environ:
        raise GraftError(
            f"cannot train on {nodes} nodes: they do not know where to meet. Run the same command on each, "
            "with MASTER_ADDR (and MASTER_PORT) of the first node in the environment; or use torchrun."
        )
    else:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT', PORT)}"
    return LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=devices,
        run_id=ROLE,
        role=ROLE,
        rdzv_backend="c10d",
        rdzv_endpoint=address,
        max_restarts=0,
        local_addr="localhost" if nodes == 1 else None,
        shutdown_timeout=SAVING,
    )


def _first(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Return the failure that brought the others about, with its rank.

    The agent ends the others with SIGTERM, and some end by themselves when one is gone. Who does not, after
    the leader has said why it ends, is killed.
    """
    leader = failures.get(0)
    killed = (-signal.SIGKILL,) if leader is not None and leader.exitcode in REFUSED else ()

    def order(item: tuple[int, ProcessFailure]) -> tuple[int, int, int]:
        rank, failure = item
        ranking = (*TOLD, *killed, -signal.SIGTERM, BEREFT)
        place = ranking.index(failure.exitcode) + 1 if failure.exitcode in ranking else 0
        return place, failure.timestamp, rank

    return min(failures.items(), key=order)


def _sentence(rank: int, size: int, failure: ProcessFailure, run: Path) -> str:
    code = failure.exitcode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    memory = " (memory may have run out)" if code == -signal.SIGKILL else ""
    sentence = f"training stopped: process {rank} of {size}, counted from 0, {how}{memory}."
    folder = RunFolder(run)
    if not folder.config.is_file():
        return f"{sentence} Nothing was saved yet: start again."
    return f"{sentence} Go on with: graftonnx train {folder.resuming}"
