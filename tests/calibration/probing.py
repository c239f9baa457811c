"""The float model with probes, run over samples, without the rest of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from onnxq.calibration import Observations, ProbedModel, add_probes, observe, write_probed
from onnxq.plan import ActivationPlan, Plan, StaticOptions, plan_static
from onnxq.runtime.session import Session
from onnxq.samples import Sample
from onnxq.targets import find_target
from tests.apply.calibrated_models import IMAGE
from tests.models import make_model, to_ir

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Probed:
    """A model, its plan, and the same model with probes."""

    proto: onnx.ModelProto
    model: ir.Model
    plan: Plan
    probed: ProbedModel
    path: Path

    @property
    def activations(self) -> tuple[ActivationPlan, ...]:
        assert self.plan.calibration is not None
        return self.plan.calibration.activations

    def observe(self, samples: Sequence[Mapping[str, Array]]) -> Observations:
        named = [Sample(f"sample {index}", dict(feeds)) for index, feeds in enumerate(samples)]
        return observe(Session(self.path), self.probed.probes, named)

    def extremes(self, samples: Sequence[Mapping[str, Array]]) -> dict[str, tuple[float, float]]:
        found = self.observe(samples).by_value
        return {
            one.name: (found[one.value].minimum, found[one.value].maximum)
            for one in self.activations
        }


def probe(proto: onnx.ModelProto, folder: Path, *, sampled: bool, **options: Any) -> Probed:
    """Plan ``proto`` and write it with probes to ``folder``."""
    model = to_ir(proto)
    plan = plan_static(model, find_target("ort-cpu"), StaticOptions(**options))
    assert plan.calibration is not None
    probed = add_probes(model, plan.calibration.activations, sampled=sampled)
    return Probed(proto, model, plan, probed, write_probed(probed, folder))


def integers(rng: np.random.Generator, *shape: int) -> Array:
    """Small integers in float32: sums of their products have no rounding, in any order."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def expose(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every float value of the main graph, as the runtime computes it without optimisation."""
    full = onnx.ModelProto()
    full.CopyFrom(model)
    names = [name for node in full.graph.node for name in node.output if name]
    del full.graph.output[:]
    full.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the others would spin
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        full.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return {**feeds, **dict(zip(names, session.run(None, dict(feeds)), strict=True))}


def mixed_model(*, typed: bool = True) -> onnx.ModelProto:
    """Convolutions with and without Relu and Clip, arithmetic, movements, pooling."""
    rng = np.random.default_rng(3)
    return make_model(
        "[first] a = Conv(x, w1, b1) [second] m = Conv<pads = [1, 1, 1, 1]>(a, w3) c = Relu(m) "
        "[third] n = Conv(c, w1, b1) e = Clip(n, low, high) f = Add(a, e) g = Relu(f) "
        "h = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(g) [last] d = Conv(h, w4) "
        "k = GlobalAveragePool(d) q = Flatten(k) [mm] r = Gemm(q, wg, bg) y = Neg(r)",
        f"{IMAGE} x" if typed else "float[N, C, H, W] x",
        "float[N, 200] y",
        {
            "w1": integers(rng, 24, 24, 1, 1),
            "b1": integers(rng, 24),
            "w3": integers(rng, 24, 24, 3, 3),
            "w4": integers(rng, 24, 24, 1, 1),
            "wg": integers(rng, 24, 200),
            "bg": integers(rng, 200),
            "low": np.float32(-5),
            "high": np.float32(7),
        },
        opset=21,
    )
