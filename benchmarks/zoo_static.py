"""onnxq static at each level of accuracy against onnxruntime's static quantizer, and NNCF.

    python benchmarks/zoo_static.py ZOO_DIR [--models-dir DIR] [--only NAME...] [--markdown FILE]

The layout is that of zoo.py, and ZOO_DIR/NAME/calib/*.npz are the samples to calibrate on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from settings import (
    LEVELS,
    NNCF,
    ONNXQ_EXACT,
    ONNXQ_INT8,
    ONNXQ_STATIC,
    ORT_STATIC,
    ORT_STATIC_7BIT,
    ORT_STATIC_EXACT,
    Setting,
    Tool,
)
from tables import Table, report
from zoo import add_scores, find_models, quantize, read_float_size
from zoo_report import (
    LOWEST_SPEEDUP,
    REFUSAL,
    SHRINKING_RATIO,
    Result,
    format_sqnr,
    format_task,
    is_task_as_good,
)

SETTINGS = (ORT_STATIC, ORT_STATIC_7BIT, *ONNXQ_STATIC, ONNXQ_INT8)
EXACT_SETTINGS = (ORT_STATIC_EXACT, *ONNXQ_EXACT)
COLUMNS = (
    *("model", "setting", "SQNR dB", "agreement", "task", "MB", "smaller", "speed-up"),
    *("integer", "float", "DQ", "CPU s", "peak MB", "SQNR ok", "task ok", "speed ok"),
)
EXACT_COLUMNS = ("model", "setting", "SQNR dB", "agreement", "task")
STAGE_COLUMNS = ("model", "setting", "stage", "gain dB", "kept", "note", "s")
TIME_COLUMNS = ("model", *LEVELS, "balanced to fast", "best to fast")
NOTES = (
    "*onnxruntime static*: quant_pre_process, then quantize_static with Q/DQ pairs, uint8 "
    "activations, int8 weights with a scale for each channel, min-max; models of an opset below 13 "
    "are raised to 13 first, without which the result does not load. *7-bit weights*: the same "
    "with reduce_range. *onnxq static*: default options but for --accuracy, of which *balanced* is "
    "the default; so weights have 7 bits where the processor adds products of 8 bits inexactly. "
    "*onnxq int8* (dynamic): default options.",
    "Speed-up: float time / quantized time, one thread, CPU time of the calling thread, all models "
    "of a block measured in turn in one process, ratio of medians; what the row *float* differs "
    "from 1 is noise. *integer*, *float*: Conv, MatMul, Gemm, LSTM and GRU of either kind; *DQ*: "
    "constant DequantizeLinear; in the graph as the runtime optimises it. CPU s and peak MB: the "
    "whole process that quantized.",
    "Verdicts on onnxq static: SQNR and task at least those of the better onnxruntime static, "
    f"where that runs and makes the file {SHRINKING_RATIO}x smaller or more; speed at least "
    f"{LOWEST_SPEEDUP} of float, and (second word) of onnxruntime static.",
)
EXACT_TITLE = "8-bit weights, exact arithmetic: as on a processor with VNNI"
STAGES_TITLE = "Stages: gain on samples held back, seconds"
TIME_TITLE = "CPU time of the levels, seconds of the whole process"


def main() -> int:
    """Run the command line; exit code 1 if there was no model to measure."""
    options = parse_arguments()
    results: list[Result] = []
    exact: list[Result] = []
    for name, model in find_models(options).items():
        samples = options.zoo_dir / name / "calib"
        if not samples.is_dir():
            print(f"{samples}: no samples to calibrate on")
            continue
        print(f"{name} ...", flush=True)
        settings = (*SETTINGS, *((NNCF,) if options.nncf_python else ()))
        results += measure_model(name, model, samples, settings, options)
        if name in options.exact:
            exact += measure_model(name, model, samples, EXACT_SETTINGS, options, exact=True)
        if options.json:
            kept = [one.to_json() for one in (*results, *exact)]
            options.json.write_text(json.dumps(kept, indent=1))
        report("onnxq static on the zoo", NOTES, make_tables(results, exact), options.markdown)
    return 0 if results else 1


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo_dir", type=Path, help="folder with NAME/calib, eval and labels.json")
    parser.add_argument("--models-dir", type=Path, help="folder with NAME/model.onnx")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these models")
    parser.add_argument(
        "--exact",
        nargs="+",
        default=(),
        metavar="NAME",
        help="models to quantize also with 8-bit weights, on arithmetic without saturation",
    )
    parser.add_argument("--nncf-python", help="interpreter of an environment with NNCF")
    parser.add_argument("--rounds", type=int, default=25, help="latency measurements of each model")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for them, by model")
    parser.add_argument("--markdown", type=Path, help="write the tables here, after every model")
    parser.add_argument("--json", type=Path, help="write all figures here, after every model")
    return parser.parse_args()


def measure_model(
    name: str,
    model: Path,
    samples: Path,
    settings: Sequence[Setting],
    options: argparse.Namespace,
    *,
    exact: bool = False,
) -> list[Result]:
    """The float model and all settings."""
    results = [Result(name, None, size_bytes=read_float_size(model))]
    with tempfile.TemporaryDirectory() as folder:
        for setting in settings:
            given = samples if setting.static else None
            python = options.nncf_python if setting.tool is Tool.NNCF else None
            results.append(quantize(name, model, setting, Path(folder), given, python=python))
        add_scores(results, model, Path(folder), options, exact=exact)
    return results


def make_tables(results: Sequence[Result], exact: Sequence[Result]) -> list[Table]:
    """All tables; those without rows are not printed."""
    blocks = [
        [one for one in results if one.model == name]
        for name in dict.fromkeys(one.model for one in results)
    ]
    everything = (*results, *exact)
    return [
        Table("Models", COLUMNS, [make_row(one, block) for block in blocks for one in block]),
        Table(EXACT_TITLE, EXACT_COLUMNS, [_accuracy_row(one) for one in exact]),
        Table(STAGES_TITLE, STAGE_COLUMNS, [row for one in everything for row in _stages(one)]),
        Table(TIME_TITLE, TIME_COLUMNS, [row for block in blocks for row in _times(block)]),
        Table(
            "No result",
            ("model", "setting", "reason"),
            [[one.model, one.label, one.error] for one in everything if one.error],
        ),
    ]


def make_row(result: Result, results: Sequence[Result]) -> list[str]:
    """One line of the table."""
    is_float, score = result.setting is None, result.score
    if result.error:
        return [*_accuracy_row(result)[:3], *[""] * (len(COLUMNS) - 3)]
    return [
        *_accuracy_row(result),
        f"{result.size_bytes / 1e6:.2f}",
        "" if is_float else f"{results[0].size_bytes / result.size_bytes:.2f}",
        f"{score['speedup']:.2f}" if "speedup" in score else "",
        *(str(score.get(kind, "")) for kind in ("integer_layers", "float_layers")),
        str(score.get("constant_dequantize", "")),
        "" if is_float else f"{result.cpu_s:.2f}",
        "" if is_float else f"{result.peak_bytes / 1e6:.0f}",
        *judge(result, results),
    ]


def _accuracy_row(result: Result) -> list[str]:
    if result.error:
        told = "refused" if result.error.startswith(REFUSAL) else "failed"
        return [result.model, result.label, told, "", ""]
    is_float, agreement = result.setting is None, result.main.get("agreement")
    return [
        result.model,
        result.label,
        "" if is_float else format_sqnr(result.main),
        "" if is_float or agreement is None else f"{agreement:.4f}",
        format_task(result.task),
    ]


def _stages(result: Result) -> list[list[str]]:
    """One line for each stage that proposed something."""
    exact = ", exact" if result.setting and result.setting.exact else ""
    return [
        [
            result.model,
            result.label + exact,
            stage["name"],
            f"{stage['gain_db']:+.2f}",
            "yes" if stage["kept"] else "no",
            stage["note"],
            f"{stage['seconds']:.1f}",
        ]
        for stage in result.stages
        if stage["gain_db"] is not None and math.isfinite(stage["gain_db"])
    ]


def _times(block: Sequence[Result]) -> list[list[str]]:
    found = {one.setting.accuracy: one.cpu_s for one in block if one.setting and not one.error}
    if not all(level in found for level in LEVELS):
        return []
    fast, *others = (found[level] for level in LEVELS)
    cells = [f"{seconds:.1f}" for seconds in (fast, *others)]
    return [[block[0].model, *cells, *(f"{seconds / fast:.1f}x" for seconds in others)]]


def judge(result: Result, results: Sequence[Result]) -> list[str]:
    """The verdicts; empty for rows that are not onnxq static."""
    if result.setting not in ONNXQ_STATIC or not result.score:
        return [""] * 3
    others = [
        one
        for one in results
        if one.setting in (ORT_STATIC, ORT_STATIC_7BIT)
        and one.score
        and SHRINKING_RATIO * one.size_bytes <= results[0].size_bytes
    ]
    speedup = result.score["speedup"]
    speed = _say(speedup >= LOWEST_SPEEDUP)
    if not others:
        return ["-", "-", f"{speed}, -"]
    best = max(others, key=lambda one: one.sqnr_db)
    faster = _say(speedup >= LOWEST_SPEEDUP * best.score["speedup"])
    task = _say(is_task_as_good(result, best)) if result.task else "-"
    return [_say(result.sqnr_db >= best.sqnr_db), task, f"{speed}, {faster}"]


def _say(passed: bool) -> str:
    return "yes" if passed else "**no**"


if __name__ == "__main__":
    sys.exit(main())
