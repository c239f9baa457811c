"""A comparison as one page of HTML that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxq.comparison.results import ComparisonReport, LayerError
from onnxq.errors import OnnxqError, UsageError
from onnxq.plan import Plan
from onnxq.report import comparison_text as text
from onnxq.report.histograms import (
    LARGEST_TENSORS,
    QuantizedTensors,
    WeightHistogram,
    read_quantized_tensors,
)
from onnxq.report.inspection import inspect_model
from onnxq.report.text import FORM_TITLES, format_bytes
from onnxq.targets import TARGETS

PLOTTED_LAYERS = 30
OPEN_HISTOGRAMS = 12
LONGEST_TABLE = 1000
"""Rows of a page with one model; the rest is left out, so that the page stays small."""

_LABEL_LENGTH = 31
_PLOT_HEIGHT = 100
_LOWEST_DB = -60.0
_STAYS_FLOAT = FORM_TITLES["float"]


@dataclass(frozen=True)
class Card:
    """One figure that a reader wants first.

    Attributes:
        title: what it is.
        headline: the figure.
        detail: what it is made of.
        bars: float and quantized: length from 0 to 1 and text.
    """

    title: str
    headline: str
    detail: str
    bars: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class LayerBar:
    """One layer in the plot; noise is a share of the signal."""

    label: str
    layer: LayerError
    added: float
    accumulated: float
    length: float
    accumulated_length: float


@dataclass(frozen=True)
class NodeRow:
    """What a plan says of a node."""

    node: str
    operator: str
    what: str
    reason: str


@dataclass(frozen=True)
class Page:
    """What the page shows of one model, beside the report itself.

    Attributes:
        report: the comparison.
        cards: figures.
        bars: the worst layers.
        layers: rows of the table of layers.
        tensors: what is in the files; None where they cannot be read.
        tensors_missing: why.
        mode: which plan is shown.
        plan: its nodes, those that stay float first.
        plan_left_out: how many nodes more there are.
        plan_missing: why there is none.
        command: to get the same report again.
    """

    report: ComparisonReport
    cards: tuple[Card, ...]
    bars: tuple[LayerBar, ...]
    layers: tuple[LayerError, ...]
    tensors: QuantizedTensors | None
    tensors_missing: str
    mode: str
    plan: tuple[NodeRow, ...]
    plan_left_out: int
    plan_missing: str
    command: str


def write_html(reports: Sequence[ComparisonReport], *, commands: Sequence[str]) -> str:
    """One section a model.

    Args:
        reports: of each model.
        commands: by which each report can be had again.

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
    environment.filters |= {
        "bytes": format_bytes,
        "outline": draw_outline,
        "short": _shorten,
        "place": place,
        "number": lambda value: f"{value:.4g}",
        "sqnr": text.format_sqnr,
        "limit": text.format_limit,
        "reached": text.format_reached,
        "describe_output": text.describe_output,
        "describe_metric": text.describe_metric,
        "describe_execution": text.describe_execution,
    }
    share = max(1, len(reports))
    pages = [_make_page(*pair, share) for pair in zip(reports, commands, strict=True)]
    template = environment.get_template("report.html.j2")
    return template.render(
        pages=pages, environment=text.describe_environment(), text=text, open_count=OPEN_HISTOGRAMS
    )


def require_jinja() -> None:
    """Say how to get Jinja2 where it is not installed.

    Raises:
        UsageError: it is not.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise UsageError(
            'a report in HTML needs Jinja2, which is not installed: pip install "onnxq[report]"'
        ) from error


def draw_outline(histogram: WeightHistogram) -> str:
    """The path of an SVG of ``BINS`` by 100: the outline of all bars."""
    highest = max(1, *histogram.counts)
    steps = "".join(
        f"V{_PLOT_HEIGHT - _bar_height(count, highest)}h1" for count in histogram.counts
    )
    return f"M0,{_PLOT_HEIGHT}{steps}V{_PLOT_HEIGHT}z"


def place(value: float, low: float, high: float) -> str:
    """Where a number is between two others, in percent.

    >>> place(0.0, -1.0, 3.0)
    '25.00'
    """
    width = high - low
    share = (value - low) / width if 0.0 < width < math.inf else 0.0
    return f"{100.0 * min(1.0, max(0.0, share)):.2f}"


def list_nodes(plan: Plan) -> list[NodeRow]:
    """The nodes of a plan, each once, those that stay float first."""
    rows: dict[str, NodeRow] = {}
    calibration = plan.calibration
    for node in () if calibration is None else calibration.nodes:
        rows[node.name] = NodeRow(node.name, node.operator, FORM_TITLES["calibrated"], "")
    for tensor in plan.tensors:
        for use in tensor.uses:
            reasons = dict.fromkeys(filter(None, (tensor.reason, use.reason)))
            what = FORM_TITLES[use.form.value]
            rows.setdefault(use.node, NodeRow(use.node, use.operator, what, "; ".join(reasons)))
    for skipped in (*plan.skipped, *(() if calibration is None else calibration.skipped)):
        row = rows.get(skipped.node)
        if row is None:
            row = NodeRow(skipped.node, skipped.operator, _STAYS_FLOAT, "")
        reasons = dict.fromkeys(filter(None, (*row.reason.split("; "), skipped.reason)))
        rows[skipped.node] = NodeRow(row.node, row.operator, row.what, "; ".join(reasons))
    return sorted(rows.values(), key=lambda row: row.what != _STAYS_FLOAT)


def _make_page(report: ComparisonReport, command: str, share: int) -> Page:
    """Everything on one model that is to be seen, where it has a share-th of the page."""
    tensors, tensors_missing = None, ""
    try:
        tensors = read_quantized_tensors(
            report.float_path, report.quantized_path, limit=max(1, LARGEST_TENSORS // share)
        )
    except OnnxqError as error:
        tensors_missing = str(error)
    mode = "static" if tensors is not None and tensors.activations else "dynamic"
    nodes, plan_missing = _plan(report.float_path, mode)
    longest = max(10, LONGEST_TABLE // share)
    return Page(
        report=report,
        cards=tuple(_make_cards(report)),
        bars=tuple(_make_bars(report.layers[:PLOTTED_LAYERS])),
        layers=report.layers[:longest],
        tensors=tensors,
        tensors_missing=tensors_missing,
        mode=mode,
        plan=tuple(nodes[:longest]),
        plan_left_out=len(nodes[longest:]),
        plan_missing=plan_missing,
        command=command,
    )


def _plan(path: Path, mode: str) -> tuple[list[NodeRow], str]:
    """The rows of a plan, or none and why."""
    try:
        inspection = inspect_model(path, plan=mode, target=TARGETS[0])
    except OnnxqError as error:
        return [], str(error)
    if inspection.plan is None:
        return [], f"the float model is quantized itself: {inspection.quantized}"
    return list_nodes(inspection.plan), ""


def _make_cards(report: ComparisonReport) -> Iterable[Card]:
    """What most readers look for, then the rest of what was measured."""
    footprint = list(_measure_footprint(report))
    first = ("size", "latency")
    yield from (card for card in footprint if card.title.startswith(first))
    for metric in report.metrics[:1]:
        _, float_text, quantized_text, drop, samples = text.describe_metric(metric)
        detail = f"float {float_text}, drop {drop}, {samples} samples"
        yield Card(metric.name, quantized_text, detail)
    measured = [one for one in report.outputs if one.sqnr_db is not None]
    if measured:
        worst = min(measured, key=lambda one: one.sqnr_db or 0.0)
        detail = f"signal to noise of output '{worst.name}'"
        yield Card("accuracy of the worst output", text.format_sqnr(worst.sqnr_db), detail)
    yield from (card for card in footprint if not card.title.startswith(first))


def _measure_footprint(report: ComparisonReport) -> Iterable[Card]:
    a, b = report.float_footprint, report.quantized_footprint
    for name, float_text, quantized_text, change in text.describe_footprint(report):
        values: tuple[float, float] = {
            "size": (a.size_bytes, b.size_bytes),
            "load": (a.load_ms or 0.0, b.load_ms or 0.0),
            "peak memory": (a.peak_memory_bytes or 0, b.peak_memory_bytes or 0),
        }.get(name, (0.0, 0.0))
        if name.startswith("latency") and report.latency is not None:
            values = (report.latency.float_ms, report.latency.quantized_ms)
        longest = max(*values, 1e-9)
        bars = (
            (max(0.0, values[0]) / longest, float_text),
            (max(0.0, values[1]) / longest, quantized_text),
        )
        yield Card(name, change or quantized_text, "", bars)


def _make_bars(layers: Sequence[LayerError]) -> Iterable[LayerBar]:
    pairs = [(_noise(one.added_sqnr_db), _noise(one.accumulated_sqnr_db)) for one in layers]
    longest = max((max(pair) for pair in pairs), default=0.0) or 1.0
    for layer, (added, accumulated) in zip(layers, pairs, strict=True):
        lengths = (100.0 * added / longest, 100.0 * accumulated / longest)
        yield LayerBar(_shorten(layer.node), layer, added, accumulated, *lengths)


def _noise(sqnr_db: float) -> float:
    """Noise as a share of the signal, both root mean square.

    >>> _noise(40.0), _noise(math.inf)
    (0.01, 0.0)
    """
    return float(10.0 ** (-max(_LOWEST_DB, sqnr_db) / 20.0))


def _shorten(name: str) -> str:
    """The end of a name, which tells more than its start."""
    return name if len(name) <= _LABEL_LENGTH else f"…{name[1 - _LABEL_LENGTH :]}"


def _bar_height(count: int, highest: int) -> int:
    # A bin with one element is to be seen, too: outliers are what clipping is about.
    return 0 if count == 0 else max(1, round(_PLOT_HEIGHT * count / highest))
