"""Calibrate one model in this process with one tool, and say what each step of it cost.

    python benchmarks/static_once.py TOOL MODEL SAMPLES_DIR [--method NAME] ...

TOOL: float (only runs the float model), onnxq or onnxruntime. The other scripts start it in fresh
processes. The last line of its output is JSON: ``steps``, CPU time of steps, ``samples`` that were
run, or ``error``.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from onnxq.samples import held_back

GIGABYTE = 10**9
ORT_METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


class StopHere(BaseException):
    """Ends a run after its calibration; no package catches it."""


class Timers:
    """CPU time of all threads of this process, by step.

    Attributes:
        steps: seconds.
    """

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self._running: set[str] = set()

    def wrap(self, owner: Any, name: str, step: str, *, stop: bool = False) -> None:
        """Time a function of a module or a class; with ``stop`` end the run after it."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            result = self.call(step, lambda: function(*arguments, **options))
            if stop:
                raise StopHere
            return result

        setattr(owner, name, timed)

    def call(self, step: str, function: Callable[[], Any]) -> Any:
        """Time one call, unless it is a part of the same step."""
        if step in self._running:
            return function()
        self._running.add(step)
        start = time.process_time()
        try:
            return function()
        finally:
            self._running.discard(step)
            self.steps[step] = self.steps.get(step, 0.0) + time.process_time() - start


def main() -> int:
    """Run the command line."""
    options = parse_arguments()
    if options.gigabytes:
        resource.setrlimit(resource.RLIMIT_AS, (options.gigabytes * GIGABYTE,) * 2)
    if options.seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (options.seconds,) * 2)
    prepare = {"float": prepare_float, "onnxq": prepare_onnxq, "onnxruntime": prepare_onnxruntime}
    timers = Timers()
    call = prepare[options.tool](options, timers)
    found: dict[str, Any] = {}
    try:
        found = timers.call("call", call)
    except StopHere:
        pass  # after the calibration, as asked
    except Exception as error:  # whatever a tool raises goes into the table
        text = " ".join(str(error).split())
        print(json.dumps({"error": f"{type(error).__name__}: {text}"}))
        return 3
    print(json.dumps({"steps": timers.steps, **found}))
    return 0


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tool", choices=["float", "onnxq", "onnxruntime"])
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", type=Path, help="folder of .npz files")
    parser.add_argument("--method", default="minmax", help="how ranges are chosen")
    parser.add_argument("--no-dynamic-matmul", action="store_true", help="onnxq: calibrate MatMul")
    parser.add_argument("--no-spinning", action="store_true", help="float: threads sleep at once")
    parser.add_argument("--calibrate-only", action="store_true", help="onnxq: end after that step")
    parser.add_argument("--gigabytes", type=int, help="of address space; fail above that")
    parser.add_argument("--seconds", type=int, help="of CPU time; fail above that")
    return parser.parse_args()


def calibration_files(folder: Path) -> list[Path]:
    """The samples that onnxq calibrates on; it holds back the others to verify its result."""
    return [path for index, path in enumerate(sorted(folder.glob("*.npz"))) if not held_back(index)]


def read_samples(folder: Path) -> Iterator[dict[str, Any]]:
    """One sample after the other; only one is in memory."""
    for path in calibration_files(folder):
        with np.load(path) as archive:
            yield {key: archive[key] for key in archive.files}


def prepare_float(options: argparse.Namespace, timers: Timers) -> Callable[[], dict[str, Any]]:
    """The result loads the model and runs it on the samples."""

    def call() -> dict[str, Any]:
        session_options = onnxruntime.SessionOptions()
        if options.no_spinning:
            session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = timers.call(
            "load", lambda: onnxruntime.InferenceSession(options.model, session_options)
        )
        count = 0
        for feeds in read_samples(options.samples):
            timers.call("run", lambda feeds=feeds: session.run(None, feeds))
            count += 1
        return {"samples": count}

    return call


def prepare_onnxq(options: argparse.Namespace, timers: Timers) -> Callable[[], dict[str, Any]]:
    """Import onnxq and everything it imports late; the result quantizes and times its steps."""
    import onnxq
    from onnxq.pipelines import calibrate, static

    timers.wrap(calibrate, "Session", "load")
    timers.wrap(calibrate, "observe", "run")
    timers.wrap(calibrate, "choose_ranges", "ranges")
    timers.wrap(static, "calibrate_on_samples", "calibrate", stop=options.calibrate_only)
    timers.wrap(static, "verify", "verify")
    dynamic_matmul = False if options.no_dynamic_matmul else None

    def call() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            result = onnxq.quantize_static(
                options.model,
                options.samples,
                Path(folder) / "out.onnx",
                method=options.method,
                accuracy="fast",
                dynamic_matmul=dynamic_matmul,
            )
        calibration = result.calibration
        return {"samples": calibration.samples, "activations": len(calibration.ranges)}

    return call


def prepare_onnxruntime(
    options: argparse.Namespace, timers: Timers
) -> Callable[[], dict[str, Any]]:
    """Import the quantizer of onnxruntime; the result runs it and times its steps."""
    from onnxruntime import quantization
    from onnxruntime.quantization import calibrate

    logging.disable(logging.WARNING)
    timers.wrap(calibrate.CalibraterBase, "create_inference_session", "load")
    # The package hides this module behind a function of the same name.
    timers.wrap(sys.modules[f"{quantization.__name__}.quantize"], "create_calibrator", "calibrate")
    for name in ("MinMaxCalibrater", "HistogramCalibrater"):
        timers.wrap(getattr(calibrate, name), "collect_data", "run")
        timers.wrap(getattr(calibrate, name), "collect_data", "calibrate")
        timers.wrap(getattr(calibrate, name), "compute_data", "calibrate")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """The same samples, one at a time."""

        def __init__(self) -> None:
            self.samples = read_samples(options.samples)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.samples, None)

    def call() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            quantization.quantize_static(
                options.model,
                Path(folder) / "out.onnx",
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod[ORT_METHODS[options.method]],
            )
        return {}

    return call


if __name__ == "__main__":
    sys.exit(main())
