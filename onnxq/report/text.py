"""Results as tables in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnxq.pipelines import QuantizationResult
from onnxq.plan import Plan, TensorPlan
from onnxq.report.calibration_text import (
    describe_calibration,
    print_calibrated_nodes,
    print_each_node,
    print_stages,
    print_trade_off,
)
from onnxq.report.inspection import Inspection
from onnxq.report.rounding_text import describe_rounding
from onnxq.verification import Verification

FORM_TITLES = {
    "calibrated": "integer compute, calibrated",
    "4-bit matmul": "4-bit compute",
    "integer matmul": "integer compute",
    "integer lstm": "integer compute",
    "integer attention": "integer compute",
    "lookup": "storage, rows widened",
    "storage": "storage",
    "float": "stays float",
}


@dataclass(frozen=True)
class Group:
    """Tensors with the same fate."""

    title: str
    operator: str
    scheme: str
    reason: str
    tensors: int
    size_bytes: int


def format_bytes(size_bytes: float) -> str:
    """A size with a unit.

    >>> format_bytes(999), format_bytes(1_500_000)
    ('999 B', '1.5 MB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def print_result(console: Console, result: QuantizationResult) -> None:
    """The report of ``onnxq dynamic`` and ``onnxq static``."""
    if result.verification is None:
        print_plan(console, result.plan)
        _print_notes(console, result.notes)
        console.print("dry run: nothing was written", highlight=False)
        return
    print_groups(console, result.plan)
    if result.plan.calibration is not None:
        print_calibrated_nodes(console, result.plan.calibration)
    if result.calibration is not None:
        lines = "\n".join(describe_calibration(result.calibration))
        console.print(lines, highlight=False, markup=False, soft_wrap=True)
        print_stages(console, result.calibration)
        print_trade_off(console, result.calibration)
    if result.rounding is not None:
        lines = "\n".join(describe_rounding(result.rounding))
        console.print(lines, highlight=False, markup=False, soft_wrap=True)
    _print_notes(console, result.notes)
    print_verification(console, result.verification)
    size_bytes = result.size_bytes or 0
    ratio = result.float_size_bytes / max(1, size_bytes)
    if result.opset != result.float_opset:
        console.print(f"opset {result.float_opset} -> {result.opset}", highlight=False)
    console.print(
        f"{result.output}: {format_bytes(result.float_size_bytes)} -> {format_bytes(size_bytes)} "
        f"({ratio:.2f}x smaller)",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def print_groups(console: Console, plan: Plan) -> None:
    """One row for each group of tensors with the same fate."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("what", "operator", "stored as"):
        table.add_column(title, overflow="fold")
    table.add_column("tensors", justify="right", min_width=len("tensors"))
    table.add_column("float size", justify="right", min_width=len("float size"))
    table.add_column("reason", overflow="fold", min_width=len("reason"))
    for group in group_tensors(plan):
        table.add_row(
            group.title,
            group.operator,
            group.scheme,
            str(group.tensors),
            format_bytes(group.size_bytes),
            escape(group.reason),
        )
    if plan.ignored_tensors:
        table.add_row(
            "stays float",
            "any",
            "",
            str(plan.ignored_tensors),
            format_bytes(plan.ignored_bytes),
            "fewer than 64 elements",
        )
    console.print(table)


def print_plan(console: Console, plan: Plan) -> None:
    """One row for each tensor, and the nodes that read no weight."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in (
        "node",
        "operator",
        "tensor",
        "shape",
        "what",
        "stored as",
        "dB",
        "reason",
    ):
        table.add_column(title, overflow="fold")
    for tensor in plan.tensors:
        for use in tensor.uses:
            table.add_row(
                escape(use.node),
                use.operator,
                escape(tensor.name),
                "x".join(map(str, tensor.shape)),
                FORM_TITLES[use.form.value],
                "" if tensor.scheme is None else str(tensor.scheme),
                "" if tensor.expected_sqnr_db is None else f"{tensor.expected_sqnr_db:.1f}",
                escape("; ".join(filter(None, (tensor.reason, use.reason)))),
            )
    for node in plan.skipped:
        table.add_row(escape(node.node), node.operator, "", "", "stays float", "", "", node.reason)
    console.print(table)
    if plan.calibration is not None:
        print_each_node(console, plan.calibration)
    console.print(
        f"{plan.ignored_tensors} tensors of fewer than 64 elements stay float", highlight=False
    )


def print_inspection(console: Console, inspection: Inspection) -> None:
    """The report of ``onnxq inspect``."""
    opsets = ", ".join(f"{domain} {number}" for domain, number in inspection.opsets.items())
    lines = [
        f"{inspection.path}: {format_bytes(inspection.size_bytes)}, IR {inspection.ir_version}, "
        f"opset {opsets}" + (f", from {inspection.producer}" if inspection.producer else ""),
        *(f"input   {edge}" for edge in inspection.inputs),
        *(f"output  {edge}" for edge in inspection.outputs),
        "nodes   " + ", ".join(f"{name} {count}" for name, count in inspection.operators.items()),
    ]
    if inspection.quantized is not None:
        lines.append(f"already quantized: {inspection.quantized}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    table = Table("float weights of", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("tensors", "elements", "size"):
        table.add_column(title, justify="right")
    for group in inspection.weights:
        table.add_row(
            group.operator, str(group.tensors), str(group.elements), format_bytes(group.size_bytes)
        )
    console.print(table)
    if inspection.plan is not None:
        print_plan(console, inspection.plan)
        _print_notes(console, inspection.notes)


def group_tensors(plan: Plan) -> list[Group]:
    """Tensors of a plan by what becomes of them, integer compute first."""
    found: dict[tuple[str, str, str, str], list[TensorPlan]] = {}
    for tensor in plan.tensors:
        key = (
            FORM_TITLES[tensor.best_form.value],
            _operator_of(tensor),
            "" if tensor.scheme is None else str(tensor.scheme),
            tensor.explanation,
        )
        found.setdefault(key, []).append(tensor)
    titles = list(dict.fromkeys(FORM_TITLES.values()))
    return [
        Group(*key, len(tensors), sum(tensor.size_bytes for tensor in tensors))
        for key, tensors in sorted(found.items(), key=lambda item: titles.index(item[0][0]))
    ]


def _print_notes(console: Console, notes: Iterable[str]) -> None:
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _operator_of(tensor: TensorPlan) -> str:
    return ", ".join(dict.fromkeys(use.operator for use in tensor.uses))


def print_verification(console: Console, verification: Verification) -> None:
    """Float against quantized, and what the runtime makes of it."""
    table = Table("output", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("SQNR", "cosine", "largest error", "same argmax", "equal"):
        table.add_column(title, justify="right")
    for output in verification.outputs:
        table.add_row(
            escape(output.name),
            _format_db(output.sqnr_db),
            "" if output.cosine is None else f"{output.cosine:.6f}",
            "" if output.max_abs_error is None else f"{output.max_abs_error:.3g}",
            "" if output.agreement is None else f"{100 * output.agreement:.2f} %",
            "" if output.equal is None else f"{100 * output.equal:.2f} %",
        )
    if verification.outputs:
        console.print(table)
    lines = [f"compared with float on: {verification.data}" + _count(verification.samples)]
    if verification.optimized is not None:
        lines.append("as onnxruntime runs it: " + ", ".join(_describe_nodes(verification)))
    lines += [f"note: {note}" for note in verification.notes]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _describe_nodes(verification: Verification) -> Iterable[str]:
    optimized = verification.optimized
    if optimized is None:
        return
    for kind, nodes in (("integer", optimized.integer_nodes), ("float", optimized.float_nodes)):
        yield from (f"{count} {kind} {operator}" for operator, count in nodes.items())
    yield f"{len(optimized.constant_dequantize_nodes)} constant DequantizeLinear"


def _count(samples: int) -> str:
    return f" ({samples} sample{'' if samples == 1 else 's'})" if samples else ""


def _format_db(sqnr_db: float | None) -> str:
    if sqnr_db is None:
        return ""
    return "identical" if math.isinf(sqnr_db) and sqnr_db > 0 else f"{sqnr_db:.2f} dB"
