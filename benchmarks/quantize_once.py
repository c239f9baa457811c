"""Quantize one model with one setting in this process, and say what the call itself cost.

python benchmarks/quantize_once.py SETTING MODEL OUT   (SETTING: a name in settings.py)

The other scripts start it in fresh processes. The last line of its output is JSON: ``call_cpu_s``,
CPU time of the call after all imports, ``steps``, CPU time of each step of onnxq's pipeline, or
``error``.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from settings import SETTINGS, Setting, Tool

STEPS = ("open_float_model", "plan_with_opset", "apply_plan", "write_model", "verify")
"""Functions that ``onnxq.pipelines.run_dynamic`` calls, in order."""

OPERATORS_WITHOUT_CONV = [
    "MatMul",
    "Gemm",
    "Gather",
    "LSTM",
    "Attention",
    "EmbedLayerNormalization",
]


def prepare_onnxq(setting: Setting, model: str, output: str) -> Callable[[], dict[str, float]]:
    """Import onnxq and everything it imports late; the result quantizes and times the steps."""
    import onnxq
    from onnxq import pipelines

    steps: dict[str, float] = {}

    def add_timer(name: str) -> None:
        step: Callable[..., Any] = getattr(pipelines, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return step(*arguments, **options)
            finally:
                steps[name] = steps.get(name, 0.0) + time.process_time() - start

        setattr(pipelines, name, timed)

    for name in STEPS:
        add_timer(name)

    def call() -> dict[str, float]:
        onnxq.quantize_dynamic(
            model, output, weights=setting.weights, storage=setting.storage, force=True
        )
        return steps

    return call


def prepare_onnxruntime(
    setting: Setting, model: str, output: str
) -> Callable[[], dict[str, float]]:
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

    def call() -> dict[str, float]:
        quantize_dynamic(model, output, **options)
        return {}

    return call


def main() -> int:
    """Run the command line."""
    name, model, output = sys.argv[1:]
    setting = SETTINGS[name]
    prepare = prepare_onnxq if setting.tool is Tool.ONNXQ else prepare_onnxruntime
    call = prepare(setting, model, output)
    start = time.process_time()
    try:
        steps = call()
    except Exception as error:  # whatever either tool raises goes into the table
        text = " ".join(str(error).split())
        print(json.dumps({"error": f"{type(error).__name__}: {text}"}))
        return 3
    print(json.dumps({"call_cpu_s": time.process_time() - start, "steps": steps}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
