"""Planning with calibration in one line, for tests."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxq.plan import CalibrationPlan, Plan, StaticOptions, parse_weight_type, plan_static
from onnxq.targets import Target
from tests.models import float_weight, make_model, to_ir
from tests.plan.planning import ORT

IMAGE = "float[1, 32, 8, 8] x"

_SHAPES: dict[str, tuple[int, ...]] = {
    # Convolutions: large enough for integers, depthwise, and of few channels.
    **dict.fromkeys(("k1", "k2", "k3"), (32, 32, 1, 1)),
    **dict.fromkeys(("dw1", "dw2"), (32, 1, 3, 3)),
    **dict.fromkeys(("thin1", "thin2"), (16, 16, 1, 1)),
    # Matrices: large enough, and not.
    **dict.fromkeys(("m1", "m2"), (128, 128)),
    "square": (64, 64),
    "narrow": (128, 10),
    # Biases.
    **dict.fromkeys(("b32", "b32_too"), (32,)),
    "b128": (128,),
}

_NUMBERS: dict[str, npt.NDArray[Any]] = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "three": np.float32(3),
    "six": np.float32(6),
    "below": np.float32(-1),
    "shape": np.int64([1, -1]),
    "sizes": np.int64([1, 32, 16, 16]),
    "pads": np.int64([0, 0, 1, 1, 0, 0, 1, 1]),
    "axis": np.int64([2]),
    "start": np.int64([0]),
    "stop": np.int64([4]),
}


def constants_of(nodes: str) -> dict[str, npt.NDArray[Any]]:
    """The constants of the names above that a text uses."""
    rng = np.random.default_rng(7)
    words = set(re.findall(r"\w+", nodes))
    known = {name: float_weight(rng, shape) for name, shape in _SHAPES.items()} | _NUMBERS
    return {name: array for name, array in known.items() if name in words}


def static_model(
    nodes: str,
    inputs: str = IMAGE,
    outputs: str = "float[] y",
    extra: dict[str, npt.NDArray[Any]] | None = None,
    *,
    functions: str = "",
) -> onnx.ModelProto:
    """A model whose constants are known by name: see ``_SHAPES`` and ``_NUMBERS``."""
    constants = constants_of(nodes) | (extra or {})
    return make_model(nodes, inputs, outputs, constants, functions=functions)


def between(middle: str, **kwargs: Any) -> onnx.ModelProto:
    """Two convolutions 'a' and 'b'; ``middle`` makes ``m``, which b reads, of ``p``, from a."""
    nodes = f"[a] p = Conv(x, k1) {middle} [b] q = Conv(m, k2) [end] y = Neg(q)"
    return static_model(nodes, **kwargs)


def plan_ir(
    model: ir.Model,
    *,
    target: Target = ORT,
    weights: str = "int8",
    refused: dict[str, str] | None = None,
    wide: Collection[str] = (),
    **options: Any,
) -> Plan:
    """The plan of a model in memory; ``refused`` maps names of nodes to reasons."""
    asked = StaticOptions(weights=parse_weight_type(weights), **options)
    nodes = {node: refused[node.name] for node in model.graph if node.name in (refused or {})}
    in_16_bits = frozenset(node for node in model.graph if node.name in wide)
    return plan_static(model, target, asked, refused=nodes, wide=in_16_bits)


def static_plan(model: onnx.ModelProto, **kwargs: Any) -> Plan:
    """The plan of a model as it is, without simplification."""
    return plan_ir(to_ir(model), **kwargs)


def decide(model: onnx.ModelProto, **kwargs: Any) -> CalibrationPlan:
    """What is decided about its nodes and activations."""
    found = static_plan(model, **kwargs).calibration
    assert found is not None
    return found


def outputs_by_node(decisions: CalibrationPlan) -> dict[str, str]:
    """For each node that computes on integers, what it gives."""
    return {node.name: "integer" if node.quantizes_output else "float" for node in decisions.nodes}


def calibrated(model: onnx.ModelProto, **kwargs: Any) -> set[str]:
    """The nodes that compute on integers."""
    return set(outputs_by_node(decide(model, **kwargs)))


def reasons(model: onnx.ModelProto, **kwargs: Any) -> dict[str, str]:
    """The nodes that stay float and are told of, with the reason."""
    return {node.node: node.reason for node in decide(model, **kwargs).skipped}


def groups(decisions: CalibrationPlan) -> dict[str, set[str]]:
    """For each activation, the tensors that have its parameters."""
    return {one.name: {value.name or "" for value in one.members} for one in decisions.activations}
