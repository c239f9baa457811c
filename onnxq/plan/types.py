"""The plan: an immutable value that can be printed, compared and saved as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir

from onnxq.graph.constants import Constant, Use, constant_tensor
from onnxq.plan.integer_nodes import IntegerNode
from onnxq.plan.statistics import WeightStatistics
from onnxq.rules.roles import Form
from onnxq.schemes import ActivationScheme, Scheme


@dataclass(frozen=True)
class UsePlan:
    """What happens at one reader of a weight.

    Attributes:
        node: label of the node, with its scope.
        operator: its type.
        form: how it will read the weight.
        reason: why not in a better form; empty if it is the best.
        use: the place in the graph.
    """

    node: str
    operator: str
    form: Form
    reason: str = ""
    use: Use | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class TensorPlan:
    """What happens to one constant float tensor.

    Attributes:
        name: of the tensor, with its scope.
        dtype: element type in the float model.
        shape: of the tensor.
        size_bytes: in the float model.
        scheme: how it is stored; None if it stays as it is.
        reason: why it is stored so, or stays.
        uses: its readers.
        expected_sqnr_db: what storing it so leaves of the tensor itself, from its scales.
        constant: the tensor in the graph.
        statistics: ranges of the channels.
        channel_axes: axes of the output channels, also where one scale serves all.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    scheme: Scheme | None
    reason: str
    uses: tuple[UsePlan, ...]
    expected_sqnr_db: float | None = None
    constant: Constant = field(compare=False, repr=False)
    statistics: WeightStatistics | None = field(default=None, compare=False, repr=False)
    channel_axes: tuple[int, ...] = ()

    @property
    def scale_axes(self) -> tuple[int, ...]:
        """Axes along which each index has a scale of its own."""
        return () if self.scheme is None else self.scheme.axes

    @property
    def best_form(self) -> Form:
        """The most preferred form among the readers."""
        if self.scheme is None:
            return Form.FLOAT
        order = list(Form)
        return min((use.form for use in self.uses), key=order.index, default=Form.STORAGE)

    @property
    def explanation(self) -> str:
        """Every reason that applies to the tensor, in one line."""
        reasons = [self.reason, *(use.reason for use in self.uses)]
        return "; ".join(dict.fromkeys(filter(None, reasons)))

    def to_json(self) -> dict[str, Any]:
        """Plain data of the decision."""
        return {
            "tensor": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "size_bytes": self.size_bytes,
            "form": self.best_form.value,
            "scheme": None if self.scheme is None else str(self.scheme),
            "expected_sqnr_db": self.expected_sqnr_db,
            "reason": self.explanation,
            "uses": [
                {
                    "node": use.node,
                    "operator": use.operator,
                    "form": use.form.value,
                    "reason": use.reason,
                }
                for use in self.uses
            ],
        }


@dataclass(frozen=True)
class SkippedNode:
    """A node of an operator that can be quantized, but which reads no constant weight."""

    node: str
    operator: str
    reason: str


ActivationKey = tuple[ir.Value, ActivationScheme]
"""A tensor in one type of integers: one that blocks of 8 and of 16 bits share has two."""


@dataclass(frozen=True, kw_only=True)
class ActivationPlan:
    """One scale and zero point for an activation, and for those that are moved copies of it.

    Attributes:
        name: of the tensor whose range decides, with its scope.
        scheme: type of the integers.
        value: that tensor.
        members: every tensor that has these parameters, itself included where it has this type.
        bounds: limits of the Relu or Clip that the range takes over, or None.
        member_names: of the tensors that have these parameters, with their scopes.
    """

    name: str
    scheme: ActivationScheme
    value: ir.Value = field(compare=False, repr=False)
    members: tuple[ir.Value, ...] = field(compare=False, repr=False)
    bounds: tuple[float, float] | None = None
    member_names: tuple[str, ...] = ()

    @property
    def key(self) -> ActivationKey:
        """What it is the only one for in a plan."""
        return self.value, self.scheme

    @property
    def has_fixed_zero_point(self) -> bool:
        """Whether real 0 is the smallest integer whatever the range, as behind a Relu."""
        symmetric = self.scheme.symmetric and self.scheme.type.is_signed
        return self.bounds is not None and self.bounds[0] == 0.0 and not symmetric

    def to_json(self) -> dict[str, Any]:
        """Plain data of the decision."""
        return {"tensor": self.name, "type": str(self.scheme), "members": len(self.members)}


@dataclass(frozen=True, kw_only=True)
class CalibratedNode:
    """A node that computes on calibrated integers.

    Attributes:
        name: label of the node, with its scope.
        operator: its type.
        one: its place in the graph.
        scheme: type of the integers that it reads and gives.
        quantizes_output: whether its outputs are integers, too.
    """

    name: str
    operator: str
    one: IntegerNode = field(compare=False, repr=False)
    scheme: ActivationScheme
    quantizes_output: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data of the decision."""
        return {
            "node": self.name,
            "operator": self.operator,
            "output": "integer" if self.quantizes_output else "float",
        }


@dataclass(frozen=True)
class CalibrationPlan:
    """Every decision about activations.

    Attributes:
        nodes: those that compute on calibrated integers.
        activations: the tensors to observe.
        skipped: nodes of an operator with integer kernels that stay float, with the reason.
    """

    nodes: tuple[CalibratedNode, ...] = ()
    activations: tuple[ActivationPlan, ...] = ()
    skipped: tuple[SkippedNode, ...] = ()

    @property
    def owners(self) -> dict[ActivationKey, ActivationPlan]:
        """For each tensor, in each type that it has, the activation whose parameters it has."""
        return {(member, one.scheme): one for one in self.activations for member in one.members}

    def to_json(self) -> dict[str, Any]:
        """Plain data of every decision."""
        return {
            "nodes": [node.to_json() for node in self.nodes],
            "activations": [activation.to_json() for activation in self.activations],
            "skipped_nodes": [vars(node) for node in self.skipped],
        }


@dataclass(frozen=True)
class Plan:
    """Every decision about a model.

    Attributes:
        mode: 'dynamic' or 'static'.
        target: name of the target.
        tensors: decisions about the constant float tensors, in file order.
        skipped: nodes that compute on activations only.
        ignored_tensors: tensors too small to appear above.
        ignored_bytes: their size.
        calibration: decisions about activations; None without calibration.
    """

    mode: str
    target: str
    tensors: tuple[TensorPlan, ...]
    skipped: tuple[SkippedNode, ...] = ()
    ignored_tensors: int = 0
    ignored_bytes: int = 0
    calibration: CalibrationPlan | None = None

    def follow_tensors(self) -> Plan:
        """The same plan, for constants whose elements have moved elsewhere."""
        tensors = []
        for one in self.tensors:
            tensor = constant_tensor(one.constant.value) or one.constant.tensor
            tensors.append(replace(one, constant=replace(one.constant, tensor=tensor)))
        return replace(self, tensors=tuple(tensors))

    @property
    def decisions(self) -> CalibrationPlan:
        """The decisions about activations; none where there is no calibration."""
        return self.calibration or CalibrationPlan()

    @property
    def changes(self) -> tuple[TensorPlan, ...]:
        """The tensors that will be stored differently."""
        return tuple(tensor for tensor in self.tensors if tensor.scheme is not None)

    @property
    def integer_layers(self) -> frozenset[ir.Node]:
        """The nodes that compute on weights in integers."""
        return frozenset(
            use.use.node
            for tensor in self.changes
            for use in tensor.uses
            if use.form.is_integer and use.use is not None
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data of the whole plan."""
        return {
            "mode": self.mode,
            "target": self.target,
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "skipped_nodes": [vars(node) for node in self.skipped],
            "ignored_tensors": self.ignored_tensors,
            "ignored_bytes": self.ignored_bytes,
        } | ({} if self.calibration is None else {"calibration": self.calibration.to_json()})
