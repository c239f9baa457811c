"""Peak memory of `onnxq dynamic` on a synthetic model of 2.5 GB with external data.

    python benchmarks/memory_dynamic.py FOLDER [--weights int8,fp16] [--markdown FILE]

FOLDER needs 5 GB of room; the files are deleted afterwards unless --keep is given. The limit is
three times the largest tensor plus 300 MB. The figure is ru_maxrss of the process, which counts
pages of mapped files too.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from generated import write_large_model
from processes import run_measured
from tables import Table, report

MEGABYTE = 10**6
ALLOWANCE_BYTES = 300 * MEGABYTE
TENSORS_ALLOWED = 3
MATRICES = 25
WIDTH = 5000


def main() -> int:
    """Run the command line; exit code 1 if a limit was passed."""
    options = parse_arguments()
    folder = options.folder / "onnxq-memory"
    folder.mkdir(parents=True)
    source = folder / "large.onnx"
    try:
        print(f"writing {options.matrices} matrices of {WIDTH} x {WIDTH} to {folder}", flush=True)
        largest_bytes = write_large_model(source, matrices=options.matrices, width=WIDTH)
        limit_bytes = TENSORS_ALLOWED * largest_bytes + ALLOWANCE_BYTES
        rows, passed = [], True
        for weights in options.weights.split(","):
            row, within = measure(source, weights, limit_bytes, keep=options.keep)
            rows.append(row)
            passed &= within
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    table = Table(
        "Peak memory",
        ("weights", "float file, MB", "file, MB", "CPU s", "peak MB", "limit MB", "verdict"),
        rows,
    )
    notes = [
        f"`onnxq dynamic` on {options.matrices} matrices of {largest_bytes // MEGABYTE} MB in "
        f"external data. Limit: {TENSORS_ALLOWED} times the largest tensor + "
        f"{ALLOWANCE_BYTES // MEGABYTE} MB. Peak: ru_maxrss, pages of mapped files included."
    ]
    report("Memory of `onnxq dynamic`", notes, [table], options.markdown)
    return 0 if passed else 1


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to write the models")
    parser.add_argument("--weights", default="int8,fp16", help="types, separated by commas")
    parser.add_argument("--matrices", type=int, default=MATRICES, help="of 100 MB each")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--keep", action="store_true", help="do not delete the models")
    return parser.parse_args()


def measure(source: Path, weights: str, limit_bytes: int, *, keep: bool) -> tuple[list[str], bool]:
    """Quantize ``source`` once: a row of the table, and whether memory stayed below the limit."""
    output = source.with_name(f"large.{weights}.onnx")
    command = [sys.executable, "-m", "onnxq", "dynamic", str(source), "-o", str(output)]
    measured = run_measured([*command, "--weights", weights])
    passed = measured.returncode == 0 and measured.peak_bytes <= limit_bytes
    verdict = "ok" if passed else "over the limit"
    if measured.returncode != 0:
        verdict = f"failed: {measured.last_error}"
    row = [
        weights,
        _megabytes(_size_bytes(source)),
        _megabytes(_size_bytes(output)),
        f"{measured.cpu_s:.1f}",
        _megabytes(measured.peak_bytes),
        _megabytes(limit_bytes),
        verdict,
    ]
    if not keep:
        for path in _files(output):
            path.unlink()
    return row, passed


def _files(model: Path) -> list[Path]:
    return [path for path in (model, model.with_name(f"{model.name}.data")) if path.exists()]


def _size_bytes(model: Path) -> int:
    return sum(path.stat().st_size for path in _files(model))


def _megabytes(count: int) -> str:
    return f"{count / MEGABYTE:.0f}"


if __name__ == "__main__":
    sys.exit(main())
