"""Peak memory of calibrating: over few and many samples, and against running the float model.

    python benchmarks/memory_static.py [--markdown FILE]

Generated networks, every figure from a process of its own: ru_maxrss, which counts pages of mapped
files too. Needs 500 MB of disk for a while.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from processes import run_script
from tables import Table, report

MEGABYTE = 10**6
GROWTH_LIMIT, FLOAT_LIMIT = 1.05, 1.5
METHODS = ("minmax", "auto")

NOTES = (
    "MB, the largest resident set of the process. *float*: onnxruntime.InferenceSession with "
    "default options runs the model over the many samples, one after the other. *calibrating*: "
    "onnxq up to the end of its calibration. *whole*: all of `onnxq static`, which then chooses a "
    "method by trying it (auto) and runs the result beside the float model; over the few samples.",
    f"Limits: many samples at most {GROWTH_LIMIT} times few, and at most {FLOAT_LIMIT} times "
    "float.",
)


@dataclass(frozen=True)
class Case:
    """A network of generated_networks.py, and how many samples are few and many."""

    name: str
    label: str
    few: int
    many: int
    options: tuple[str, ...] = ()


CASES = (
    Case("resnet", "CNN of the size of ResNet-50", 16, 256),
    Case("encoder", "encoder of the size of BERT, 6 layers", 16, 64, ("--no-dynamic-matmul",)),
    Case("wide", "CNN with large activations", 4, 16),
)


def main() -> int:
    """Run the command line; exit code 1 if a limit was passed."""
    options = parse_arguments()
    rows: list[list[str]] = []
    for case in CASES:
        print(f"{case.label} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(case, Path(folder))
    columns = (
        *("network", "method", "samples", "float", "calibrating, few", "many", "to few"),
        *("to float", "whole, few", "to float", "verdict"),
    )
    report("Memory of calibrating", NOTES, [Table("Peak MB", columns, rows)], options.markdown)
    return 0 if all(row[-1] == "ok" for row in rows) else 1


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--markdown", type=Path, help="write the table here")
    return parser.parse_args()


def measure(case: Case, folder: Path) -> list[list[str]]:
    """Rows of one network."""
    # In a process of its own: this one hands its peak on to those that are measured.
    written = run_script(
        "generated_networks.py", case.name, str(folder), str(case.few), str(case.many)
    )
    if written.returncode != 0:
        raise SystemExit(f"{case.name}: {written.last_error}")
    model, few, many = (folder / name for name in ("model.onnx", str(case.few), str(case.many)))
    plain = _peak_megabytes("float", model, many)
    rows = []
    for method in METHODS:
        arguments = ("--method", method, *case.options)
        short, long = (
            _peak_megabytes("onnxq", model, samples, *arguments, "--calibrate-only")
            for samples in (few, many)
        )
        whole = _peak_megabytes("onnxq", model, few, *arguments)
        passed = long <= GROWTH_LIMIT * short and long <= FLOAT_LIMIT * plain
        rows.append(
            [
                case.label,
                method,
                f"{case.few}, {case.many}",
                *(f"{one:.0f}" for one in (plain, short, long)),
                f"{long / short:.3f}x",
                f"{long / plain:.2f}x",
                f"{whole:.0f}",
                f"{whole / plain:.2f}x",
                "ok" if passed else "**over the limit**",
            ]
        )
    return rows


def _peak_megabytes(tool: str, model: Path, samples: Path, *options: str) -> float:
    process = run_script("static_once.py", tool, str(model), str(samples), *options)
    told = process.read_json()
    if "error" in told:
        raise SystemExit(f"{tool} {' '.join(options)}: {told['error']}")
    return process.peak_bytes / MEGABYTE


if __name__ == "__main__":
    sys.exit(main())
