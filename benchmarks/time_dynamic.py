"""CPU time of quantizing: onnxq against `onnxruntime.quantization.quantize_dynamic`.

    python benchmarks/time_dynamic.py [MODELS_DIR] [--only NAME...] [--rounds N] [--markdown FILE]

Measured on a generated chain of 600 nodes and on MODELS_DIR/NAME/model.onnx, every run in a fresh
process, the tools in turn, medians over the rounds. Then chains of 500 and 5,000 nodes, to see how
the time of onnxq grows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from generated import write_chain
from processes import run_script
from settings import INCUMBENTS, ONNXQ_INT8, ORT_DEFAULTS, ORT_PER_CHANNEL, Setting
from tables import Table, report

CHAIN_NODES = 600
SCALING_NODES = (500, 5000)
LARGEST_GROWTH = 15.0
VERIFICATION = "verify"

Times = dict[str, list[float]]
"""CPU seconds by what was measured, one for each round; ``error`` is kept apart."""

NOTES = (
    "CPU seconds of user and system time, medians over rounds in fresh processes, the tools in "
    "turn. *process*: everything, the start of Python and all imports included. *call*: the one "
    "call, after all imports. onnxq also tries its result (checks, loads and runs it beside the "
    "float model), which onnxruntime's quantizer does not: *quantizing* is the call without that.",
    "Ratios are onnxruntime / onnxq: above 1, onnxq is faster. *defaults* and *per channel* are "
    "the two settings of onnxruntime (see README.md); - where it fails. The last two columns "
    "say whether onnxq takes less than both, by *process* and by *call*.",
)


def main() -> int:
    """Run the command line; exit code 1 if something was slower than it may be."""
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chain = folder / "chain.onnx"
        write_chain(chain, CHAIN_NODES)
        models = {f"chain of {CHAIN_NODES}": chain, **find_models(options)}
        rows, steps, passed = [], [], True
        for label, model in models.items():
            print(f"{label} ...", flush=True)
            times = measure(model, folder / "out.onnx", options.rounds)
            rows.append(_compare_row(label, times))
            steps.append(_step_row(label, times[ONNXQ_INT8.name]))
            passed &= _is_faster(times)
        growth_row, growth = measure_growth(folder, options.rounds)
    report(
        "CPU time of `onnxq dynamic`", NOTES, make_tables(rows, steps, growth_row), options.markdown
    )
    return 0 if passed and growth < LARGEST_GROWTH else 1


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models_dir", type=Path, nargs="?", help="folder of NAME/model.onnx")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these models")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    return parser.parse_args()


def find_models(options: argparse.Namespace) -> dict[str, Path]:
    """The models to measure, by name."""
    if options.models_dir is None:
        return {}
    found = {path.parent.name: path for path in sorted(options.models_dir.glob("*/model.onnx"))}
    return {name: path for name, path in found.items() if not options.only or name in options.only}


def measure(
    model: Path,
    output: Path,
    rounds: int,
    settings: tuple[Setting, ...] = (ONNXQ_INT8, *INCUMBENTS),
) -> dict[str, Times]:
    """CPU times of each setting; a setting that fails has none."""
    times: dict[str, Times] = {setting.name: {} for setting in settings}
    failed: set[str] = set()
    for index in range(rounds):
        for setting in settings if index % 2 == 0 else settings[::-1]:
            if setting.name in failed:
                continue
            output.unlink(missing_ok=True)
            process = run_script("quantize_once.py", setting.name, str(model), str(output))
            result = process.read_json()
            if "error" in result:
                failed.add(setting.name)
                print(f"  {setting.label}: {result['error'][:150]}")
                continue
            _add_round(times[setting.name], process.cpu_s, result)
    return times


def _add_round(times: Times, process_cpu_s: float, result: dict[str, Any]) -> None:
    steps = {name: float(value) for name, value in result["steps"].items()}
    call = float(result["call_cpu_s"])
    measured = {"process": process_cpu_s, "call": call, **steps}
    measured["quantizing"] = call - steps.get(VERIFICATION, 0.0)
    for name, value in measured.items():
        times.setdefault(name, []).append(value)


def measure_growth(folder: Path, rounds: int) -> tuple[list[str], float]:
    """How much longer the long chain takes than the short one: a row, and the ratio."""
    calls: list[Times] = []
    for nodes in SCALING_NODES:
        print(f"chain of {nodes} ...", flush=True)
        chain = folder / f"chain_{nodes}.onnx"
        write_chain(chain, nodes)
        measured = measure(chain, folder / "out.onnx", min(rounds, 3), (ONNXQ_INT8,))
        calls.append(measured[ONNXQ_INT8.name])
    if not all(calls):
        return ["failed"] * 5, float("inf")
    row = []
    for name in ("process", "call", "quantizing", VERIFICATION):
        short, long = (median(times[name]) for times in calls)
        row.append(f"{short:.2f} -> {long:.2f} ({long / short:.1f}x)")
    growth = median(calls[1]["call"]) / median(calls[0]["call"])
    verdict = "ok" if growth < LARGEST_GROWTH else "too slow"
    return [*row, verdict], growth


def make_tables(
    rows: list[list[str]], steps: list[list[str]], growth_row: list[str]
) -> list[Table]:
    """The three tables of the report."""
    short, long = SCALING_NODES
    others = ("defaults", "per channel")
    parts = ("onnxq process", *others, "onnxq call", *others, "onnxq quantizing", *others)
    return [
        Table("onnxq against onnxruntime", ("model", *parts, "process", "call"), rows),
        Table("Steps of onnxq, CPU ms", ("model", *STEP_LABELS.values()), steps),
        Table(
            f"onnxq, from {short} to {long} nodes (limit {LARGEST_GROWTH:.0f}x)",
            ("process", "call", "quantizing", "trying the result", "verdict"),
            [growth_row],
        ),
    ]


STEP_LABELS = {
    "open_float_model": "load, simplify",
    "plan_model": "plan",
    "apply_plan": "apply",
    "write_smaller": "compute weights, write",
    VERIFICATION: "try the result",
}


def _compare_row(label: str, times: dict[str, Times]) -> list[str]:
    ours = times[ONNXQ_INT8.name]
    row = [label]
    for own, other in (("process", "process"), ("call", "call"), ("quantizing", "call")):
        row.append(f"{median(ours[own]):.2f}" if ours else "refused")
        for setting in (ORT_DEFAULTS, ORT_PER_CHANNEL):
            theirs = times[setting.name]
            if ours and theirs:
                found = median(theirs[other])
                row.append(f"{found:.2f} ({found / median(ours[own]):.2f}x)")
            else:
                row.append("-")
    for name in ("process", "call"):
        row.append(("faster" if _is_faster(times, name) else "slower") if ours else "-")
    return row


def _step_row(label: str, ours: Times) -> list[str]:
    return [label, *(f"{1000 * median(ours[name]):.0f}" if ours else "-" for name in STEP_LABELS)]


def _is_faster(times: dict[str, Times], name: str = "process") -> bool:
    """Whether onnxq takes no longer than any setting of the other tool."""
    ours = times[ONNXQ_INT8.name]
    theirs = [times[setting.name] for setting in INCUMBENTS if times[setting.name]]
    return not ours or all(median(ours[name]) <= median(found[name]) for found in theirs)


if __name__ == "__main__":
    sys.exit(main())
