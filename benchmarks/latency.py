"""Latency of several models side by side: the same inputs, in turn, in one process.

CPU time of the calling thread with one thread for each operator, so that other work on the machine
disturbs little; what is left of the noise hits every model alike, so read the ratios.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import onnxruntime

SMALLEST_MEASURED_S = 0.02
SLOW_RUN_S = 0.04
FEWEST_ROUNDS = 5
MOST_SAMPLES = 4

Feeds = Mapping[str, Any]


def measure_latencies(
    sessions: Mapping[str, onnxruntime.InferenceSession],
    samples: Sequence[Feeds],
    *,
    rounds: int,
    budget_s: float,
) -> dict[str, float]:
    """Median milliseconds of one run of each session.

    Args:
        sessions: of one thread each.
        samples: what to run on; a few are enough.
        rounds: how often to measure each.
        budget_s: fewer rounds where they would take longer together, but at least five.
    """
    chosen = samples[:MOST_SAMPLES]
    for session in sessions.values():
        _time_runs(session, chosen[:1], 1)
    slowest = max(_time_runs(session, chosen[:1], 1) for session in sessions.values())
    if slowest > SLOW_RUN_S:
        chosen = chosen[:1]
    repeats = max(1, math.ceil(SMALLEST_MEASURED_S / (slowest * len(chosen))))
    round_s = slowest * len(chosen) * repeats * len(sessions)
    rounds = max(FEWEST_ROUNDS, min(rounds, int(budget_s / round_s)))
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for index in range(rounds):
        for name in _rotate(list(sessions), index):
            times[name].append(_time_runs(sessions[name], chosen, repeats))
    return {name: 1000 * median(found) for name, found in times.items()}


def _time_runs(
    session: onnxruntime.InferenceSession, samples: Sequence[Feeds], repeats: int
) -> float:
    start = time.thread_time()
    for _ in range(repeats):
        for feeds in samples:
            session.run(None, feeds)
    return (time.thread_time() - start) / (repeats * len(samples))


def _rotate(names: list[str], index: int) -> list[str]:
    shift = index % len(names)
    turned = names[shift:] + names[:shift]
    return turned if index % 2 == 0 else turned[::-1]
