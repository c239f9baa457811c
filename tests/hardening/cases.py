"""The backend test cases of onnx, as models with weights.

A case of one operator has no weights: everything that it reads is an input. Here the other float
inputs become initializers, which is what a trained model looks like, and layers are put around it,
which is what a quantizer finds before and behind it.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx.backend.test.case.model as model_package
import onnx.backend.test.case.node as node_package
import onnx.backend.test.loader
from onnx import TensorProto, helper, numpy_helper

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
FLOAT_DTYPES = tuple(np.dtype(one) for one in ("f2", "f4", "f8", ml_dtypes.bfloat16))

LOADED_KINDS = ("simple", "pytorch-converted", "pytorch-operator")
"""Cases that are files in the package of onnx; the other models would be downloaded."""

SAMPLES = 5
LARGEST_CHANNELS = 512


@dataclass(frozen=True)
class Case:
    """One model with inputs for it.

    Attributes:
        name: of the case, with what was made of it in brackets.
        model: in float.
        feeds: by the name of the input; arrays, lists of arrays, or None.
    """

    name: str
    model: onnx.ModelProto
    feeds: dict[str, Any]


def operator_modules() -> tuple[str, ...]:
    """Names of the modules of onnx that make cases of one operator."""
    return tuple(sorted(one.name for one in pkgutil.iter_modules(node_package.__path__)))


@cache
def operator_cases(module: str) -> list[Case]:
    """The cases that importing a module makes: once, with those of modules that it imports."""
    before = len(node_package._NodeTestCases)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(f"{node_package.__name__}.{module}")
    return [_from_onnx(one) for one in node_package._NodeTestCases[before:]]


def model_cases() -> list[Case]:
    """The cases of whole models that come with onnx."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = model_package.collect_testcases()
    cases = [_from_onnx(one) for one in made if one.model is not None]
    for kind in LOADED_KINDS:
        for one in onnx.backend.test.loader.load_model_tests(kind=kind):
            loaded = _load(f"{kind}/{one.name}", Path(one.model_dir))
            if loaded is not None:
                cases.append(loaded)
    return list({one.name: one for one in cases}.values())


def _from_onnx(case: Any) -> Case:
    names = [one.name for one in case.model.graph.input]
    return Case(case.name, case.model, dict(zip(names, case.data_sets[0][0], strict=False)))


def _load(name: str, folder: Path) -> Case | None:
    model = onnx.load(str(folder / "model.onnx"))
    known = {one.name for one in model.graph.initializer}
    values = [one for one in model.graph.input if one.name not in known]
    feeds: dict[str, Any] = {}
    for index, value in enumerate(values):
        if value.type.WhichOneof("value") != "tensor_type":
            return None
        content = (folder / "test_data_set_0" / f"input_{index}.pb").read_bytes()
        feeds[value.name] = numpy_helper.to_array(TensorProto.FromString(content))
    return Case(name, model, feeds)


def is_float(value: Any) -> bool:
    """Whether a feed or a result is a tensor of floats."""
    return isinstance(value, np.ndarray) and value.dtype in FLOAT_DTYPES


def make_variants(case: Case) -> Iterator[Case]:
    """A case with weights, in the ways that its inputs allow; itself where it has them already."""
    floats = [name for name, value in case.feeds.items() if is_float(value)]
    if case.model.graph.initializer or len(case.model.graph.node) > 1 or not floats:
        yield case
        return
    right = freeze_inputs(case, floats[1:], "right") if floats[1:] else case
    yield right
    if floats[1:]:
        yield freeze_inputs(case, floats[:-1], "left")
    between = surround(right, floats[0])
    if between is not None:
        yield between


def freeze_inputs(case: Case, names: Sequence[str], label: str) -> Case:
    """The case with some of its inputs as initializers."""
    model = _copy(case.model)
    kept = [one for one in model.graph.input if one.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(
        numpy_helper.from_array(case.feeds[name], name) for name in names
    )
    feeds = {name: value for name, value in case.feeds.items() if name not in names}
    return Case(f"{case.name}[{label}]", model, feeds)


def surround(case: Case, name: str) -> Case | None:
    """The case with a layer before one input and one behind its first output; None if it cannot be.

    Each is a convolution by kernels of one element, or a product with a matrix for what has no
    channels. Both stay close to the identity, so that the operator gets what it was made for.
    """
    array = case.feeds[name]
    if not _can_be_layer(array.dtype, array.shape) or not case.model.graph.output:
        return None
    model = _copy(case.model)
    rng = np.random.default_rng(20)
    nodes = list(model.graph.node)
    inner = f"{name}__layered"
    for node in nodes:
        node.input[:] = [inner if one == name else one for one in node.input]
    first, weight = _make_layer(rng, name, inner, array.shape)
    model.graph.initializer.append(weight)
    nodes.insert(0, first)
    output = model.graph.output[0]
    tensor = output.type.tensor_type
    shape = tuple(one.dim_value for one in tensor.shape.dim)
    if tensor.elem_type == TensorProto.FLOAT and _can_be_layer(np.float32, shape):
        bare = f"{output.name}__bare"
        for node in nodes:
            node.output[:] = [bare if one == output.name else one for one in node.output]
        last, weight = _make_layer(rng, bare, output.name, shape)
        model.graph.initializer.append(weight)
        nodes.append(last)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return Case(f"{case.name}[between]", model, dict(case.feeds))


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, in a version in which initializers need not be inputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = max(copy.ir_version, 4)
    return copy


def _can_be_layer(dtype: npt.DTypeLike, shape: tuple[int, ...]) -> bool:
    sizes = all(0 < one <= LARGEST_CHANNELS for one in shape)
    return dtype == np.float32 and 2 <= len(shape) <= 5 and sizes


def _make_layer(
    rng: np.random.Generator, source: str, result: str, shape: tuple[int, ...]
) -> tuple[onnx.NodeProto, TensorProto]:
    size = shape[1]
    noise = 0.1 * rng.standard_normal((size, size)) / np.sqrt(size)
    matrix = (np.eye(size) + noise).astype(np.float32)
    name = f"{result}__weight"
    operator = "MatMul" if len(shape) == 2 else "Conv"
    if operator == "Conv":
        matrix = matrix.reshape(size, size, *([1] * (len(shape) - 2)))
    node = helper.make_node(operator, [source, name], [result], name=f"{result}__layer")
    return node, numpy_helper.from_array(matrix, name)


def pad_with_text(case: Case, size: int = 30_000) -> Case:
    """The same model in a file so large that any quantized form is smaller: texts are left out."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.graph.doc_string = "x" * size
    return replace(case, model=model)


def write_samples(case: Case, folder: Path) -> list[dict[str, Any]]:
    """Feeds around those of the case, which are the first, and files of them where that can be."""
    rng = np.random.default_rng(20)
    samples = []
    for index in range(SAMPLES):
        feeds = dict(case.feeds)
        for name, value in feeds.items():
            if is_float(value) and index:
                # Factors keep signs, and so the domain of Log and Sqrt.
                factors = rng.uniform(0.8, 1.2, value.shape)
                with np.errstate(all="ignore"):
                    feeds[name] = np.asarray((value.astype(np.float64) * factors), value.dtype)
        samples.append(feeds)
        np.savez(folder / f"{index}.npz", **{k: v for k, v in feeds.items() if _is_plain(v)})
    return samples


def are_plain(feeds: dict[str, Any]) -> bool:
    """Whether files of samples can hold all of them."""
    return all(map(_is_plain, feeds.values()))


def _is_plain(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
