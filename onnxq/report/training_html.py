"""A training as one page of HTML: the learning curve, and how the result compares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxq.pipelines.qat_result import TrainingResult
from onnxq.report.html import require_jinja
from onnxq.report.text import format_bytes

WIDTH, HEIGHT = 640.0, 240.0
LEFT, BOTTOM = 56.0, 28.0


@dataclass(frozen=True)
class Mark:
    """A labelled place on an axis."""

    place: float
    text: str


@dataclass(frozen=True)
class Plot:
    """A line over the steps.

    Attributes:
        title: of the vertical axis.
        line: points, as SVG takes them.
        best: where the one that was kept is.
        across: marks of the steps.
        up: marks of the values.
    """

    title: str
    line: str
    best: tuple[float, float]
    across: tuple[Mark, ...]
    up: tuple[Mark, ...]


def draw_plot(
    title: str, steps: Sequence[int], values: Sequence[float], best: int, unit: str
) -> Plot:
    """Scale a curve to the plot; values that are not finite lie on its lower edge."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if high == low:
        low, high = low - 1.0, high + 1.0
    last = max(1, steps[-1])

    def across(step: float) -> float:
        return LEFT + (WIDTH - LEFT - 8) * step / last

    def up(value: float) -> float:
        share = (value - low) / (high - low) if math.isfinite(value) else 0.0
        return 8 + (HEIGHT - BOTTOM - 8) * (1 - share)

    places = [(across(step), up(value)) for step, value in zip(steps, values, strict=True)]
    return Plot(
        title=title,
        line=" ".join(f"{x:.1f},{y:.1f}" for x, y in places),
        best=places[best],
        across=tuple(Mark(across(part * last), f"{part * last:.0f}") for part in (0.0, 0.5, 1.0)),
        up=tuple(Mark(up(value), f"{value:.4g}{unit}") for value in (low, (low + high) / 2, high)),
    )


def write_training_html(result: TrainingResult, lines: Sequence[str], command: str) -> str:
    """The page.

    Args:
        result: of the training.
        lines: that describe it.
        command: by which it can be had again.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    require_jinja()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onnxq.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = format_bytes
    points, best = result.history.points, result.history.best
    steps = [point.step for point in points]
    plots = [
        draw_plot("SQNR on samples held back", steps, [one.sqnr_db for one in points], best, " dB"),
        draw_plot(
            "loss on samples held back (logarithm to base 10)",
            steps,
            [math.log10(max(1e-30, one.validation_loss)) for one in points],
            best,
            "",
        ),
    ]
    return environment.get_template("training.html.j2").render(
        result=result, lines=lines, command=command, plots=plots, points=points, best=best
    )
