"""Every operator of the engine against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

torch = pytest.importorskip("torch")

from onnxq.training.operators import MICROSOFT as MICROSOFT_DOMAIN  # noqa: E402
from onnxq.training.operators import OPERATORS  # noqa: E402
from tests.training import layer_cases, operator_cases  # noqa: E402
from tests.training.engine import assert_equal, run_both  # noqa: E402
from tests.training.operator_cases import Array, Case  # noqa: E402

CASES = (
    *operator_cases.UNARY,
    *operator_cases.BINARY,
    *operator_cases.MOVEMENT,
    *operator_cases.REDUCTIONS,
    *layer_cases.CONVOLUTIONS,
    *layer_cases.PRODUCTS,
    *layer_cases.NORMALIZATIONS,
    *layer_cases.POOLINGS,
    *layer_cases.RESIZES,
    *layer_cases.RECURRENCES,
    *layer_cases.INTEGERS,
    *layer_cases.MICROSOFT,
)


def build(case: Case, constants: dict[str, Array], feeds: dict[str, Array]) -> onnx.ModelProto:
    text = (
        f'<ir_version: 10, opset_import: ["" : {case.opset}, "{MICROSOFT_DOMAIN}" : 1]>'
        f"main () => () {{ {case.nodes} }}"
    )
    model = parser.parse_model(text)
    graph = model.graph
    for name, array in feeds.items():
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(helper.make_tensor_value_info(name, dtype, array.shape))
    graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in constants.items())
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in case.outputs)
    return model


def draw(case: Case, rng: np.random.Generator) -> tuple[dict[str, Array], dict[str, Array]]:
    constants = {name: one(rng) for name, one in case.constants.items()}
    return constants, {name: one(rng) for name, one in case.inputs.items()}


def names_of(nodes: Any) -> set[tuple[str, str]]:
    found = set()
    for node in nodes:
        found.add((node.domain, node.op_type))
        for attribute in node.attribute:
            found |= names_of(attribute.g.node)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_operator_gives_what_onnxruntime_gives(
    case: Case, tmp_path: Path, rng: np.random.Generator
) -> None:
    constants, feeds = draw(case, rng)
    for expected, measured in run_both(build(case, constants, feeds), feeds, tmp_path):
        assert_equal(expected, measured)


def test_every_operator_has_a_case(rng: np.random.Generator) -> None:
    covered = set()
    for case in CASES:
        covered |= names_of(build(case, *draw(case, rng)).graph.node)
    assert set(OPERATORS) - covered == set()
