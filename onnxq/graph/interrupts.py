"""Letting an interrupt wait where stopping half-way would lose something."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def defer_interrupts() -> Iterator[None]:
    """Take SIGINT and SIGTERM at the end of the block, not inside it.

    Not by a signal mask: a thread of the runtime would take the signal instead, and Python would
    raise it in the main thread all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # where Python never raises an interrupt
        return
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    known = {number: handler for number, handler in before.items() if handler is not None}
    try:
        for number in known:
            signal.signal(number, note)
        yield
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)
        for got in dict.fromkeys(received):
            signal.raise_signal(got)
