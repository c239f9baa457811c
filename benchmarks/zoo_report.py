"""The tables of zoo.py, and the verdicts in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from settings import Setting, Tool
from tables import Table

SMALLEST_RATIO = {"int8": 3.0, "fp16": 1.8}
LOWEST_FP16_SQNR_DB = 50.0
LOWEST_SPEEDUP = 0.97
SHRINKING_RATIO = 1.1
"""Below this the incumbent has not quantized anything that matters."""
REFUSAL = "AlreadyQuantizedError"
LOWER_IS_BETTER = frozenset({"cer"})
LITTLE_RATIO = 2.0
"""Below this the incumbent has left most weights alone."""

NOTES = (
    "Speed-up: float time / quantized time, one thread, CPU time of the calling thread, all models "
    "of a block measured in turn in one process, ratio of medians. The float model is measured "
    "twice and the mean counts; what the row *float* differs from 1 is noise. DQ: constant "
    "DequantizeLinear nodes that run at every inference. CPU s and peak MB: the whole process that "
    "quantized.",
    "Verdicts. *SQNR* and *task*: at least as good as onnxruntime's most accurate setting that "
    f"makes the file {SHRINKING_RATIO}x smaller or more; for fp16, SQNR above "
    f"{LOWEST_FP16_SQNR_DB:.0f} dB; - where there is nothing to compare with. *size*: at least "
    f"{SMALLEST_RATIO['int8']:.0f}x (int8) or {SMALLEST_RATIO['fp16']}x (fp16) smaller. *speed*: "
    f"at least {LOWEST_SPEEDUP} of float. Where onnxruntime leaves most weights alone (less than "
    f"{LITTLE_RATIO:.0f}x smaller), `--no-storage`, which leaves alone the same weights, is the "
    "like-for-like comparison of SQNR and task.",
)
VERDICTS = ("SQNR ok", "task ok", "size ok", "speed ok")
COLUMNS = (
    *("model", "setting", "SQNR dB", "cosine", "agreement", "task", "MB", "smaller"),
    *("speed-up", "DQ", "CPU s", "peak MB", *VERDICTS),
)


@dataclass
class Result:
    """One setting on one model.

    Attributes:
        model: its name.
        setting: None for the float model.
        size_bytes: of the result, external data included.
        cpu_s: of the process that quantized.
        peak_bytes: likewise.
        error: why there is no result.
        score: what score_models.py found.
        main_output: the output that matters most; None for the first.
        stages: what each stage of onnxq static did.
    """

    model: str
    setting: Setting | None
    size_bytes: int = 0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    error: str = ""
    score: dict[str, Any] = field(default_factory=dict)
    main_output: str | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Name of the setting, for people."""
        return self.setting.label if self.setting else "float"

    @property
    def main(self) -> dict[str, Any]:
        """Figures of the output that matters most."""
        outputs: dict[str, dict[str, Any]] = self.score.get("outputs", {})
        first: dict[str, Any] = next(iter(outputs.values()), {})
        return outputs.get(self.main_output or "", first)

    @property
    def sqnr_db(self) -> float:
        """Of the main output; infinite when identical, NaN when not measured."""
        return _sqnr_db(self.main) if self.main else math.nan

    @property
    def task(self) -> dict[str, float]:
        """Metrics of the task."""
        found: dict[str, float] = self.score.get("task", {})
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "setting": self.setting.name if self.setting else None}


def shrinks_a_little(results: Sequence[Result]) -> bool:
    """Whether a setting of the incumbent quantizes something, but leaves most weights alone."""
    ratios = [_ratio(one, results[0]) for one in _incumbents(results)]
    return any(SHRINKING_RATIO <= ratio < LITTLE_RATIO for ratio in ratios)


def find_best_incumbent(results: Sequence[Result]) -> Result | None:
    """The most accurate result of the other tool that makes the file smaller."""
    found = [
        one
        for one in _incumbents(results)
        if _ratio(one, results[0]) >= SHRINKING_RATIO and one.score
    ]
    return max(found, key=lambda one: one.sqnr_db, default=None)


def make_tables(results: Sequence[Result]) -> list[Table]:
    """The main table, one of every output, and why some rows have no figures."""
    names = dict.fromkeys(one.model for one in results)
    blocks = [[one for one in results if one.model == name] for name in names]
    rows = [_row(one, block) for block in blocks for one in block]
    outputs = [row for one in results if one.setting is not None for row in _output_rows(one)]
    errors = [[one.model, one.label, one.error] for one in results if one.error]
    return [
        Table("Models", COLUMNS, rows),
        Table("Outputs", ("model", "setting", "output", "SQNR dB", "cosine", "agreement"), outputs),
        Table("Not quantized", ("model", "setting", "reason"), errors),
    ]


def _row(result: Result, block: Sequence[Result]) -> list[str]:
    if result.error:
        told = "refused" if result.error.startswith(REFUSAL) else "failed"
        return [result.model, result.label, told, *[""] * (len(COLUMNS) - 3)]
    main, score = result.main, result.score
    is_float = result.setting is None
    return [
        result.model,
        result.label,
        "" if is_float else format_sqnr(main),
        "" if is_float else _format(main.get("cosine"), ".6f"),
        "" if is_float else _format(main.get("agreement"), ".4f"),
        format_task(result.task),
        f"{result.size_bytes / 1e6:.2f}",
        "" if is_float else f"{_ratio(result, block[0]):.2f}",
        _format(score.get("speedup"), ".2f"),
        _format(score.get("constant_dequantize"), "d"),
        "" if is_float else f"{result.cpu_s:.2f}",
        "" if is_float else f"{result.peak_bytes / 1e6:.0f}",
        *_judge(result, block),
    ]


def _judge(result: Result, block: Sequence[Result]) -> list[str]:
    """The four verdicts; empty for rows that are not ours."""
    setting = result.setting
    if setting is None or setting.tool is not Tool.ONNXQ:
        return [""] * len(VERDICTS)
    best = find_best_incumbent(block)
    small = _ratio(result, block[0]) >= SMALLEST_RATIO[setting.weights]
    size = _yes(small) if setting.storage else ""
    if not result.score:
        return ["-", "-", size, "-"]
    speed = _yes(result.score["speedup"] >= LOWEST_SPEEDUP)
    if setting.weights == "fp16":
        return [_yes(result.sqnr_db > LOWEST_FP16_SQNR_DB), "", size, speed]
    sqnr = "-" if best is None else _yes(result.sqnr_db >= best.sqnr_db)
    task = "-" if best is None or not best.task else _yes(is_task_as_good(result, best))
    return [sqnr, task, size, speed]


def is_task_as_good(result: Result, best: Result) -> bool:
    """Whether every metric of the task is at least as good."""
    return all(
        value <= best.task[name] if name in LOWER_IS_BETTER else value >= best.task[name]
        for name, value in result.task.items()
    )


def _output_rows(result: Result) -> Iterable[list[str]]:
    for name, found in result.score.get("outputs", {}).items():
        yield [
            result.model,
            result.label,
            name,
            format_sqnr(found),
            _format(found["cosine"], ".6f"),
            _format(found["agreement"], ".4f"),
        ]


def _incumbents(results: Sequence[Result]) -> list[Result]:
    return [
        one
        for one in results
        if one.setting is not None and one.setting.tool is Tool.ONNXRUNTIME and not one.error
    ]


def _ratio(result: Result, reference: Result) -> float:
    return reference.size_bytes / result.size_bytes if result.size_bytes else 0.0


def _sqnr_db(found: dict[str, Any]) -> float:
    if found["identical"]:
        return math.inf
    return -math.inf if found["sqnr_db"] is None else float(found["sqnr_db"])


def format_sqnr(found: dict[str, Any]) -> str:
    """SQNR of an output, for people."""
    if not found:
        return "-"
    return "identical" if found["identical"] else f"{_sqnr_db(found):.2f}"


def format_task(task: dict[str, float]) -> str:
    """Metrics of a task, for people."""
    return ", ".join(f"{name} {value:.4f}" for name, value in task.items())


def _format(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)


def _yes(passed: bool) -> str:
    return "yes" if passed else "**no**"
