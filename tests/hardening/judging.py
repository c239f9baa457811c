"""Whether the error of a quantized model can be explained by quantization.

Rounding to a grid of step ``s`` is as good as adding noise that is uniform in [-s/2, s/2] (Bennett
1948; docs/mapping.md). So the float model is run with such noise on every float weight and every
activation, in steps of the coarsest grid that a mode may use, several times. Nothing else needs to
be known of an operator: how far rounding can move its output, through a Softmax, a Loop or an
ArgMax, shows by itself.

- An output of floats may have ``MOST_EXCESS`` times the noise, in power, of the noisiest of
  ``TRIALS`` trials. The worst case is a single element, whose error is one Gaussian number. It is
  ten times as large as each of 8 others with a probability of about 1e-6: the largest of 8 is under
  a third of a standard deviation in one of 12,000 cases, and then the error still has to be beyond
  three. More elements make it rarer. A wrong axis, zero point or scale makes an error as large as
  the signal, 30 dB and more above the noise of 8 bits.
- An element that is no float, NaN or infinite may differ only where noise of up to three times the
  size makes it differ in some trial.
- Shapes and element types are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tests.hardening.cases import FLOATS, is_float

Array = npt.NDArray[Any]

TRIALS = 8
MOST_EXCESS = 100.0
"""In power: 20 dB."""
ENLARGEMENT = 3.0
SLACK_STEPS = 16.0
"""Steps of the float type itself, of the largest element of an output: sums in another order."""

_FATAL_ONLY = 4


@dataclass(frozen=True)
class Steps:
    """The coarsest grid of a mode.

    Attributes:
        weight: step as a share of the largest magnitude in a tensor.
        relative: step as a share of each element of a weight, for 16-bit floats.
        activation: step as a share of the range of an activation.
    """

    weight: float = 0.0
    relative: float = 0.0
    activation: float = 0.0


# 7 bits: what weights have on processors whose sums of 8-bit products would saturate.
_EIGHT_BIT = Steps(weight=1 / 63, activation=1 / 255)
_FOUR_BIT = Steps(weight=1 / 7, activation=1 / 255)

STEPS: Mapping[str, Steps] = {
    **dict.fromkeys(("int8", "uint8", "static"), _EIGHT_BIT),
    **dict.fromkeys(("int4", "uint4"), _FOUR_BIT),
    "fp16": Steps(relative=2.0**-10, weight=2.0**-24),
    "bf16": Steps(relative=2.0**-7),
}


def open_session(model: onnx.ModelProto | str, *, optimized: bool = True) -> Any:
    """A quiet session on one thread, of a model or of the path of one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_once(session: Any, feeds: Mapping[str, Any]) -> list[Array | None]:
    """Outputs as tensors, those of sequences one after the other; optional inputs may be None."""
    given = {name: value for name, value in feeds.items() if value is not None}
    return _flatten(session.run(None, given))


def _flatten(values: Sequence[Any]) -> list[Array | None]:
    found: list[Array | None] = []
    for value in values:
        if isinstance(value, list | tuple):
            found += _flatten(value)
        elif isinstance(value, dict):
            found += _flatten(list(value.values()))
        else:
            found.append(None if value is None else np.asarray(value))
    return found


class Judge:
    """Knows what rounding may do to the outputs of a float model."""

    def __init__(self, model: onnx.ModelProto, feeds: Mapping[str, Any], steps: Steps) -> None:
        self._model = model
        self._feeds = dict(feeds)
        self._steps = steps
        self._expected = run_once(open_session(model), feeds)
        self._observed: dict[str, Any] | None = None
        self._trials: dict[float, list[list[Any]]] = {}

    def find_fault(self, measured: Sequence[Array | None]) -> str | None:
        """What in the outputs of a quantized model rounding does not explain, or None."""
        if len(measured) != len(self._expected):
            return f"{len(measured)} outputs, {len(self._expected)} in float"
        for index, (a, b) in enumerate(zip(self._expected, measured, strict=True)):
            if _describe(a) != _describe(b):
                return f"output {index}: {_describe(b)}, {_describe(a)} in float"
            fault = None if a is None or b is None else self._judge(index, a, b)
            if fault is not None:
                return f"output {index}: {fault}"
        return None

    def can_make_nan(self) -> bool:
        """Whether noise makes NaN or infinity of a number, or a number of those."""
        return any(
            np.any(_classify(a) != _classify(b))
            for factor in (1.0, ENLARGEMENT)
            for trial in self._run_trials(factor)
            for a, b in zip(self._expected, trial, strict=True)
            if is_float(a)
        )

    def _judge(self, index: int, a: Array, b: Array) -> str | None:
        if not is_float(a):
            return self._judge_exact(index, a, b, np.asarray)
        fault = self._judge_exact(index, a, b, _classify)
        return fault or self._judge_noise(index, a, b)

    def _judge_exact(
        self, index: int, a: Array, b: Array, view: Callable[[Any], Array]
    ) -> str | None:
        different = view(a) != view(b)
        if not np.any(different):
            return None
        explained = np.zeros_like(different)
        for factor in (1.0, ENLARGEMENT):
            for trial in self._run_trials(factor):
                explained |= view(trial[index]) != view(a)
        count = int(np.count_nonzero(different & ~explained))
        return f"{count} of {a.size} elements differ, which rounding does not do" if count else None

    def _judge_noise(self, index: int, a: Array, b: Array) -> str | None:
        finite = np.isfinite(a.astype(np.float64))
        noise = _power(a, b, finite)
        largest = float(np.abs(a[finite].astype(np.float64)).max(initial=0.0))
        slack = (SLACK_STEPS * float(ml_dtypes.finfo(a.dtype).eps) * largest) ** 2 * a.size
        slack += float(np.finfo(np.float32).tiny)
        if noise <= slack:
            return None
        trials = self._run_trials(1.0)
        explained = max((_power(a, one[index], finite) for one in trials), default=0.0)
        if noise <= MOST_EXCESS * explained + slack:
            return None
        signal = _power(a, np.zeros_like(a), finite)
        return f"SQNR {_ratio_db(signal, noise)}, {_ratio_db(signal, explained)} are explained"

    def _run_trials(self, factor: float) -> list[list[Any]]:
        if factor not in self._trials:
            found = (self._run_trial(trial, factor) for trial in range(TRIALS))
            self._trials[factor] = [one for one in found if one is not None]
        return self._trials[factor]

    def _run_trial(self, trial: int, factor: float) -> list[Any] | None:
        """Outputs with noise.

        Without that on vectors where it breaks the model (sizes), and without that on activations
        where shapes depend on which of them are equal (Unique).
        """
        rng = np.random.default_rng(trial)
        for least_rank, on_activations in ((0, True), (2, True), (None, True), (0, False)):
            model, feeds = self._perturb(rng, factor, least_rank, on_activations=on_activations)
            try:
                found = run_once(open_session(model, optimized=False), feeds)
            except Exception:
                continue
            if list(map(_describe, found)) == list(map(_describe, self._expected)):
                return found
        return None

    def _perturb(
        self,
        rng: np.random.Generator,
        factor: float,
        least_rank: int | None,
        *,
        on_activations: bool,
    ) -> tuple[onnx.ModelProto, dict[str, Any]]:
        """The model and its feeds with noise; on weights of some rank or more, or on none."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        steps, feeds = self._steps, dict(self._feeds)
        for tensor in _find_weights(model):
            array = numpy_helper.to_array(tensor)
            if least_rank is not None and array.ndim >= least_rank and array.size:
                largest = np.abs(_finite(array)).max(initial=0.0)
                step = steps.weight * largest + steps.relative * np.abs(array.astype(np.float64))
                noisy = _add_noise(rng, array, factor * step)
                tensor.CopyFrom(numpy_helper.from_array(noisy, tensor.name))
        if steps.activation and on_activations:
            for name, value in feeds.items():
                if is_float(value):
                    feeds[name] = _add_noise(rng, value, factor * self._activation_step(value))
            self._perturb_activations(model, rng, factor)
        return model, feeds

    def _activation_step(self, value: Array) -> Any:
        finite = _finite(value)
        width = finite.max(initial=0.0) - finite.min(initial=0.0)
        return np.full(value.shape, self._steps.activation * width)

    def _perturb_activations(
        self, model: onnx.ModelProto, rng: np.random.Generator, factor: float
    ) -> None:
        """Noise on what the nodes of the main graph give each other."""
        values = self._observe()
        nodes = []
        for node in model.graph.node:
            nodes.append(node)
            for position, name in enumerate(list(node.output)):
                value = values.get(name)
                if value is None or not is_float(value) or value.dtype.kind != "f":
                    continue
                zeros = np.zeros_like(value)
                noise = _add_noise(rng, zeros, factor * self._activation_step(value))
                node.output[position] = f"{name}__clean"
                model.graph.initializer.append(numpy_helper.from_array(noise, f"{name}__noise"))
                nodes.append(helper.make_node("Add", [f"{name}__clean", f"{name}__noise"], [name]))
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    def _observe(self) -> dict[str, Any]:
        if self._observed is None:
            read = {name for node in self._model.graph.node for name in node.input}
            made = [name for node in self._model.graph.node for name in node.output if name in read]
            model = onnx.ModelProto()
            model.CopyFrom(self._model)
            outputs = {one.name for one in model.graph.output}
            model.graph.output.extend(
                onnx.ValueInfoProto(name=name) for name in made if name and name not in outputs
            )
            found: list[Any] = []
            if made:
                given = {name: one for name, one in self._feeds.items() if one is not None}
                found = open_session(model, optimized=False).run(made, given)
            self._observed = dict(zip(made, found, strict=True))
        return self._observed


def _find_weights(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Float constants, also in bodies and functions."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        body = waiting.pop()
        if isinstance(body, onnx.GraphProto):
            yield from (one for one in body.initializer if one.data_type in FLOATS)
        for node in body.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    waiting.append(attribute.g)
                if node.op_type == "Constant" and attribute.t.data_type in FLOATS:
                    yield attribute.t


def _add_noise(rng: np.random.Generator, array: Array, step: Any) -> Array:
    real = array.astype(np.float64)
    with np.errstate(all="ignore"):
        noisy = real + rng.uniform(-0.5, 0.5, real.shape) * step
        return np.asarray(np.where(np.isfinite(real), noisy, real).astype(array.dtype))


def _finite(array: Array) -> npt.NDArray[np.float64]:
    real = array.astype(np.float64)
    return real[np.isfinite(real)]


def _describe(array: Array | None) -> str:
    return "none" if array is None else f"{array.dtype}{list(array.shape)}"


def _classify(array: Array) -> Array:
    """0 for a number, and others for NaN and the infinities."""
    real = np.asarray(array).astype(np.float64)
    return np.isnan(real) * 3 + np.isposinf(real) * 1 + np.isneginf(real) * 2


def _power(a: Array, b: Array, where: Array) -> float:
    difference = a[where].astype(np.float64) - b[where].astype(np.float64)
    return float(np.sum(np.square(difference[np.isfinite(difference)])))


def _ratio_db(signal: float, noise: float) -> str:
    if not signal or not noise:
        return "inf dB" if signal else "-inf dB"
    return f"{10 * np.log10(signal / noise):.1f} dB"
