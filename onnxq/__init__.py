"""onnxq: quantize an ONNX model with one command.

The functions here do what the commands do:

    onnxq.quantize_dynamic("model.onnx")          onnxq dynamic model.onnx
    onnxq.quantize_static("model.onnx", "calib/") onnxq static model.onnx --calib calib/
    onnxq.quantize_qat("model.onnx", "train/")    onnxq qat model.onnx --train train/
    onnxq.compare("a.onnx", "b.onnx", "eval/")    onnxq compare a.onnx b.onnx --data eval/
    onnxq.inspect("model.onnx")                   onnxq inspect model.onnx
"""

from __future__ import annotations

from importlib.metadata import version as _version

from onnxq.api.compare import compare
from onnxq.api.dynamic import quantize_dynamic
from onnxq.api.inspect import inspect
from onnxq.api.qat import quantize_qat
from onnxq.api.static import quantize_static
from onnxq.errors import OnnxqError

__version__ = _version("onnxq")

__all__ = [
    "OnnxqError",
    "__version__",
    "compare",
    "inspect",
    "quantize_dynamic",
    "quantize_qat",
    "quantize_static",
]
