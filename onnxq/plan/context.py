"""What every decision of one planning run can look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxq.graph.constants import Constant, Use, dimensions, release
from onnxq.plan.options import DynamicOptions
from onnxq.plan.selection import Selection
from onnxq.plan.statistics import WeightStatistics, measure_weight, read_real
from onnxq.plan.types import TensorPlan, UsePlan
from onnxq.rules.roles import Form
from onnxq.schemes import Scheme, WeightType
from onnxq.targets import Target

CALIBRATED_WEIGHTS = Scheme(type=WeightType.INT8)
WIDE_WEIGHTS = Scheme(type=WeightType.INT16)


@dataclass(frozen=True)
class Context:
    """Target, options and selection; weights are measured once and remembered.

    Attributes:
        target: the runtime to plan for.
        options: what the user asked.
        selection: readable names of nodes, and which are left out.
        can_raise_opset: whether newer operators are to be had; not with model-local functions.
        keep_small_kernels: give kernels of few elements more bits.
        refused: nodes that cannot take an integer form after all, with the reason.
        calibrated: nodes that compute on calibrated activations.
        calibrated_weights: the scheme of their weights, but for its axes.
        kept_float: nodes whose weights are stored as 16-bit floats for accuracy, with the reason.
        wide: nodes that compute on integers of 16 bits for accuracy.
        judged_on_samples: nodes whose weights stay integers even where they look spoiled.
    """

    target: Target
    options: DynamicOptions
    selection: Selection
    can_raise_opset: bool = True
    keep_small_kernels: bool = True
    refused: dict[ir.Node, str] = field(default_factory=dict)
    calibrated: frozenset[ir.Node] = frozenset()
    calibrated_weights: Scheme = CALIBRATED_WEIGHTS
    kept_float: Mapping[ir.Node, str] = field(default_factory=dict)
    wide: frozenset[ir.Node] = frozenset()
    judged_on_samples: frozenset[ir.Node] = frozenset()
    _measured: dict[tuple[ir.Value, tuple[int, ...]], WeightStatistics] = field(
        default_factory=dict
    )

    def find_scheme(self, nodes: Iterable[ir.Node]) -> Scheme:
        """The scheme of a weight that these nodes compute with, but for its axes."""
        return self.calibrated_weights if self.wide.isdisjoint(nodes) else WIDE_WEIGHTS

    def measure(self, constant: Constant, axes: tuple[int, ...]) -> WeightStatistics:
        """Ranges of a constant along ``axes``."""
        key = (constant.value, axes)
        if key not in self._measured:
            self._measured[key] = measure_weight(read_real(constant.tensor), axes)
            release(constant.tensor)
        return self._measured[key]

    def has_opset(self, constant: Constant, version: int) -> bool:
        """Whether operators of this version can be used beside a constant."""
        return self.can_raise_opset or constant.scope.opset >= version

    def explain_opset(self, version: int) -> str:
        """The reason where ``has_opset`` is false."""
        return f"needs opset {version}, to which onnx cannot raise a model with local functions"

    def plan_use(self, use: Use, form: Form, reason: str = "") -> UsePlan:
        """A use with its label."""
        return UsePlan(self.label(use.node), use.node.op_type, form, reason, use)

    def label(self, node: ir.Node) -> str:
        """The name that a user knows a node by."""
        return self.selection.labels.get(node) or node.name or node.op_type

    def leave(self, constant: Constant, reason: str) -> TensorPlan:
        """Keep a tensor as it is."""
        uses = tuple(self.plan_use(use, Form.FLOAT) for use in constant.uses)
        return describe_tensor(constant, scheme=None, reason=reason, uses=uses)


def describe_tensor(
    constant: Constant,
    *,
    scheme: Scheme | None,
    reason: str,
    uses: tuple[UsePlan, ...],
    statistics: WeightStatistics | None = None,
    expected_sqnr_db: float | None = None,
    channel_axes: tuple[int, ...] = (),
) -> TensorPlan:
    """A decision with the facts of its tensor filled in."""
    return TensorPlan(
        name=constant.name,
        dtype=constant.tensor.dtype.name.lower(),
        shape=dimensions(constant.tensor),
        size_bytes=constant.tensor.nbytes,
        scheme=scheme,
        reason=reason,
        uses=uses,
        expected_sqnr_db=expected_sqnr_db,
        constant=constant,
        statistics=statistics,
        channel_axes=channel_axes,
    )
