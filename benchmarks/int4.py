"""4-bit weights of one model: symmetric and with zero points, rounded with and without samples.

    python benchmarks/int4.py MODEL EVAL CALIB [--samples N] [--markdown FILE]

EVAL and CALIB are folders of .npz samples. Accuracy is the SQNR of each float output on EVAL.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import onnxq

VARIANTS = tuple((weights, calibrated) for weights in ("int4", "uint4") for calibrated in (0, 1))


def main() -> None:
    """Print a table, and write it."""
    arguments = _parse()
    lines = [
        "| weights | rounding | kept | SQNR of the outputs, dB | bytes | CPU-s |",
        "|---|---|---|---|---|---|",
    ]
    for weights, calibrated in VARIANTS:
        lines.append(_measure(arguments, weights, calibrated=bool(calibrated)))
        print(lines[-1], flush=True)
    if arguments.markdown is not None:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measure(arguments: argparse.Namespace, weights: str, *, calibrated: bool) -> str:
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        result = onnxq.quantize_dynamic(
            arguments.model,
            Path(folder) / "quantized.onnx",
            weights=weights,
            data=arguments.eval,
            calib=arguments.calib if calibrated else None,
            samples=arguments.samples if calibrated else None,
        )
        seconds = time.process_time() - started
    assert result.verification is not None
    figures = [one.sqnr_db for one in result.verification.outputs if one.sqnr_db is not None]
    shown = ", ".join(f"{one:.2f}" for one in figures if math.isfinite(one))
    kept = "" if result.rounding is None else result.rounding.method
    wanted = "with samples" if calibrated else "nearest"
    return f"| {weights} | {wanted} | {kept} | {shown} | {result.size_bytes} | {seconds:.1f} |"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "eval", "calib"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--samples", type=int, help="of CALIB; all if left out")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
