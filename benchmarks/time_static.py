"""CPU time of calibrating: onnxq against running the float model, and against onnxruntime.

    python benchmarks/time_static.py [--samples N] [--rounds N] [--markdown FILE]

Measured on a generated CNN of the size of ResNet-50 and an encoder of the size of BERT with six
layers, every run in a fresh process, all in turn, medians over the rounds. Then what both tools
spend on the graph of a chain of 600 nodes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from generated import write_chain
from generated_networks import ENCODER, RESNET, Network, count_files, write_samples
from processes import run_script
from tables import Table, report

CHAIN_NODES, CHAIN_WIDTH = 600, 72
FLOAT, FLOAT_SLEEPING = "float, default session", "float, threads sleep at once"
MINMAX_LIMIT, OTHER_LIMIT = 1.25, 1.5
EDITING_LIMIT = 0.1
LIMITS = ("--gigabytes", "10", "--seconds", "150")
"""For the methods of onnxruntime that keep every activation of every sample."""

NOTES = (
    "CPU seconds of user and system time of all threads, medians over rounds in fresh processes, "
    "the rows in turn; imports are not counted. *step* of the float rows: loading the model in "
    "onnxruntime.InferenceSession, reading the samples and running them. *step* of the others: the "
    "calibration, from adding outputs to the model to ranges for every activation, with the same "
    "loading, reading and running in it. *loading* and *running* are parts of the step; *call* is "
    "the whole call (for onnxq with planning and, unless stopped there, all that follows).",
    "Threads of a default session spin between operators, which costs CPU time and does no work; "
    "onnxq calibrates in a session whose threads sleep at once. So there are two ratios: to the "
    "default session, and to a session like its own.",
    f"Limits: {MINMAX_LIMIT} times the default session for min-max, {OTHER_LIMIT} for the others. "
    f"*graph*: the call without loading, running and verifying; limit {EDITING_LIMIT} of "
    "onnxruntime.",
)
Steps = list[dict[str, float]]


@dataclass(frozen=True)
class Run:
    """One thing to measure.

    Attributes:
        label: for people.
        tool: of static_once.py.
        options: for it.
        limit: times the default float session; 0 for none.
        once: measured in the first round only.
    """

    label: str
    tool: str
    options: tuple[str, ...] = ()
    limit: float = 0.0
    once: bool = False


def main() -> int:
    """Run the command line; exit code 1 if something was slower than it may be."""
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table, passed = measure_chain(folder, options.rounds)
        tables = [table]
        for network, matmul in ((RESNET, False), (ENCODER, True)):
            table, within = measure_network(network, matmul, folder, options)
            tables.append(table)
            passed &= within
            report("CPU time of calibrating", NOTES, tables, options.markdown)
    return 0 if passed else 1


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=64, help="to calibrate on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="without percentile and entropy of onnxruntime"
    )
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    return parser.parse_args()


def list_runs(*, matmul: bool, quick: bool) -> list[Run]:
    """What is measured on a network; ``matmul`` where nothing is calibrated by default."""
    more = ("--no-dynamic-matmul",) if matmul else ()
    runs = [Run(FLOAT, "float"), Run(FLOAT_SLEEPING, "float", ("--no-spinning",))]
    for method in ("minmax", "percentile", "entropy", "mse", "auto"):
        limit = MINMAX_LIMIT if method == "minmax" else OTHER_LIMIT
        arguments = ("--calibrate-only", "--method", method, *more)
        runs.append(Run(f"onnxq {' '.join((method, *more))}", "onnxq", arguments, limit))
    if matmul:
        runs.append(Run("onnxq, defaults", "onnxq", ("--calibrate-only",), OTHER_LIMIT))
    runs.append(Run("onnxruntime minmax", "onnxruntime"))
    for method in () if quick else ("percentile", "entropy"):
        arguments = ("--method", method, *LIMITS)
        runs.append(Run(f"onnxruntime {method}", "onnxruntime", arguments, once=True))
    return runs


def measure_network(
    network: Network, matmul: bool, folder: Path, options: argparse.Namespace
) -> tuple[Table, bool]:
    """A table of all runs on a network, and whether they kept their limits."""
    print(f"{network.label} ...", flush=True)
    model, samples = folder / "model.onnx", folder / "samples"
    network.write(model)
    write_samples(samples, network.shape, count_files(options.samples))
    runs = list_runs(matmul=matmul, quick=options.quick)
    found, errors = measure(runs, model, samples, options.rounds)
    for path in samples.iterdir():
        path.unlink()
    samples.rmdir()
    rows = [_row(run, found, errors) for run in runs]
    columns = ("", "step", "to float", "to float asleep", "loading", "running", "call", "verdict")
    title = f"{network.label}, {options.samples} samples"
    return Table(title, columns, rows), not any(row[-1] == "**too slow**" for row in rows)


def measure(
    runs: list[Run], model: Path, samples: Path, rounds: int
) -> tuple[dict[str, Steps], dict[str, str]]:
    """CPU time of the steps of each run in each round, and why there is none."""
    found: dict[str, Steps] = {run.label: [] for run in runs}
    errors: dict[str, str] = {}
    for index in range(rounds):
        for run in runs if index % 2 == 0 else runs[::-1]:
            if run.label in errors or (run.once and index):
                continue
            process = run_script("static_once.py", run.tool, str(model), str(samples), *run.options)
            told = process.read_json()
            if "error" in told:
                errors[run.label] = told["error"][:120]
                print(f"  {run.label}: {errors[run.label]}", flush=True)
            else:
                found[run.label].append({"calibrate": told["steps"]["call"], **told["steps"]})
    return found, errors


def _row(run: Run, found: dict[str, Steps], errors: dict[str, str]) -> list[str]:
    if run.label in errors:
        return [run.label, *[""] * 6, f"failed: {errors[run.label]}"]
    step = _median(found[run.label], "calibrate")
    ratios = [step / _median(found[label], "calibrate") for label in (FLOAT, FLOAT_SLEEPING)]
    parts = [_median(found[run.label], name) for name in ("load", "run", "call")]
    verdict = "ok" if ratios[0] <= run.limit else "**too slow**"
    return [
        run.label,
        f"{step:.2f}",
        *(f"{ratio:.2f}x" for ratio in ratios),
        *(f"{part:.2f}" for part in parts),
        verdict if run.limit else "",
    ]


def measure_chain(folder: Path, rounds: int) -> tuple[Table, bool]:
    """A table of what the tools spend on a graph of small nodes, and whether the limit was kept."""
    print(f"chain of {CHAIN_NODES} ...", flush=True)
    chain, samples = folder / "chain.onnx", folder / "chain"
    write_chain(chain, CHAIN_NODES, CHAIN_WIDTH)
    write_samples(samples, (1, CHAIN_WIDTH), 1)
    ours = Run("onnxq --no-dynamic-matmul", "onnxq", ("--no-dynamic-matmul",))
    runs = [ours, Run("onnxq, defaults", "onnxq"), Run("onnxruntime", "onnxruntime")]
    found, errors = measure(runs, chain, samples, rounds)
    graph = {label: median(map(_editing_time, steps)) for label, steps in found.items() if steps}
    other = graph.get("onnxruntime", float("inf"))
    rows = [
        [
            run.label,
            f"{graph[run.label]:.2f}",
            f"{graph[run.label] / other:.2f}x",
            f"{_median(found[run.label], 'call'):.2f}",
            f"{_median(found[run.label], 'verify'):.2f}",
        ]
        if run.label in graph
        else [run.label, f"failed: {errors[run.label]}", "", "", ""]
        for run in runs
    ]
    within = graph.get(ours.label, float("inf")) < EDITING_LIMIT * other
    title = f"Chain of {CHAIN_NODES} nodes, min-max, 1 sample: " + ("ok" if within else "too slow")
    return Table(title, ("", "graph", "to onnxruntime", "call", "verify"), rows), within


def _editing_time(steps: dict[str, float]) -> float:
    return steps["call"] - sum(steps.get(name, 0.0) for name in ("load", "run", "verify"))


def _median(steps: Steps, name: str) -> float:
    return median(one.get(name, 0.0) for one in steps)


if __name__ == "__main__":
    sys.exit(main())
