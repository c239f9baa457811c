"""Recipes for tests: a plan and the ranges that samples have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from onnxq.algorithms.recipe import Recipe
from onnxq.algorithms.sweep import sweep
from onnxq.algorithms.visits import Visit
from onnxq.calibration import add_probes, choose_ranges, observe, write_probed
from onnxq.plan import StaticOptions, parse_weight_type
from onnxq.plan.planner import StaticPlanner
from onnxq.plan.selection import select_nodes
from onnxq.runtime.session import Session
from onnxq.samples import Sample
from onnxq.targets import Target
from tests.models import to_ir
from tests.plan.planning import ORT

Array = npt.NDArray[Any]
Feeds = dict[str, Array]


def make_recipe(
    model: onnx.ModelProto,
    samples: Sequence[Feeds],
    folder: Path,
    *,
    weights: str = "int8",
    target: Target = ORT,
    **options: Any,
) -> Recipe:
    """A recipe with the extremes of the samples as ranges."""
    asked = StaticOptions(weights=parse_weight_type(weights), **options)
    loaded = to_ir(model)
    planner = StaticPlanner(
        model=loaded, target=target, options=asked, selection=select_nodes(loaded)
    )
    plan = planner.plan()
    activations = plan.decisions.activations
    if not activations:
        return Recipe(planner=planner, plan=plan, ranges={})
    probed = add_probes(planner.model, activations, sampled=False)
    session = Session(write_probed(probed, folder), lean=True)
    read = [Sample(str(at), feeds) for at, feeds in enumerate(samples)]
    found = observe(session, probed.probes, read).by_value
    return Recipe(planner=planner, plan=plan, ranges=choose_ranges(activations, found, "minmax"))


def run_sweep(
    recipe: Recipe, samples: Sequence[Feeds], visit: Visit, folder: Path, **options: Any
) -> Recipe:
    """One sweep, with folders of its own."""
    work, results = folder / "sweep", folder / "tuned"
    work.mkdir()
    results.mkdir(exist_ok=True)
    (found,) = sweep(
        recipe, samples, {"one": visit}, folder=work, results=results, track=pass_through, **options
    ).values()
    return found


def pass_through(items: Iterable[Any], _count: int | None) -> Iterable[Any]:
    return items


def run_exactly(model: onnx.ModelProto, feeds: Feeds, names: Sequence[str]) -> list[Array]:
    """Run without optimisation, so that no kernel on integers is used."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the others would spin
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [np.asarray(one) for one in session.run(list(names), feeds)]
