"""Activations of 4 bits: sixteen levels of uint8.

    QuantizeLinear -> Clip(0, 15) -> DequantizeLinear

Kernels of runtimes compute with 8 bits, and onnxruntime 1.32 does not load a Clip that is followed
by a QuantizeLinear to uint4. With the Clip on integers a layer before and one behind it are fused
as with 8 bits.
"""

from __future__ import annotations

from onnxq.apply.operators_edges import find_quantizer
from onnxq.plan import Plan


def leave_out_clips(plan: Plan) -> None:
    """Quantize what is before a Clip of floats instead of what is behind it.

    The levels lie inside its limits, so the integers stay the same. The runtime would keep it, and
    compute the layer in floats, because the whole range of uint8 is larger.
    """
    activations = plan.decisions.owners
    for node in plan.decisions.nodes:
        for value in node.one.outputs if node.quantizes_output else ():
            activation, clip = activations[value, node.scheme], value.producer()
            if activation.scheme.type.bits != 4 or activation.bounds is None or clip is None:
                continue
            if clip.op_type == "Clip" and clip.inputs[0] is not None:
                find_quantizer(value).replace_input_with(0, clip.inputs[0])
