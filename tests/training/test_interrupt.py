"""Signals become requests to stop."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from graftonnx.training.interrupt import StopRequest, stop_requests


def test_the_first_signal_is_remembered_and_the_second_interrupts() -> None:
    with stop_requests() as request:
        assert request.signal is None
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signal is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_of_the_main_thread_nothing_is_touched() -> None:
    handler = signal.getsignal(signal.SIGINT)
    seen: list[StopRequest] = []

    def work() -> None:
        with stop_requests() as request:
            seen.append(request)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[0].signal is None
    assert signal.getsignal(signal.SIGINT) is handler
