"""The plans of the sample models, as text files that show in a diff what a change does.

After a change that is meant, write them anew and read the diff:

    ONNXQ_UPDATE_GOLDEN=1 pytest tests/plan/test_golden.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from onnxq.pipelines import open_float_model, plan_with_opset
from onnxq.plan import DynamicOptions, StaticOptions, parse_weight_type, plan_dynamic, plan_static
from onnxq.targets import find_target

GOLDEN = Path(__file__).with_name("golden")
UPDATE = "ONNXQ_UPDATE_GOLDEN"

targets = pytest.mark.parametrize("target", ["ort-cpu", "onnx"])
models = pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "transformer"])


def _render_tensor(tensor: dict[str, Any]) -> list[str]:
    shape = "x".join(map(str, tensor["shape"]))
    decision = [tensor["form"], tensor["scheme"] or "as it is"]
    if tensor["expected_sqnr_db"] is not None:
        decision.append(f"{tensor['expected_sqnr_db']:.1f} dB")
    lines = [
        f"{tensor['tensor']}  {tensor['dtype']} {shape}, {tensor['size_bytes']} bytes",
        f"    {', '.join(decision)}",
    ]
    if tensor["reason"]:
        lines.append(f"    because: {tensor['reason']}")
    for use in tensor["uses"]:
        why = f" ({use['reason']})" if use["reason"] else ""
        lines.append(f"    read by {use['operator']} '{use['node']}': {use['form']}{why}")
    return lines


def _render_calibration(decisions: dict[str, Any]) -> list[str]:
    return [
        *(
            f"calibrated: {node['operator']} '{node['node']}' gives {node['output']}"
            for node in decisions["nodes"]
        ),
        *(
            f"activation: '{one['tensor']}' {one['type']}, {one['members']} tensors"
            for one in decisions["activations"]
        ),
        *(
            f"float: {node['operator']} '{node['node']}': {node['reason']}"
            for node in decisions["skipped_nodes"]
        ),
    ]


def _render(plan: dict[str, Any], opset: int) -> str:
    lines = [f"{plan['mode']} for {plan['target']}, opset {opset}", ""]
    for tensor in plan["tensors"]:
        lines += [*_render_tensor(tensor), ""]
    lines += [
        f"skipped: {node['operator']} '{node['node']}': {node['reason']}"
        for node in plan["skipped_nodes"]
    ]
    lines.append(f"ignored: {plan['ignored_tensors']} tensors, {plan['ignored_bytes']} bytes")
    if "calibration" in plan:
        lines += ["", *_render_calibration(plan["calibration"])]
    return "\n".join(lines) + "\n"


@targets
@pytest.mark.parametrize("weights", ["int8", "int4", "fp16"])
@models
def test_plan_is_the_one_on_record(
    sample_models: Path, name: str, weights: str, target: str
) -> None:
    options = DynamicOptions(weights=parse_weight_type(weights))
    path = sample_models / f"{name}.onnx"
    file, selection = open_float_model(path, options, keep_metadata=False)
    chosen = find_target(target)
    model, plan, _ = plan_with_opset(
        file, chosen, lambda one, nodes: plan_dynamic(one, chosen, options, nodes), selection
    )
    text = _render(plan.to_json(), model.opset_imports[""])
    _compare(text, GOLDEN / f"{name}.{weights}.{target}.txt")


@targets
@models
def test_static_plan_is_the_one_on_record(sample_models: Path, name: str, target: str) -> None:
    options = StaticOptions()
    path = sample_models / f"{name}.onnx"
    file, selection = open_float_model(path, options.uncalibrated, keep_metadata=False)
    chosen = find_target(target)
    model, plan, _ = plan_with_opset(
        file, chosen, lambda one, nodes: plan_static(one, chosen, options, nodes), selection
    )
    text = _render(plan.to_json(), model.opset_imports[""])
    _compare(text, GOLDEN / f"{name}.static.{target}.txt")


def _compare(text: str, golden: Path) -> None:
    if os.environ.get(UPDATE):
        golden.write_text(text)
    assert text == golden.read_text(), f"if this change is meant: {UPDATE}=1 pytest tests/plan"
