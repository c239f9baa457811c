"""A graph of ONNX as a list of steps for torch, made once and run many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch

from onnxq.errors import UnsupportedModelError
from onnxq.graph.constants import constant_tensor
from onnxq.graph.scopes import iterate_scopes
from onnxq.training.operators import OPERATORS, Call, Operator
from onnxq.training.operators.fused import Pair, fake_quantize_pair, find_pair, find_redundant
from onnxq.training.operators.quantization import TYPE_LIMITS
from onnxq.training.tensors import to_torch

CPU = torch.device("cpu")

Values = dict[ir.Value, torch.Tensor]

RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "Bernoulli", "Multinomial"}
)


@dataclass(frozen=True)
class Step:
    """One node.

    Attributes:
        node: it.
        operator: what computes it; None for If.
        call: what the operator gets to know.
        inputs: that it reads; None where one is left out.
        outputs: that it writes.
        branches: of an If: first the one for true.
        last_uses: values that no later step reads.
    """

    node: ir.Node
    operator: Operator | None
    call: Call
    inputs: tuple[ir.Value | None, ...]
    outputs: tuple[ir.Value, ...]
    branches: tuple[Block, ...] = ()
    last_uses: tuple[ir.Value, ...] = ()

    @property
    def reads(self) -> set[ir.Value]:
        """Every value that the step needs, those that branches take from outside included."""
        found = {value for value in self.inputs if value is not None}
        for branch in self.branches:
            found |= branch.captured
        return found


@dataclass(frozen=True)
class Block:
    """Steps in order, and what they give."""

    steps: tuple[Step, ...]
    outputs: tuple[ir.Value, ...]

    @property
    def captured(self) -> set[ir.Value]:
        """Values that are read and not made inside."""
        made = {value for step in self.steps for value in step.outputs}
        read = {value for step in self.steps for value in step.reads} | set(self.outputs)
        return read - made


@dataclass(frozen=True)
class Program:
    """A graph that torch can run.

    Attributes:
        block: the steps that depend on inputs or on what is trained.
        inputs: of the graph, without initializers.
        constants: everything that stays as it is.
        trained: values that the caller has to give at each run.
        device: where floats are.
        real: type of what the graph computes in float32.
    """

    block: Block
    inputs: tuple[ir.Value, ...]
    constants: Mapping[ir.Value, torch.Tensor]
    trained: frozenset[ir.Value] = field(default_factory=frozenset)
    device: torch.device = CPU
    real: torch.dtype = torch.float32

    @property
    def output_names(self) -> tuple[str, ...]:
        """In the order of the graph."""
        return tuple(value.name or "" for value in self.block.outputs)


def find_unsupported(model: ir.Model) -> tuple[str, ...]:
    """Types of nodes that the engine has no function for, each once, in file order."""
    missing: dict[str, None] = {}
    for scope in iterate_scopes(model):
        for node in scope.graph:
            if (node.domain, node.op_type) not in OPERATORS and node.op_type != "If":
                name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                missing[name] = None
    return tuple(missing)


def compile_model(
    model: ir.Model,
    *,
    trained: Collection[ir.Value] = (),
    watched: Collection[ir.Value] = (),
    device: torch.device | None = None,
    real: torch.dtype = torch.float32,
) -> Program:
    """Make a program of the main graph of a model.

    Args:
        model: its float or integer graph.
        trained: constants that the caller gives at each run.
        watched: values inside that the caller wants to see, also where they could be passed over.
        device: where floats are; the CPU if None.
        real: what to compute in where the graph says float32. In float64 sums are exact enough
            that the rounding behind them hardly ever differs from that of integer kernels.

    Raises:
        UnsupportedModelError: it has an operator that the engine lacks.
    """
    missing = find_unsupported(model)
    if missing:
        raise UnsupportedModelError(
            f"the training engine has no operator {', '.join(missing)}; nodes of these types "
            "cannot be trained through"
        )
    device = device or CPU
    compiler = _Compiler(model, frozenset(trained), frozenset(watched), device, real)
    graph = model.graph
    block = compiler.compile(graph, tuple(graph.outputs))
    inputs = tuple(value for value in graph.inputs if value.name not in graph.initializers)
    needed = block.captured - set(inputs)
    constants = {value: compiler.constants[value] for value in needed - compiler.trained}
    return Program(block, inputs, constants, compiler.trained, device, real)


class _Compiler:
    def __init__(
        self,
        model: ir.Model,
        trained: frozenset[ir.Value],
        watched: frozenset[ir.Value],
        device: torch.device,
        real: torch.dtype,
    ) -> None:
        self.trained = trained
        self._watched = watched
        self.constants: Values = {}
        self._opsets = dict(model.opset_imports)
        self._device = device
        self._real = real
        self._skipped: dict[ir.Value, ir.Value] = {}

    def compile(self, graph: ir.Graph, outputs: tuple[ir.Value, ...]) -> Block:
        """The steps of a body that cannot be computed now."""
        for value in graph.initializers.values():
            self._add_initializer(value)
        steps = []
        fused: set[ir.Node] = set()
        for node in graph:
            if node in fused or any(value in self.trained for value in node.outputs):
                continue
            source = find_redundant(node)
            if source is not None and node.outputs[0] not in self._watched:
                self._skipped[node.outputs[0]] = source
                continue
            pair = find_pair(node)
            if pair is not None:
                fused.update(pair.nodes)
            step = self._make_step(node, pair)
            if not self._fold(step):
                steps.append(step)
        return Block(_mark_last_uses(steps, outputs), outputs)

    def _add_initializer(self, value: ir.Value) -> None:
        tensor = value.const_value
        if tensor is None or value in self.trained:
            return
        self.constants[value] = self._place(to_torch(tensor.numpy()))

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype is torch.float32:
            tensor = tensor.to(self._real)
        # Integers are shapes and indices, which are read on the CPU; 8-bit ones are weights.
        small = tensor.dtype in (torch.int8, torch.uint8)
        return tensor.to(self._device) if tensor.is_floating_point() or small else tensor

    def _make_step(self, node: ir.Node, pair: Pair | None) -> Step:
        attributes: dict[str, Any] = {}
        branches: tuple[Block, ...] = ()
        if node.op_type == "If" and not node.domain:
            branches = tuple(
                self.compile(body, tuple(body.outputs))
                for body in (
                    node.attributes["then_branch"].as_graph(),
                    node.attributes["else_branch"].as_graph(),
                )
            )
        else:
            attributes = {name: _read(one) for name, one in node.attributes.items()}
            attributes["limits"] = _find_limits(node)
        if pair is not None and pair.levels is not None:
            attributes["limits"] = pair.levels
        call = Call(
            node.op_type,
            attributes,
            node.version or self._opsets.get(node.domain, 1),
            len(node.outputs),
            self._device,
            self._real,
        )
        outputs = tuple(node.outputs)
        operator = None if branches else OPERATORS[node.domain, node.op_type]
        if pair is not None:
            operator, outputs = fake_quantize_pair, (pair.output,)
        inputs = tuple(
            None if value is None else self._skipped.get(value, value) for value in node.inputs
        )
        return Step(node, operator, call, inputs, outputs, branches)

    def _fold(self, step: Step) -> bool:
        """Compute a step now if nothing can change what it gives."""
        if step.operator is None or step.node.op_type in RANDOM:
            return False
        if any(value not in self.constants for value in step.reads):
            return False
        with torch.no_grad():
            inputs = [None if one is None else self.constants[one] for one in step.inputs]
            results = step.operator(step.call, inputs)
        self.constants.update(zip(step.outputs, results, strict=False))
        return True


def _read(attribute: ir.Attr) -> Any:
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.as_tensor().numpy()
    return attribute.value


def _find_limits(node: ir.Node) -> tuple[int, int]:
    """Smallest and largest integer that a node quantizes to."""
    index = 8 if node.op_type == "QGemm" else 2
    zero_point = node.inputs[index] if index < len(node.inputs) else None
    tensor = constant_tensor(zero_point)
    dtype = ir.DataType.UINT8 if tensor is None else tensor.dtype
    wanted = node.attributes.get("output_dtype")
    if tensor is None and wanted is not None and wanted.as_int():
        dtype = ir.DataType(wanted.as_int())
    return TYPE_LIMITS.get(dtype, (0, 255))


def _mark_last_uses(steps: Sequence[Step], outputs: Iterable[ir.Value]) -> tuple[Step, ...]:
    made = {value for step in steps for value in step.outputs}
    kept = set(outputs)
    marked = []
    for step in reversed(steps):
        done = (step.reads | set(step.outputs)) & made - kept
        kept |= done
        marked.append(
            Step(
                step.node,
                step.operator,
                step.call,
                step.inputs,
                step.outputs,
                step.branches,
                tuple(done),
            )
        )
    return tuple(reversed(marked))


def iterate_steps(block: Block) -> Iterator[Step]:
    """Every step, those of branches included."""
    for step in block.steps:
        yield step
        for branch in step.branches:
            yield from iterate_steps(branch)


def count_operators(program: Program) -> Counter[str]:
    """How many steps of each type there are."""
    return Counter(step.node.op_type for step in iterate_steps(program.block))
