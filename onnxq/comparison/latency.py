"""How long one inference takes: both models in turns in one process, on the same samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles

from onnxq.comparison.results import Latency
from onnxq.errors import DataError
from onnxq.runtime.session import Feeds, Session

SHORTEST_MEASUREMENT_S = 0.010
"""A measurement that is shorter than this would be one of the scheduler."""

SLOW_INFERENCE_S = 0.050
"""One that takes longer is measured on one sample only."""

FEWEST_ROUNDS = 3
MOST_SAMPLES = 4


def measure_latency(
    float_path: Path,
    quantized_path: Path,
    feeds: Sequence[Feeds],
    *,
    threads: int,
    rounds: int,
    budget_s: float = 20.0,
) -> Latency:
    """Median and quartiles of the time that one inference takes, for both models.

    What else the machine does disturbs both alike, because they take turns, and change who is
    first; so the ratio is steadier than the times.

    Args:
        float_path: of the float model.
        quantized_path: of the quantized model.
        feeds: samples; the first few are used, or the first one where inference is slow.
        threads: for one operator; 0 lets onnxruntime choose.
        rounds: in each of which both models are measured once; at least three are made.
        budget_s: after this many seconds no further round is begun.

    Raises:
        DataError: there are no samples.
        ExecutionError: a model does not load, or does not run on a sample.
    """
    if not feeds:
        raise DataError("there is no sample to measure the latency on")
    # As users run it: the runtime's own defaults, but for the number of threads.
    sessions = tuple(
        Session(path, threads=threads, spinning=True) for path in (float_path, quantized_path)
    )
    start = time.perf_counter()
    chosen = _warm_up(sessions, feeds)
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(max(FEWEST_ROUNDS, rounds)):
        round_start = time.perf_counter()
        for model in (0, 1) if index % 2 == 0 else (1, 0):
            times[model].append(_time_inference(sessions[model], chosen))
        now = time.perf_counter()
        if index + 1 >= FEWEST_ROUNDS and now - start + (now - round_start) > budget_s:
            break
    float_low, float_ms, float_high = quantiles(times[0], n=4, method="inclusive")
    quantized_low, quantized_ms, quantized_high = quantiles(times[1], n=4, method="inclusive")
    return Latency(
        threads=threads,
        rounds=len(times[0]),
        samples=len(chosen),
        float_ms=float_ms,
        quantized_ms=quantized_ms,
        float_spread_ms=(float_low, float_high),
        quantized_spread_ms=(quantized_low, quantized_high),
    )


def _warm_up(sessions: Sequence[Session], feeds: Sequence[Feeds]) -> Sequence[Feeds]:
    """Run each model on each sample that will be measured, and say which those are.

    The first run with a shape plans memory for it, which users pay for once.
    """
    slowest_s = 0.0
    for session in sessions:
        start = time.perf_counter()
        session.run(feeds[0])
        slowest_s = max(slowest_s, time.perf_counter() - start)
    if slowest_s > SLOW_INFERENCE_S:
        return feeds[:1]
    chosen = feeds[:MOST_SAMPLES]
    for session in sessions:
        for sample in chosen:
            session.run(sample)
    return chosen


def _time_inference(session: Session, feeds: Sequence[Feeds]) -> float:
    """Mean milliseconds of an inference, over as many as make up a measurement."""
    session.run(feeds[0])  # not timed: brings back into the caches what the other model drove out
    passes = 0
    elapsed_s = 0.0
    start = time.perf_counter()
    while elapsed_s < SHORTEST_MEASUREMENT_S:
        for sample in feeds:
            session.run(sample)
        passes += 1
        elapsed_s = time.perf_counter() - start
    return 1000.0 * elapsed_s / (passes * len(feeds))
