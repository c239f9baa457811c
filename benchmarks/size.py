"""Large models through `onnxq dynamic`, `static` and `compare`: peak memory, and time by nodes.

    python benchmarks/size.py FOLDER [--gigabytes 2.5] [--nodes 1250,2500,5000] [--markdown FILE]

The large model is a chain of MatMul and Relu with its weights in several files. FOLDER needs twice
its size; everything is deleted afterwards. Memory is the largest resident set of the process, pages
of mapped files included. Limits: dynamic 3 times the largest tensor + 300 MB; static and compare
run the float model: twice the float weights + 600 MB. Time is CPU time without the start of the
process, and near-linear if twice the nodes take at most 2.6 times as long.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import Measured, run_measured, run_script
from tables import Table, report

MEGABYTE = 10**6
WIDTH = 5000
MATRIX_BYTES = 4 * WIDTH * WIDTH
FILES = 4
GROWTH_LIMIT = 2.6


@dataclass(frozen=True)
class Call:
    """A command, and the most memory that it may take."""

    name: str
    arguments: tuple[str, ...]
    limit_bytes: float


def main() -> int:
    """Run the command line; exit code 1 if a limit was passed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2.5)
    parser.add_argument("--nodes", default="1250,2500,5000")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    folder = options.folder / "onnxq-size"
    folder.mkdir(parents=True)
    try:
        large = measure_large(folder, options.gigabytes)
        chains = measure_chains(folder, [int(one) for one in options.nodes.split(",")])
    finally:
        shutil.rmtree(folder)
    tables = [
        Table("Memory", ("command", "float MB", "peak MB", "limit MB", "CPU s", "verdict"), large),
        Table("Time by nodes", ("command", "nodes", "CPU s", "growth", "verdict"), chains),
    ]
    report("Size", [], tables, options.markdown)
    return 0 if all(row[-1] == "ok" for row in large + chains) else 1


def measure_large(folder: Path, gigabytes: float) -> list[list[str]]:
    """Rows of the large model."""
    matrices = max(FILES, round(gigabytes * 1000 * MEGABYTE / MATRIX_BYTES))
    write(folder, "large", str(matrices), str(WIDTH), str(FILES))
    float_bytes = matrices * MATRIX_BYTES
    running_bytes = 2 * float_bytes + 600 * MEGABYTE
    rows = []
    for call in (
        Call("dynamic", ("-o", "small.onnx"), 3 * MATRIX_BYTES + 300 * MEGABYTE),
        Call("static", ("--calib", "data", "-o", "static.onnx"), running_bytes),
        Call("compare", ("small.onnx", "--data", "data", "--no-latency"), running_bytes),
    ):
        done = run_command(folder, call.name, "large.onnx", *call.arguments)
        within = done.returncode == 0 and done.peak_bytes <= call.limit_bytes
        verdict = "ok" if within else "over the limit"
        rows.append(
            [
                call.name,
                *(f"{one / MEGABYTE:.0f}" for one in (float_bytes, done.peak_bytes)),
                f"{call.limit_bytes / MEGABYTE:.0f}",
                f"{done.cpu_s:.1f}",
                verdict if done.returncode == 0 else f"failed: {done.last_error}",
            ]
        )
        for path in folder.glob("static.onnx*"):
            path.unlink()
    return rows


def measure_chains(folder: Path, counts: Sequence[int]) -> list[list[str]]:
    """Rows of chains of more and more nodes."""
    start_s = run_command(folder, "--help").cpu_s
    rows = []
    before: dict[str, tuple[int, float]] = {}
    for nodes in counts:
        write(folder, "chain", str(nodes))
        for name, arguments in (
            ("dynamic", ("-o", "c.onnx", "--force")),
            ("static", ("--calib", "chain-data", "-o", "s.onnx", "--force")),
            ("compare", ("c.onnx", "--data", "chain-data", "--no-latency")),
        ):
            done = run_command(folder, name, "chain.onnx", *arguments)
            taken_s = max(0.01, done.cpu_s - start_s)
            fewer, fewer_s = before.get(name, (nodes, taken_s))
            growth = taken_s / fewer_s
            within = done.returncode == 0 and growth <= max(1.0, GROWTH_LIMIT * nodes / fewer / 2)
            before[name] = (nodes, taken_s)
            verdict = "ok" if within else "not near-linear"
            verdict = verdict if done.returncode == 0 else f"failed: {done.last_error}"
            rows.append([name, str(nodes), f"{taken_s:.1f}", f"{growth:.2f}x", verdict])
    return rows


def write(folder: Path, *arguments: str) -> None:
    """Write a model, in a process of its own: this one hands its peak on."""
    done = run_script("size_models.py", str(folder), *arguments)
    if done.returncode != 0:
        raise SystemExit(done.last_error)


def run_command(folder: Path, name: str, *arguments: str) -> Measured:
    """Run ``onnxq`` on files of ``folder``."""
    paths = [str(folder / one) if is_path(one) else one for one in arguments]
    return run_measured([sys.executable, "-m", "onnxq", name, *paths])


def is_path(argument: str) -> bool:
    """Whether an argument names a file or folder here."""
    return argument.endswith((".onnx", "data")) and not argument.startswith("-")


if __name__ == "__main__":
    sys.exit(main())
