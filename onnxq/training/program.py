"""A graph of ONNX as a list of steps for torch, made once and run many times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir
import torch

from onnxq.errors import UnsupportedModelError
from onnxq.graph.scopes import iterate_scopes
from onnxq.training.integer_patterns import IntegerKernel, find_integer_kernel
from onnxq.training.operators import OPERATORS, Call, Operator
from onnxq.training.operators.fused import Pair, fake_quantize_pair, find_pair, find_redundant
from onnxq.training.operators.quantization import find_limits
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
    exact: bool = False,
) -> Program:
    """Make a program of the main graph of a model.

    Args:
        model: its float or integer graph.
        trained: constants that the caller gives at each run.
        watched: values inside that the caller wants to see, also where they could be passed over.
        device: where floats are; the CPU if None.
        real: what to compute in where the graph says float32. In float64 sums are exact enough
            that the rounding behind them hardly ever differs from that of integer kernels.
        exact: compute quantized layers as the kernels of onnxruntime do, and everything else in
            float64 whatever ``real`` says. No gradient passes.

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
    real = torch.float64 if exact else real
    compiler = _Compiler(model, frozenset(trained), frozenset(watched), device, real, exact=exact)
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
        *,
        exact: bool,
    ) -> None:
        self.trained = trained
        self._watched = watched
        self.constants: Values = {}
        self._opsets = dict(model.opset_imports)
        self._device = device
        self._real = real
        self._exact = exact
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
            kernel = self._find_kernel(node)
            source = find_redundant(node) if kernel is None else None
            if source is not None and node.outputs[0] not in self._watched:
                self._skipped[node.outputs[0]] = source
                continue
            fusion = kernel or find_pair(node)
            if fusion is not None:
                fused.update(fusion.nodes)
            step = self._make_step(node, fusion)
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

    def _find_kernel(self, node: ir.Node) -> IntegerKernel | None:
        kernel = find_integer_kernel(node, self.constants) if self._exact else None
        if kernel is None:
            return None
        passed = {value for one in (node, *kernel.nodes) for value in one.outputs}
        return None if (passed - {kernel.output}) & self._watched else kernel

    def _make_step(self, node: ir.Node, fusion: Pair | IntegerKernel | None) -> Step:
        if node.op_type == "If" and not node.domain:
            branches = tuple(
                self.compile(body, tuple(body.outputs))
                for body in (
                    node.attributes["then_branch"].as_graph(),
                    node.attributes["else_branch"].as_graph(),
                )
            )
            call = self._make_call(node, {})
            return Step(node, None, call, self._read(node.inputs), tuple(node.outputs), branches)
        attributes = {name: _read(one) for name, one in node.attributes.items()}
        attributes["limits"] = find_limits(node)
        operator, outputs = OPERATORS[node.domain, node.op_type], tuple(node.outputs)
        inputs = tuple(node.inputs)
        if fusion is not None:
            outputs = (fusion.output,)
        if isinstance(fusion, IntegerKernel):
            operator, inputs = fusion.operator, fusion.inputs
            attributes["limits"] = fusion.limits
        elif fusion is not None:
            operator = fake_quantize_pair
            attributes["limits"] = fusion.levels or attributes["limits"]
        call = self._make_call(node, attributes)
        return Step(node, operator, call, self._read(inputs), outputs)

    def _read(self, inputs: Iterable[ir.Value | None]) -> tuple[ir.Value | None, ...]:
        return tuple(None if one is None else self._skipped.get(one, one) for one in inputs)

    def _make_call(self, node: ir.Node, attributes: Mapping[str, Any]) -> Call:
        return Call(
            node.op_type,
            attributes,
            node.version or self._opsets.get(node.domain, 1),
            len(node.outputs),
            self._device,
            self._real,
        )

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


def _mark_last_uses(steps: Sequence[Step], outputs: Iterable[ir.Value]) -> tuple[Step, ...]:
    made = {value for step in steps for value in step.outputs}
    kept = set(outputs)
    marked = []
    for step in reversed(steps):
        done = (step.reads | set(step.outputs)) & made - kept
        kept |= done
        marked.append(replace(step, last_uses=tuple(done)))
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
