"""The constants of a calibrated graph: computed when the file is written, from the encodings."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxq.apply.encodings import Encodings
from onnxq.apply.rewriter import Rewriter
from onnxq.apply.weights import parameters_of
from onnxq.graph.constants import require_constant
from onnxq.graph.scopes import Scope
from onnxq.numerics.activations import quantize_bias
from onnxq.numerics.affine import Array
from onnxq.plan import ActivationKey, ActivationPlan, TensorPlan
from onnxq.schemes import ActivationType

ACTIVATION_TYPES = {
    ActivationType.UINT8: ir.DataType.UINT8,
    ActivationType.INT8: ir.DataType.INT8,
    ActivationType.UINT16: ir.DataType.UINT16,
    ActivationType.INT16: ir.DataType.INT16,
    # Sixteen levels of uint8: kernels of the runtime take no activations of 4 bits.
    ActivationType.UINT4: ir.DataType.UINT8,
}


class Numbers:
    """Scales, zero points and biases; each made once a body and shared by its readers."""

    def __init__(self, rewriter: Rewriter, encodings: Encodings) -> None:
        self._rewriter = rewriter
        self._encodings = encodings
        self._made: dict[tuple[ir.Graph, ActivationKey, int], tuple[ir.Value, ir.Value]] = {}

    def of_activation(
        self, scope: Scope, activation: ActivationPlan, *, channels: int = 0
    ) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point: of rank 0, or repeated for each of ``channels``."""
        key = (scope.graph, activation.key, channels)
        if key not in self._made:
            self._made[key] = self._make(scope, activation, channels)
        return self._made[key]

    def steps_of_pair(
        self, scope: Scope, activation: ActivationPlan
    ) -> tuple[tuple[str, str, tuple[ir.Value, ...]], ...]:
        """The operators of a pair: type, ending of the name, and the constants that each reads."""
        numbers = self.of_activation(scope, activation)
        low, high = activation.scheme.range
        limits: tuple[tuple[str, str, tuple[ir.Value, ...]], ...] = ()
        if activation.scheme.type.bits == 4:
            dtype = ACTIVATION_TYPES[activation.scheme.type].numpy()
            constants = [
                self._rewriter.share_array(scope, np.asarray(one, dtype), name="level")
                for one in (low, high)
            ]
            limits = (("Clip", "levels", tuple(constants)),)
        return (("QuantizeLinear", "q", numbers), *limits, ("DequantizeLinear", "dq", numbers))

    def of_bias(
        self, scope: Scope, bias: ir.Value, activation: ActivationPlan, weight: TensorPlan
    ) -> tuple[ir.Value, ir.Value]:
        """A bias as int32, and its scale: of the activation times that of the weight."""
        tensor = require_constant(bias)
        name = bias.name or "bias"

        def scale() -> Array:
            own = parameters_of(weight).scale.reshape(-1)
            product = self._encodings[activation].scale * own
            return np.asarray(product if weight.scale_axes else product[0], np.float32)

        def elements() -> Array:
            return quantize_bias(tensor.numpy().reshape(-1), scale())

        channels = (tensor.size,) if weight.scale_axes else ()
        return (
            self._rewriter.add_lazily(
                scope, elements, ir.DataType.INT32, (tensor.size,), name=f"{name}_int32"
            ),
            self._rewriter.add_lazily(
                scope, scale, ir.DataType.FLOAT, channels, name=f"{name}_scale"
            ),
        )

    def _make(
        self, scope: Scope, activation: ActivationPlan, channels: int
    ) -> tuple[ir.Value, ir.Value]:
        dtype = ACTIVATION_TYPES[activation.scheme.type]
        shape = (channels,) if channels else ()
        name = activation.value.name or "value"

        def scale() -> Array:
            return np.full(shape, self._encodings[activation].scale, np.float32)

        def zero_point() -> Array:
            return np.full(shape, self._encodings[activation].zero_point, dtype.numpy())

        made = self._rewriter.add_lazily(
            scope, scale, ir.DataType.FLOAT, shape, name=f"{name}_scale"
        )
        if activation.has_fixed_zero_point:
            fixed = np.full(shape, activation.scheme.range[0], dtype.numpy())
            return made, self._rewriter.share_array(scope, fixed, name="zero_point")
        return made, self._rewriter.add_lazily(
            scope, zero_point, dtype, shape, name=f"{name}_zero_point"
        )
