"""The part of a report that is about rounding with samples."""

from __future__ import annotations

from onnxq.pipelines import RoundingReport


def describe_rounding(report: RoundingReport) -> list[str]:
    """Lines on how 4-bit weights were rounded."""
    figures = ", ".join(
        f"{name} {'identical' if sqnr_db is None else f'{sqnr_db:.2f} dB'}"
        for name, sqnr_db in (
            ("nearest", report.nearest_db),
            ("second order", report.second_order_db),
        )
    )
    lines = [
        f"4-bit rounding: {report.method}, {report.layers} weights, {report.samples} samples of "
        f"{report.data}",
        f"compared on {report.compared_on}: {figures}",
    ]
    lines += [f"note: {note}" for note in report.notes]
    if report.skipped:
        lines.append(f"skipped {len(report.skipped)} bad samples:")
        lines += [f"  {message}" for message in report.skipped]
    return lines
