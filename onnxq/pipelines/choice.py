"""Choosing a method for ranges by trying it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from onnxq.errors import ExecutionError, VerificationError
from onnxq.pipelines.calibrate import Progress
from onnxq.runtime.session import Session
from onnxq.verification import Evaluation
from onnxq.verification.comparison import Comparison

BETTER_BY_DB = 0.25
"""Of two methods that are this close on a few samples held back, either may be the better one; then
the earlier of ``AUTO_METHODS`` stays."""


def choose_method(
    methods: tuple[str, ...],
    write: Callable[[str], Path],
    reference: Path,
    evaluation: Evaluation,
    progress: Progress,
) -> tuple[str, tuple[tuple[str, float | None], ...]]:
    """Try methods on samples and keep the one that measures best.

    Args:
        methods: to try, the preferred one first.
        write: writes the quantized model with the ranges of a method.
        reference: the float model.
        evaluation: the samples.
        progress: shows it.

    Returns:
        The method, and the SQNR in dB of each: None where the model failed.
    """
    session = Session(reference, lean=True)
    comparisons = {}
    for method in methods:
        try:
            comparisons[method] = Comparison(session, Session(write(method), lean=True))
        except ExecutionError:
            continue
    found: dict[str, float | None] = dict.fromkeys(methods)
    for feeds in progress("choosing ranges")(evaluation.read(session.inputs), evaluation.count):
        expected = session.run(feeds)
        for method, comparison in list(comparisons.items()):
            try:
                comparison.add(feeds, expected)
            except VerificationError:
                del comparisons[method]
    for method, comparison in comparisons.items():
        found[method] = comparison.mean_sqnr_db
    best = methods[0]
    for method in methods[1:]:
        if _value(found[method]) > _value(found[best]) + BETTER_BY_DB:
            best = method
    finite = {method: _finite(sqnr_db) for method, sqnr_db in found.items()}
    return best, tuple(finite.items())


def _value(sqnr_db: float | None) -> float:
    return -math.inf if sqnr_db is None else sqnr_db


def _finite(sqnr_db: float | None) -> float | None:
    return sqnr_db if sqnr_db is not None and math.isfinite(sqnr_db) else None
