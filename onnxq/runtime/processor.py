"""What the integer kernels of onnxruntime do on this processor."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx

from onnxq.runtime.library import onnxruntime

_ROWS = (1, 8)
"""One row has a kernel of its own."""

_SIZE = 64
"""Whole vectors of every instruction set, along the sum and across it."""

_FATAL_ONLY = 4


@cache
def adds_products_exactly() -> bool:
    """Whether sums of uint8 activations times int8 weights are exact.

    On x86 without VNNI the kernels add the products of two neighbours in 16 bits, where what does
    not fit is cut off (VPMADDUBSW): the largest products add up to 32767, not 64770. Found out
    by a product of two small matrices, once a process (7 ms of CPU time on Zen 3).
    """
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "largest_products",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, ["rows", _SIZE])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, ["rows", _SIZE])],
        [onnx.numpy_helper.from_array(np.full((_SIZE, _SIZE), 127, np.int8), "w")],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    sums = [session.run(None, {"x": np.full((rows, _SIZE), 255, np.uint8)})[0] for rows in _ROWS]
    return all(bool(np.all(one == 255 * 127 * _SIZE)) for one in sums)
