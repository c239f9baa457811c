"""onnxq static against onnxruntime's static quantizer, and onnxq dynamic, on a folder of models.

    python benchmarks/zoo_static.py ZOO_DIR [--models-dir DIR] [--only NAME...] [--markdown FILE]

The layout is that of zoo.py, and ZOO_DIR/NAME/calib/*.npz are the samples to calibrate on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from settings import ONNXQ_INT8, ONNXQ_STATIC, ORT_STATIC
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

SETTINGS = (ORT_STATIC, ONNXQ_STATIC, ONNXQ_INT8)
COLUMNS = (
    *("model", "setting", "SQNR dB", "agreement", "task", "MB", "smaller", "speed-up"),
    *("integer", "float", "DQ", "CPU s", "peak MB", "SQNR ok", "task ok", "speed ok"),
)
NOTES = (
    "*onnxruntime static*: quant_pre_process, then quantize_static with Q/DQ pairs, uint8 "
    "activations, int8 weights with a scale for each channel, min-max; models of an opset below 13 "
    "are raised to 13 first, without which the result does not load. *onnxq static* and *onnxq "
    "int8* (dynamic): default options.",
    "Speed-up: float time / quantized time, one thread, CPU time of the calling thread, all models "
    "of a block measured in turn in one process, ratio of medians; what the row *float* differs "
    "from 1 is noise. *integer*, *float*: Conv, MatMul, Gemm, LSTM and GRU of either kind; *DQ*: "
    "constant DequantizeLinear; in the graph as the runtime optimises it. CPU s and peak MB: the "
    "whole process that quantized.",
    "Verdicts on onnxq static: SQNR and task at least those of onnxruntime static, where that "
    f"runs and makes the file {SHRINKING_RATIO}x smaller or more; speed at least {LOWEST_SPEEDUP} "
    "of float, and (second word) of onnxruntime static.",
)


def main() -> int:
    """Run the command line; exit code 1 if there was no model to measure."""
    options = parse_arguments()
    rows: list[list[str]] = []
    errors: list[list[str]] = []
    kept = []
    for name, model in find_models(options).items():
        samples = options.zoo_dir / name / "calib"
        if not samples.is_dir():
            print(f"{samples}: no samples to calibrate on")
            continue
        print(f"{name} ...", flush=True)
        results = measure_model(name, model, samples, options)
        rows += [make_row(one, results) for one in results]
        errors += [[one.model, one.label, one.error] for one in results if one.error]
        kept += [one.to_json() for one in results]
        if options.json:
            options.json.write_text(json.dumps(kept, indent=1))
        tables = [
            Table("Models", COLUMNS, rows),
            Table("No result", ("model", "setting", "reason"), errors),
        ]
        report("onnxq static on the zoo", NOTES, tables, options.markdown)
    return 0 if rows else 1


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("zoo_dir", type=Path, help="folder with NAME/calib, eval and labels.json")
    parser.add_argument("--models-dir", type=Path, help="folder with NAME/model.onnx")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these models")
    parser.add_argument("--rounds", type=int, default=25, help="latency measurements of each model")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for them, by model")
    parser.add_argument("--markdown", type=Path, help="write the tables here, after every model")
    parser.add_argument("--json", type=Path, help="write all figures here, after every model")
    return parser.parse_args()


def measure_model(
    name: str, model: Path, samples: Path, options: argparse.Namespace
) -> list[Result]:
    """The float model and all settings."""
    results = [Result(name, None, size_bytes=read_float_size(model))]
    with tempfile.TemporaryDirectory() as folder:
        for setting in SETTINGS:
            given = samples if setting.static else None
            results.append(quantize(name, model, setting, Path(folder), given))
        add_scores(results, model, Path(folder), options)
    return results


def make_row(result: Result, results: Sequence[Result]) -> list[str]:
    """One line of the table."""
    if result.error:
        told = "refused" if result.error.startswith(REFUSAL) else "failed"
        return [result.model, result.label, told, *[""] * (len(COLUMNS) - 3)]
    is_float, score = result.setting is None, result.score
    agreement = result.main.get("agreement")
    return [
        result.model,
        result.label,
        "" if is_float else format_sqnr(result.main),
        "" if is_float or agreement is None else f"{agreement:.4f}",
        format_task(result.task),
        f"{result.size_bytes / 1e6:.2f}",
        "" if is_float else f"{results[0].size_bytes / result.size_bytes:.2f}",
        f"{score['speedup']:.2f}" if "speedup" in score else "",
        *(str(score.get(kind, "")) for kind in ("integer_layers", "float_layers")),
        str(score.get("constant_dequantize", "")),
        "" if is_float else f"{result.cpu_s:.2f}",
        "" if is_float else f"{result.peak_bytes / 1e6:.0f}",
        *judge(result, results),
    ]


def judge(result: Result, results: Sequence[Result]) -> list[str]:
    """The verdicts; empty for rows that are not onnxq static."""
    if result.setting is not ONNXQ_STATIC or not result.score:
        return [""] * 3
    other = next(one for one in results if one.setting is ORT_STATIC)
    speedup = result.score["speedup"]
    speed = _say(speedup >= LOWEST_SPEEDUP)
    if not other.score or SHRINKING_RATIO * other.size_bytes > results[0].size_bytes:
        return ["-", "-", f"{speed}, -"]
    faster = _say(speedup >= LOWEST_SPEEDUP * other.score["speedup"])
    task = _say(is_task_as_good(result, other)) if result.task else "-"
    return [_say(result.sqnr_db >= other.sqnr_db), task, f"{speed}, {faster}"]


def _say(passed: bool) -> str:
    return "yes" if passed else "**no**"


if __name__ == "__main__":
    sys.exit(main())
