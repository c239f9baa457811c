"""How integer kernels add up products of activations and weights."""

from __future__ import annotations

import onnx_ir as ir

from onnxq.graph.attributes import int_attribute
from onnxq.graph.constants import Use, dimensions
from onnxq.rules.roles import Form

_PAIR_FORMS = frozenset(
    {Form.CALIBRATED, Form.INTEGER_MATMUL, Form.INTEGER_LSTM, Form.INTEGER_ATTENTION}
)


def adds_pairs_of_products(use: Use, form: Form, weight: ir.TensorProtocol) -> bool:
    """Whether a kernel may add two products of 8 bits in 16, as those of x86 without VNNI do.

    Depthwise convolutions have a kernel of their own, which adds in 32 bits on every processor
    (`docs/targets.md`, measured by `benchmarks/saturation.py`).

    Args:
        use: the reader.
        form: how it reads the weight.
        weight: as the float model has it.
    """
    return form in _PAIR_FORMS and not _is_depthwise(use.node, dimensions(weight))


def _is_depthwise(node: ir.Node, shape: tuple[int, ...]) -> bool:
    if node.op_type != "Conv":
        return False
    return shape[1] == 1 and int_attribute(node, "group", 1) == shape[0]
