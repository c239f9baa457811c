"""Quantize one model with one setting in this process, and say what the call itself cost.

python benchmarks/quantize_once.py SETTING MODEL OUT [CALIB_DIR]   (SETTING: a name in settings.py)

The other scripts start it in fresh processes. The last line of its output is JSON: ``call_cpu_s``,
CPU time of the call after all imports, ``steps``, CPU time of each step of onnxq dynamic,
``stages``, what each stage of onnxq static did, or ``error``.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from exact_products import make_products_exact
from settings import SETTINGS, Setting, Tool

STEPS = ("open_float_model", "plan_model", "apply_plan", "write_smaller", "verify")
"""Functions that ``run_dynamic`` calls, in order."""

FIRST_OPSET_PER_CHANNEL = 13
"""Of QuantizeLinear and DequantizeLinear with a scale for each channel."""

OPERATORS_WITHOUT_CONV = [
    "MatMul",
    "Gemm",
    "Gather",
    "LSTM",
    "Attention",
    "EmbedLayerNormalization",
]


def prepare_onnxq(setting: Setting, model: str, output: str) -> Callable[[], dict[str, Any]]:
    """Import onnxq and everything it imports late; the result quantizes and times the steps."""
    import onnxq
    from onnxq.pipelines import dynamic

    steps: dict[str, float] = {}

    def add_timer(name: str) -> None:
        step: Callable[..., Any] = getattr(dynamic, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return step(*arguments, **options)
            finally:
                steps[name] = steps.get(name, 0.0) + time.process_time() - start

        setattr(dynamic, name, timed)

    for name in STEPS:
        add_timer(name)

    def call() -> dict[str, Any]:
        onnxq.quantize_dynamic(
            model, output, weights=setting.weights, storage=setting.storage, force=True
        )
        return {"steps": steps}

    return call


def prepare_onnxruntime(setting: Setting, model: str, output: str) -> Callable[[], dict[str, Any]]:
    """Import the quantizer of onnxruntime; the result runs it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)
    options: dict[str, Any] = {}
    if setting.per_channel:
        options = {
            "weight_type": QuantType.QInt8,
            "per_channel": True,
            "op_types_to_quantize": OPERATORS_WITHOUT_CONV,
        }

    def call() -> dict[str, Any]:
        quantize_dynamic(model, output, **options)
        return {}

    return call


def prepare_onnxq_static(
    setting: Setting, model: str, output: str, samples: str
) -> Callable[[], dict[str, Any]]:
    """Import onnxq; the result quantizes, and tells what each stage did."""
    import onnxq
    from onnxq.pipelines import static as _static  # noqa: F401

    def call() -> dict[str, Any]:
        result = onnxq.quantize_static(
            model,
            samples,
            output,
            weights=setting.weights,
            accuracy=setting.accuracy,
            reduce_range=setting.reduce_range,
            force=True,
        )
        calibration = result.calibration
        return {"stages": [one.to_json() for one in calibration.stages] if calibration else []}

    return call


def prepare_nncf(
    _setting: Setting, model: str, output: str, samples: str
) -> Callable[[], dict[str, Any]]:
    """Import NNCF; the result quantizes with its defaults."""
    import nncf
    import numpy as np
    import onnx

    loaded = onnx.load(model)
    names = {one.name for one in loaded.graph.input}

    def read(path: Path) -> dict[str, Any]:
        with np.load(path) as archive:
            return {name: archive[name] for name in names & set(archive.files)}

    def call() -> dict[str, Any]:
        paths = sorted(Path(samples).glob("*.npz"))
        quantized = nncf.quantize(loaded, nncf.Dataset(paths, read), subset_size=len(paths))
        onnx.save(quantized, output)
        return {}

    return call


def raise_opset(model: str, folder: Path) -> str:
    """A copy of a model in an opset that has scales for each channel; itself where it has one."""
    import onnx
    from onnx import version_converter

    loaded = onnx.load(model)
    if {one.domain: one.version for one in loaded.opset_import}[""] >= FIRST_OPSET_PER_CHANNEL:
        return model
    path = folder / "raised.onnx"
    onnx.save(version_converter.convert_version(loaded, FIRST_OPSET_PER_CHANNEL), path)
    return str(path)


def prepare_onnxruntime_static(
    setting: Setting, model: str, output: str, samples: str
) -> Callable[[], dict[str, Any]]:
    """Import the quantizer of onnxruntime; the result prepares a model as its manual says."""
    import numpy as np
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.disable(logging.WARNING)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """One sample after the other."""

        def __init__(self) -> None:
            self.paths = iter(sorted(Path(samples).glob("*.npz")))

        def get_next(self) -> dict[str, Any] | None:
            path = next(self.paths, None)
            return None if path is None else dict(np.load(path))

    def call() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            source, prepared = raise_opset(model, Path(folder)), str(Path(folder) / "prepared.onnx")
            try:
                quant_pre_process(source, prepared)
            except Exception:  # its symbolic shape inference does not know every operator
                quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared,
                output,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=bool(setting.reduce_range),
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        return {}

    return call


PREPARE_STATIC: Mapping[Tool, Callable[..., Callable[[], dict[str, Any]]]] = {
    Tool.ONNXQ: prepare_onnxq_static,
    Tool.ONNXRUNTIME: prepare_onnxruntime_static,
    Tool.NNCF: prepare_nncf,
}
PREPARE_DYNAMIC: Mapping[Tool, Callable[..., Callable[[], dict[str, Any]]]] = {
    Tool.ONNXQ: prepare_onnxq,
    Tool.ONNXRUNTIME: prepare_onnxruntime,
}


def main() -> int:
    """Run the command line."""
    name, model, output, *samples = sys.argv[1:]
    setting = SETTINGS[name]
    if setting.exact:
        make_products_exact()
    start = time.process_time()
    try:
        if setting.static:
            call = PREPARE_STATIC[setting.tool](setting, model, output, *samples)
        else:
            call = PREPARE_DYNAMIC[setting.tool](setting, model, output)
        start = time.process_time()
        told = call()
    except Exception as error:  # whatever either tool raises goes into the table
        text = " ".join(str(error).split())
        print(json.dumps({"error": f"{type(error).__name__}: {text}"}))
        return 3
    print(json.dumps({"call_cpu_s": time.process_time() - start, **told}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
