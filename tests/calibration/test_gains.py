"""Regions that would take longer than floats stay float."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import onnxq
from onnxq.calibration import find_unprofitable_nodes
from onnxq.plan import StaticOptions, plan_static
from onnxq.targets import Target, find_target
from tests.apply.calibrated_models import save_samples, weights
from tests.models import make_model, save, to_ir

# Between Neg nodes every convolution is a region of its own: 2 elements cross for each output.
ALONE = "n = Neg(x) [c] a = Conv<kernel_shape = [1, 1]>(n, w) y = Neg(a)"


def find(target: Target, *, channels: int, group: int = 1, spatial: str = "H, W") -> set[str]:
    node = ALONE.replace("kernel_shape", f"group = {group}, kernel_shape")
    shape = (channels, channels // group, 1, 1)
    model = to_ir(
        make_model(
            node,
            f"float[1, {channels}, {spatial}] x",
            "float[] y",
            weights(w=shape),
        )
    )
    calibration = plan_static(model, replace(target, crossing_multiplications=0), StaticOptions())
    decisions = calibration.calibration
    assert decisions is not None
    elements = {one.value: channels * 64 for one in decisions.activations}
    refused = find_unprofitable_nodes(decisions, elements, target)
    return {node.name or "" for node in refused}


@pytest.mark.parametrize(
    ("channels", "refused"), [(98, {"c"}), (100, set()), (128, set())], ids=["98", "100", "128"]
)
def test_a_convolution_alone_needs_as_many_multiplications(
    channels: int, refused: set[str]
) -> None:
    """Half as many multiplications as channels for each of the elements that cross."""
    target = replace(find_target("ort-cpu"), crossing_multiplications=50)
    assert find(target, channels=channels) == refused


def test_without_a_price_every_region_stays() -> None:
    target = replace(find_target("ort-cpu"), crossing_multiplications=0)
    assert find(target, channels=24) == set()


@pytest.mark.real_borders
@pytest.mark.parametrize(("channels", "integer"), [(32, 0), (256, 1)], ids=["narrow", "wide"])
def test_what_users_get(channels: int, integer: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    samples = [{"x": rng.standard_normal((1, channels, 4, 4)).astype(np.float32)} for _ in range(5)]
    save_samples(samples, tmp_path / "samples")
    model = make_model(
        ALONE,
        f"float[1, {channels}, 4, 4] x",
        f"float[1, {channels}, 4, 4] y",
        weights(w=(channels, channels, 1, 1)),
    )
    path = save(model, tmp_path / "net.onnx")
    result = onnxq.quantize_static(path, tmp_path / "samples", method="minmax")
    assert result.verification is not None
    assert result.verification.optimized is not None
    assert sum(result.verification.optimized.integer_nodes.values()) == integer
    reasons = {one.reason for one in result.plan.calibration.skipped} if not integer else set()
    assert all("multiplications saved" in reason for reason in reasons)


@pytest.mark.real_borders
def test_saved_ranges_lead_to_the_same_regions(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    samples = [{"x": rng.standard_normal((1, 32, 4, 4)).astype(np.float32)} for _ in range(5)]
    save_samples(samples, tmp_path / "samples")
    model = make_model(
        ALONE, "float[1, 32, 4, 4] x", "float[1, 32, 4, 4] y", weights(w=(32, 32, 1, 1))
    )
    path = save(model, tmp_path / "net.onnx")
    ranges = tmp_path / "ranges.json"
    first = onnxq.quantize_static(path, tmp_path / "samples", save_ranges=ranges, accuracy="fast")
    again = onnxq.quantize_static(path, ranges=ranges, output=tmp_path / "again.onnx")
    assert again.plan == first.plan
