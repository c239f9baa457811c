"""Pipeline files and results for tests, without running a model."""

from __future__ import annotations

from pathlib import Path

from onnxq.comparison.gates import check_gates
from onnxq.comparison.results import ComparisonReport, Footprint, Gate, TaskMetric
from onnxq.runs.fingerprints import Fingerprints
from onnxq.runs.lock import LockedRanges, LockEntry
from onnxq.runs.messages import Finished
from onnxq.runs.numbers import Numbers
from onnxq.verification.comparison import OutputComparison

TWO_MODELS = """
[defaults]
mode = "dynamic"

[[model]]
source = "a.onnx"

[[model]]
source = "b.onnx"
eval = "eval"

[model.gates]
min_sqnr = 30
"""


def write_pipeline(folder: Path, text: str = TWO_MODELS) -> Path:
    """A pipeline file, with everything there that it names as 'a', 'b' and 'eval'."""
    for name in ("a.onnx", "b.onnx"):
        (folder / name).write_bytes(b"")
    (folder / "eval").mkdir(exist_ok=True)
    path = folder / "onnxq.toml"
    path.write_text(text, "utf-8")
    return path


def make_numbers(sqnr_db: float = 40.0, size_bytes: int = 250) -> Numbers:
    return Numbers(
        data="eval",
        samples=8,
        float_size_bytes=1000,
        size_bytes=size_bytes,
        outputs=(
            OutputComparison("y", sqnr_db, 0.999, 0.01, None, 80, 0.98),
            OutputComparison("n", None, None, None, 1.0, 8),
        ),
        metrics=(TaskMetric(name="top-1", float_value=0.98, quantized_value=0.97, samples=80),),
    )


def make_entry(
    *,
    output: str = "c0ffee",
    model: str = "m",
    numbers: Numbers | None = None,
    ranges: LockedRanges | None = None,
    gates: tuple[Gate, ...] = (),
) -> LockEntry:
    return LockEntry(
        fingerprints=Fingerprints(
            model=model,
            calibration="",
            options="o",
            evaluation="e",
            measures="w",
            versions={"onnxq": "1"},
        ),
        output=output,
        ranges=ranges,
        numbers=numbers or make_numbers(),
        gates=gates,
    )


def make_finished(
    entry: LockEntry | None = None, limits: dict[str, float] | None = None, changed: bool = True
) -> Finished:
    entry = entry or make_entry()
    report = ComparisonReport(
        float_path=Path("a.onnx"),
        quantized_path=Path("a.int8.onnx"),
        data="eval",
        samples=8,
        outputs=entry.numbers.outputs,
        float_footprint=Footprint(size_bytes=1000),
        quantized_footprint=Footprint(size_bytes=250),
    )
    gates = check_gates(report, limits or {})
    report = ComparisonReport(**{**vars(report), "gates": gates})
    return Finished(entry, report, changed)
