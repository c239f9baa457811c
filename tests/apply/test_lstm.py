"""LSTM as DynamicQuantizeLSTM: every optional input, every direction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.apply.quantized import (
    Array,
    Quantized,
    gaussian_noise_db,
    iterate_graphs,
    quantize,
    quantize_like_dynamic_quantize_linear,
    run,
)
from tests.models import float_weight, make_model

HIDDEN, WIDTH = 128, 33

DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}

OPTIONAL_INPUTS = ("bias", "lengths", "initial-h", "initial-c", "peepholes")


@dataclass(frozen=True)
class Network:
    """An LSTM with some of its optional inputs, and what to feed it."""

    direction: str
    optional: tuple[str, ...]
    steps: int
    attributes: str = ""

    def quantize(self, folder: Path, **options: Any) -> tuple[Quantized, dict[str, Array]]:
        rng = np.random.default_rng(self.steps)
        directions = DIRECTIONS[self.direction]
        weights = {
            "w": float_weight(rng, (directions, 4 * HIDDEN, WIDTH)),
            "r": float_weight(rng, (directions, 4 * HIDDEN, HIDDEN)),
        }
        feeds = {"x": rng.uniform(-1, 1, (self.steps, 1, WIDTH)).astype(np.float32)}
        inputs = [f"float[{self.steps}, 1, {WIDTH}] x"]
        state = (directions, 1, HIDDEN)
        if "bias" in self.optional:
            weights["b"] = rng.uniform(-0.5, 0.5, (directions, 8 * HIDDEN)).astype(np.float32)
        if "peepholes" in self.optional:
            weights["p"] = rng.uniform(-0.5, 0.5, (directions, 3 * HIDDEN)).astype(np.float32)
        if "lengths" in self.optional:
            feeds["l"] = np.array([max(1, self.steps - 1)], np.int32)
            inputs.append("int32[1] l")
        for name, letter in (("initial-h", "h0"), ("initial-c", "c0")):
            if name in self.optional:
                feeds[letter] = rng.uniform(-1, 1, state).astype(np.float32)
                inputs.append(f"float[{', '.join(map(str, state))}] {letter}")
        model = make_model(
            f'y, h, c = LSTM<hidden_size = {HIDDEN}, direction = "{self.direction}"'
            f"{self.attributes}>(x, w, r)",
            ", ".join(inputs),
            f"float[{self.steps}, {directions}, 1, {HIDDEN}] y,"
            f" float[{directions}, 1, {HIDDEN}] h, float[{directions}, 1, {HIDDEN}] c",
            weights,
        )
        (node,) = model.graph.node
        slots = {
            "bias": "b",
            "lengths": "l",
            "initial-h": "h0",
            "initial-c": "c0",
            "peepholes": "p",
        }
        node.input.extend(slots[one] if one in self.optional else "" for one in OPTIONAL_INPUTS)
        while not node.input[-1]:
            node.input.pop()
        return quantize(model, folder, **options), feeds


def stored_weights(quantized: Quantized) -> dict[str, Array]:
    """W and R as the file holds them, in the layout of ONNX."""
    result = {}
    for name in ("w", "r"):
        kind = (
            "uint8"
            if any(tensor.name == f"{name}_uint8" for tensor in quantized.model.graph.initializer)
            else "int8"
        )
        integers = quantized.initializer(f"{name}_{kind}").astype(np.float32)
        (node,) = quantized.model.graph.node
        at = 9 if name == "w" else 11
        zero_point = quantized.initializer(node.input[at]).astype(np.float32)
        scale = quantized.initializer(f"{name}_scale")
        if scale.ndim == 1:
            scale, zero_point = scale[:, None, None], zero_point[:, None, None]
        else:
            scale, zero_point = scale[:, None, :], zero_point[:, None, :]
        result[name] = ((integers - zero_point) * scale).transpose(0, 2, 1)
    return result


def run_float_on_stored(quantized: Quantized, feeds: dict[str, Array]) -> list[Array]:
    """The float LSTM on the stored weights and on what 8 bits leave of x and of the state."""
    import onnx
    from onnx import numpy_helper

    twin = onnx.ModelProto()
    twin.CopyFrom(quantized.float_model)
    stored = stored_weights(quantized)
    for tensor in twin.graph.initializer:
        if tensor.name in stored:
            tensor.CopyFrom(numpy_helper.from_array(stored[tensor.name], tensor.name))
    feeds = {**feeds, "x": quantize_like_dynamic_quantize_linear(feeds["x"])}
    if "h0" in feeds:
        # The kernel quantizes the state of each direction by itself.
        halves = [quantize_like_dynamic_quantize_linear(half) for half in feeds["h0"]]
        feeds["h0"] = np.stack(halves)
    return run(twin, feeds)


OPTIONAL = {
    "none": (),
    "bias": ("bias",),
    "lengths": ("bias", "lengths"),
    "initial-h": ("initial-h",),
    "initial-c": ("bias", "initial-c"),
    "peepholes-without-bias": ("peepholes",),
    "all": OPTIONAL_INPUTS,
}

SCHEMES: dict[str, dict[str, Any]] = {
    "int8": {},
    "uint8": {"weights": "uint8"},
    "int8-per-tensor": {"per_channel": False},
    "uint8-per-tensor": {"weights": "uint8", "per_channel": False},
    "reduce-range": {"reduce_range": True},
}


@pytest.mark.parametrize("optional", OPTIONAL.values(), ids=OPTIONAL)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_step_equals_float_on_the_stored_weights(
    direction: str, optional: tuple[str, ...], tmp_path: Path
) -> None:
    quantized, feeds = Network(direction, optional, 1).quantize(tmp_path)
    assert quantized.operators() == {"DynamicQuantizeLSTM": 1}
    for actual, expected in zip(
        quantized.run(feeds), run_float_on_stored(quantized, feeds), strict=True
    ):
        # Sums of 33 + 128 products of numbers under 1 in float32, then functions of slope 1.
        np.testing.assert_allclose(actual, expected, rtol=0, atol=161 * 6e-8 * 2)


@pytest.mark.parametrize("options", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_step_in_every_scheme(direction: str, options: dict[str, Any], tmp_path: Path) -> None:
    network = Network(direction, ("bias", "initial-h"), 1)
    quantized, feeds = network.quantize(tmp_path, **options)
    for actual, expected in zip(
        quantized.run(feeds), run_float_on_stored(quantized, feeds), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=161 * 6e-8 * 2)


@pytest.mark.parametrize("options", SCHEMES.values(), ids=SCHEMES)
def test_stored_weights_are_neighbours_of_the_float_ones(
    options: dict[str, Any], tmp_path: Path
) -> None:
    quantized, _ = Network("bidirectional", (), 1).quantize(tmp_path, **options)
    stored = stored_weights(quantized)
    (_, w), (_, r) = (
        (tensor.name, quantized_array(quantized, tensor.name))
        for tensor in quantized.float_model.graph.initializer
    )
    for name, exact in (("w", w), ("r", r)):
        scale = quantized.initializer(f"{name}_scale")
        step = scale.reshape(2, -1, 1)
        assert np.all(np.abs(stored[name] - exact) <= step * (1 + 1e-5))


@pytest.mark.parametrize("optional", OPTIONAL.values(), ids=OPTIONAL)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_sequence_is_near_float(direction: str, optional: tuple[str, ...], tmp_path: Path) -> None:
    quantized, feeds = Network(direction, optional, 6).quantize(tmp_path)
    weight = quantized_array(quantized, "w")
    # Three sources of noise at each step (x and the state in 255 steps over their range, a weight
    # in 127 steps of its maximum), each at least as far below the signal as a Gaussian that fills
    # 254 steps to 4 standard deviations; 6 dB for the gates, which multiply noisy factors.
    one_source = min(
        gaussian_noise_db(weight, np.abs(weight).max(axis=2) / 127),
        gaussian_noise_db(feeds["x"], 2 / 255),
        20 * np.log10(254 / 8 * np.sqrt(12)),
    )
    floor = one_source - 10 * np.log10(3) - 6
    assert floor > 25
    for actual, expected in zip(quantized.run(feeds), quantized.run_float(feeds), strict=True):
        noise = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        assert -20 * np.log10(noise) > floor


def test_attributes_are_kept(tmp_path: Path) -> None:
    network = Network("forward", ("bias",), 3, attributes=", clip = 0.5")
    quantized, feeds = network.quantize(tmp_path)
    (node,) = quantized.model.graph.node
    assert {one.name for one in node.attribute} == {"hidden_size", "direction", "clip"}
    unclipped, _ = Network("forward", ("bias",), 3).quantize(tmp_path, force=True)
    assert not np.allclose(quantized.run(feeds)[0], unclipped.run(feeds)[0], atol=0.02)
    assert np.linalg.norm(quantized.run(feeds)[0] - quantized.run_float(feeds)[0]) < 0.1


def test_batch_is_near_float_in_every_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": float_weight(rng, (1, 4 * HIDDEN, WIDTH)),
        "r": float_weight(rng, (1, 4 * HIDDEN, HIDDEN)),
    }
    model = make_model(
        f"y = LSTM<hidden_size = {HIDDEN}>(x, w, r)",
        f"float[S, B, {WIDTH}] x",
        f"float[S, 1, B, {HIDDEN}] y",
        weights,
    )
    quantized = quantize(model, tmp_path)
    feeds = {"x": rng.uniform(-1, 1, (4, 7, WIDTH)).astype(np.float32)}
    expected, actual = quantized.run_float(feeds)[0], quantized.run(feeds)[0]
    for row in range(7):
        error = np.linalg.norm(actual[:, :, row] - expected[:, :, row])
        assert error < 10 ** (-25 / 20) * np.linalg.norm(expected[:, :, row])


def test_lstm_is_stored_for_the_standard_target(tmp_path: Path) -> None:
    quantized, feeds = Network("bidirectional", ("bias",), 3).quantize(tmp_path, target="onnx")
    for plan in quantized.result.plan.tensors[:2]:
        assert "target 'onnx' has no integer LSTM" in plan.explanation
        assert plan.best_form.value == "storage"
    assert quantized.operators()["LSTM"] == 1
    for actual, expected in zip(quantized.run(feeds), quantized.run_twin(feeds), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_lstm_with_one_weight_fed_is_not_touched(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = make_model(
        "y = LSTM<hidden_size = 128>(x, w, r)",
        f"float[2, 1, {WIDTH}] x, float[1, 512, 128] r",
        "float[2, 1, 1, 128] y",
        {"w": float_weight(rng, (1, 512, WIDTH))},
    )
    quantized = quantize(model, tmp_path)
    (plan,) = quantized.result.plan.tensors
    assert "not all weights of the LSTM are constant" in plan.explanation
    assert plan.best_form.value == "storage"


def quantized_array(quantized: Quantized, name: str) -> Array:
    """An initializer of the float model."""
    from onnx import numpy_helper

    for graph in iterate_graphs(quantized.float_model):
        for tensor in graph.initializer:
            if tensor.name == name:
                return numpy_helper.to_array(tensor)
    raise KeyError(name)
