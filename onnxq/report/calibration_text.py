"""The parts of a report that are about calibration."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnxq.pipelines import CalibrationReport
from onnxq.pipelines.budget import TradeOff
from onnxq.plan import CalibrationPlan


def print_calibrated_nodes(console: Console, plan: CalibrationPlan) -> None:
    """One row for each operator that computes on calibrated integers, or could have."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("activations", "operator"):
        table.add_column(title, overflow="fold")
    table.add_column("nodes", justify="right", min_width=len("nodes"))
    table.add_column("reason", overflow="fold", min_width=len("reason"))
    for operator, count in Counter(node.operator for node in plan.nodes).items():
        table.add_row("calibrated", operator, str(count), "")
    for (operator, reason), count in Counter(
        (node.operator, node.reason) for node in plan.skipped
    ).items():
        table.add_row("float", operator, str(count), escape(reason))
    if plan.nodes or plan.skipped:
        console.print(table)


def print_each_node(console: Console, plan: CalibrationPlan) -> None:
    """One row for each such node."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("node", "operator", "activations", "reason"):
        table.add_column(title, overflow="fold")
    for node in plan.nodes:
        table.add_row(escape(node.name), node.operator, "calibrated", "")
    for skipped in plan.skipped:
        table.add_row(escape(skipped.node), skipped.operator, "float", escape(skipped.reason))
    if plan.nodes or plan.skipped:
        console.print(table)


def describe_calibration(report: CalibrationReport) -> list[str]:
    """Lines on where the ranges come from."""
    if not report.ranges:
        return ["calibration: not needed, no activation is quantized ahead of time"]
    where = f"{report.samples} samples of {report.data}" if report.samples else report.data
    lines = [f"calibrated on: {where}"]
    lines += [f"note: {note}" for note in report.notes]
    if report.skipped:
        lines.append(f"skipped {len(report.skipped)} bad samples:")
        lines += [f"  {message}" for message in report.skipped]
    if report.candidates:
        tried = ", ".join(
            f"{method} {'failed' if sqnr_db is None else f'{sqnr_db:.2f} dB'}"
            for method, sqnr_db in report.candidates
        )
        where = "samples held back" if report.held_back else "the same samples"
        lines.append(f"ranges: {report.method} (on {where}: {tried})")
    else:
        lines.append(f"ranges: {report.method}")
    return lines


def print_trade_off(console: Console, report: CalibrationReport) -> None:
    """One row for each mix of integers and floats that was tried to meet a budget."""
    if not report.curve:
        return
    has_wide = any(point.wide for point in report.curve)
    table = Table("blocks in float", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in (*(("in 16 bits",) if has_wide else ()), "SQNR", "same argmax", "gain kept"):
        table.add_column(title, justify="right")
    table.add_column("", overflow="fold")
    for point in report.curve:
        table.add_row(
            str(len(point.kept_float)),
            *((str(len(point.wide)),) if has_wide else ()),
            "" if point.sqnr_db is None else f"{point.sqnr_db:.2f} dB",
            "" if point.agreement is None else f"{100 * point.agreement:.2f} %",
            f"{100 * point.kept_gain:.0f} %",
            escape(("meets the budget: " if point.is_met else "") + _name_blocks(point)),
        )
    console.print(table)


def _name_blocks(point: TradeOff) -> str:
    """Those that are not as asked for."""
    if not point.wide:
        return _list(point.kept_float)
    in_float = f"float {_list(point.kept_float)}; " if point.kept_float else ""
    return f"{in_float}16 bits {_list(point.wide)}"


def _list(names: tuple[str, ...], most: int = 4) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def print_stages(console: Console, report: CalibrationReport) -> None:
    """One row for each technique that was tried."""
    if not report.stages:
        return
    table = Table(f"accuracy: {report.accuracy}", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("SQNR", "gain", "time"):
        table.add_column(title, justify="right")
    table.add_column("", overflow="fold")
    for stage in report.stages:
        table.add_row(
            stage.name,
            "" if stage.sqnr_db is None else f"{stage.sqnr_db:.2f} dB",
            "" if stage.gain_db is None else f"{stage.gain_db:+.2f} dB",
            f"{stage.seconds:.1f} s",
            escape(", ".join(filter(None, ("kept" if stage.kept else "dropped", stage.note)))),
        )
    console.print(table)
