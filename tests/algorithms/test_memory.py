"""Weights that a technique changes go to a file at once: memory holds few of them."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from onnxq.algorithms.equalization import equalize, find_chains
from onnxq.algorithms.rounding import correct_only
from onnxq.algorithms.smoothing import observe_channels, smooth
from tests.algorithms.recipes import make_recipe, run_sweep
from tests.models import float_weight, make_model

LAYERS = 16
SIZE = 192
WEIGHT_BYTES = 4 * SIZE * SIZE


def _chain(rng: np.random.Generator, operator: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    nodes = [
        f"h{at} = {operator}(r{at}, w{at}{f', b{at}' if operator == 'Conv' else ''}) "
        f"r{at + 1} = Relu(h{at})"
        for at in range(LAYERS)
    ]
    sizes = ", ".join(["N", str(SIZE), *"44"] if operator == "Conv" else ["N", str(SIZE)])
    constants = {f"w{at}": float_weight(rng, shape) for at in range(LAYERS)}
    if operator == "Conv":
        constants |= {f"b{at}": np.zeros(SIZE, np.float32) for at in range(LAYERS)}
    ends = (f"float[{sizes}] r0", f"float[{sizes}] r{LAYERS}")
    return make_model(" ".join(nodes), *ends, constants, opset=21)


def _measure_peak(work: Callable[[], ir.Model]) -> tuple[int, int]:
    """Most bytes that were taken at once, and how many weights lie in files afterwards."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        model = work()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    moved = [
        one
        for one in model.graph.initializers.values()
        if type(one.const_value) is ir.ExternalTensor
    ]
    return peak, len(moved)


def test_smoothing_holds_one_weight(rng: np.random.Generator, tmp_path: Path) -> None:
    samples = [{"r0": float_weight(rng, (8, SIZE))} for _ in range(2)]
    recipe = make_recipe(_chain(rng, "MatMul", (SIZE, SIZE)), samples, tmp_path)
    found = observe_channels(recipe, samples, tmp_path / "channels.onnx")
    assert len(found) == LAYERS
    assert not (tmp_path / "channels.onnx.data").exists()
    peak, moved = _measure_peak(lambda: smooth(recipe, found, 0.5, tmp_path / "smoothed").model)
    assert moved == LAYERS
    # The weight, its product, that in the order of the file, its bytes; statistics need two more.
    assert peak < 7 * WEIGHT_BYTES


def test_a_sweep_keeps_no_weight(rng: np.random.Generator, tmp_path: Path) -> None:
    """Without the collector of cycles, which the command line does without."""
    samples = [{"r0": float_weight(rng, (8, SIZE))} for _ in range(2)]
    recipe = make_recipe(_chain(rng, "MatMul", (SIZE, SIZE)), samples, tmp_path)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        run_sweep(recipe, samples, correct_only, tmp_path)
        kept_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()
    # Nodes and names of all segments, which are cycles: 0.4 MB here.
    assert kept_bytes < LAYERS * WEIGHT_BYTES / 4


def test_equalization_holds_one_chain(rng: np.random.Generator, tmp_path: Path) -> None:
    samples = [{"r0": float_weight(rng, (1, SIZE, 4, 4))} for _ in range(2)]
    recipe = make_recipe(_chain(rng, "Conv", (SIZE, SIZE, 1, 1)), samples, tmp_path)
    chains = find_chains(recipe)
    assert len(chains) == LAYERS - 1
    peak, moved = _measure_peak(lambda: equalize(recipe, chains, tmp_path / "equalized").model)
    assert moved == LAYERS
    # Two layers, before and after, and what one of them needs to be written.
    assert peak < 9 * WEIGHT_BYTES
