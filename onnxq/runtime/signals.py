"""Keeping signals out of where Python cannot take them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hold_signals() -> Iterator[None]:
    """Hold back interrupts until the end of the block.

    An exception that a signal handler raises while an extension module is being imported becomes
    another error, or crashes the interpreter. Processes started inside hold them back, too.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
