"""4-bit weights of one model: plain scales, without samples, and with samples.

    python benchmarks/int4.py MODEL EVAL CALIB [--samples N] [--markdown FILE]

EVAL and CALIB are folders of .npz samples. Accuracy is the SQNR of each float output on EVAL.
"Plain" is rounding to nearest with the largest magnitude of a block of 128 at the seventh or eighth
integer, and zero point 0, with all else as onnxq writes it.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

import onnxq
from onnxq.numerics.affine import Array, FloatArray, Parameters, quantize
from onnxq.schemes import Scheme


@dataclass(frozen=True)
class Variant:
    """One row.

    Attributes:
        label: for people.
        weights: what ``--weights`` takes.
        symmetric: no zero points.
        calibrated: whether samples are used.
        plain_steps: integers that the largest magnitude of a block gets; None for what onnxq does.
    """

    label: str
    weights: str = "int4"
    symmetric: bool | None = None
    calibrated: bool = False
    plain_steps: int | None = None


VARIANTS = (
    Variant("plain, largest / 7", symmetric=True, plain_steps=7),
    Variant("plain, largest / 8", symmetric=True, plain_steps=8),
    Variant("int4 --symmetric", symmetric=True),
    Variant("int4"),
    Variant("uint4", weights="uint4"),
    Variant("int4 --symmetric --calib", symmetric=True, calibrated=True),
    Variant("int4 --calib", calibrated=True),
    Variant("uint4 --calib", weights="uint4", calibrated=True),
)


def main() -> None:
    """Print a table, and write it."""
    arguments = _parse()
    lines = [
        "| weights | rounding kept | SQNR of the outputs, dB | bytes | CPU-s |",
        "|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        lines.append(_measure(arguments, variant))
        print(lines[-1], flush=True)
    if arguments.markdown is not None:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _measure(arguments: argparse.Namespace, variant: Variant) -> str:
    with tempfile.TemporaryDirectory() as folder, _round_plainly(variant.plain_steps):
        started = time.process_time()
        result = onnxq.quantize_dynamic(
            arguments.model,
            Path(folder) / "quantized.onnx",
            weights=variant.weights,
            symmetric=variant.symmetric,
            data=arguments.eval,
            calib=arguments.calib if variant.calibrated else None,
            samples=arguments.samples if variant.calibrated else None,
        )
        seconds = time.process_time() - started
    assert result.verification is not None
    figures = [one.sqnr_db for one in result.verification.outputs if one.sqnr_db is not None]
    shown = ", ".join(f"{one:.2f}" for one in figures if math.isfinite(one))
    kept = "" if result.rounding is None else result.rounding.method
    return f"| {variant.label} | {kept} | {shown} | {result.size_bytes} | {seconds:.1f} |"


@contextlib.contextmanager
def _round_plainly(steps: int | None) -> Iterator[None]:
    """Inside, blocks of 4-bit weights have plain scales."""

    def quantize_blocks(weight: FloatArray, scheme: Scheme, **_: bool) -> tuple[Array, Parameters]:
        assert scheme.block_size is not None
        assert steps is not None
        blocks = -(-len(weight) // scheme.block_size)
        padded = np.pad(weight, ((0, blocks * scheme.block_size - len(weight)), (0, 0)))
        padded = padded.reshape(blocks, scheme.block_size, -1)
        largest = np.abs(padded).max(axis=1, keepdims=True) / np.float32(steps)
        scale = np.maximum(largest, np.finfo(np.float32).tiny)
        parameters = Parameters(scale, np.zeros(scale.shape, np.int32))
        low, high = scheme.range
        return quantize(padded, parameters, quantized_min=low, quantized_max=high), parameters

    if steps is None:
        yield
        return
    with mock.patch("onnxq.apply.blocked_matmul.quantize_blocks", quantize_blocks):
        yield


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "eval", "calib"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--samples", type=int, help="of CALIB; all if left out")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
