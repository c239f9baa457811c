"""The functions of the package, as its commands call them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnx
import pytest

import onnxq
from onnxq.cli import cli
from onnxq.cli.options import IMAGE_NAMES
from onnxq.errors import AlreadyQuantizedError, OnnxqError, OutputError, UsageError
from onnxq.pipelines import QuantizationResult, default_output
from onnxq.plan import parse_weight_type
from tests.models import float_weight, make_model, save, save_external


def build() -> onnx.ModelProto:
    return make_model(
        "[one] h = MatMul(x, w) [two] y = MatMul(h, u)",
        "float[batch, 96] x",
        "float[batch, 48] y",
        {
            "w": float_weight(np.random.default_rng(0), (96, 64)),
            "u": float_weight(np.random.default_rng(1), (64, 48)),
        },
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(build(), tmp_path / "net.onnx")


def test_public_names_exist() -> None:
    for name in onnxq.__all__:
        assert getattr(onnxq, name)


@pytest.mark.parametrize("command", ["dynamic", "inspect"])
def test_function_takes_what_the_command_takes(command: str) -> None:
    function = {"dynamic": onnxq.quantize_dynamic, "inspect": onnxq.inspect}[command]
    options = {one.name: one for one in cli.commands[command].params if one.name != "as_json"}
    parameters = inspect.signature(function).parameters
    images = set(IMAGE_NAMES) if command == "dynamic" else set()
    others = {"images", "progress"} if command == "dynamic" else set()
    assert set(parameters) == (set(options) - images) | others
    context = click.Context(cli.commands[command])
    for name, option in options.items():
        if isinstance(option, click.Option) and name in parameters:
            default = option.get_default(context)
            given = default if isinstance(default, str | bool) else None
            expected = parameters[name].default
            # Flags that are off and lists that are empty have no default of their own in click.
            assert (given or None) == (expected or None)


def test_every_parameter_is_documented() -> None:
    for function in (onnxq.quantize_dynamic, onnxq.inspect):
        documentation = function.__doc__
        assert documentation
        if "Args:" in documentation:
            for name in inspect.signature(function).parameters:
                assert f"{name}:" in documentation


@pytest.mark.parametrize("weights", ["int8", "uint8", "int4", "uint4", "fp16", "bf16"])
def test_default_name_follows_the_type(weights: str, source: Path) -> None:
    result = onnxq.quantize_dynamic(source, weights=weights)
    assert result.output == source.with_name(f"net.{weights}.onnx")
    assert result.size_bytes == result.output.stat().st_size
    assert {one.name for one in source.parent.iterdir()} == {f"net.{weights}.onnx", "net.onnx"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net.onnx", "net.int8.onnx"),
        ("net.v2.onnx", "net.v2.int8.onnx"),
        ("net", "net.int8.onnx"),
        ("deep/net.onnx", "deep/net.int8.onnx"),
    ],
)
def test_default_name_of_any_path(name: str, expected: str) -> None:
    assert default_output(Path(name), "int8") == Path(expected)


def test_result_is_plain_data_too(source: Path) -> None:
    result = onnxq.quantize_dynamic(source)
    assert isinstance(result, QuantizationResult)
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert data["written"] is True
    assert [one["tensor"] for one in data["plan"]["tensors"]] == ["w", "u"]


def test_paths_may_be_texts(source: Path, tmp_path: Path) -> None:
    result = onnxq.quantize_dynamic(str(source), str(tmp_path / "out.onnx"))
    assert result.output == tmp_path / "out.onnx"


def test_source_is_not_touched(source: Path) -> None:
    before = source.read_bytes()
    onnxq.quantize_dynamic(source)
    assert source.read_bytes() == before


def test_dry_run_plans_the_same_and_writes_nothing(source: Path) -> None:
    planned = onnxq.quantize_dynamic(source, dry_run=True)
    assert [one.name for one in source.parent.iterdir()] == ["net.onnx"]
    assert (planned.size_bytes, planned.verification) == (None, None)
    assert onnxq.quantize_dynamic(source).plan == planned.plan


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"include": ["one"]}, {"u"}),
        ({"exclude": ["one"]}, {"w"}),
        ({"exclude": ["t?o"]}, {"u"}),
        ({"op_types": ["MatMul"]}, set()),
        ({"storage": False}, {"u"}),
    ],
    ids=["include", "exclude", "glob", "op-types", "no-storage"],
)
def test_selection(options: dict[str, object], kept: set[str], source: Path) -> None:
    result = onnxq.quantize_dynamic(source, **options)  # type: ignore[arg-type]
    left = {one.name for one in result.plan.tensors if one.scheme is None}
    assert left == kept
    names = {one.name for one in onnx.load(str(result.output)).graph.initializer}
    assert kept <= names
    assert {"w", "u"} & names == kept


def test_existing_output_needs_force(source: Path) -> None:
    first = onnxq.quantize_dynamic(source).output.read_bytes()
    with pytest.raises(OutputError, match="--force replaces it"):
        onnxq.quantize_dynamic(source)
    assert onnxq.quantize_dynamic(source, force=True).output.read_bytes() == first


def test_output_behind_a_link_replaces_the_file_not_the_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "out.onnx"
    target.write_text("old")
    link = tmp_path / "link.onnx"
    link.symlink_to(target)
    onnxq.quantize_dynamic(source, link, force=True)
    assert link.is_symlink()
    onnx.checker.check_model(str(target))
    assert [one.name for one in target.parent.iterdir()] == ["out.onnx"]


def test_second_layer_is_refused(source: Path) -> None:
    first = onnxq.quantize_dynamic(source).output
    with pytest.raises(AlreadyQuantizedError):
        onnxq.quantize_dynamic(first, weights="fp16")


def test_external_data_stays_external(tmp_path: Path) -> None:
    source = save_external(build(), tmp_path / "net.onnx")
    result = onnxq.quantize_dynamic(source)
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names == ["net.int8.onnx", "net.int8.onnx.data", "net.onnx", "weights.bin"]
    data = tmp_path / "net.int8.onnx.data"
    assert result.size_bytes == result.output.stat().st_size + data.stat().st_size
    assert result.verification is not None
    assert result.verification.samples == 1
    inside = onnxq.quantize_dynamic(save(build(), tmp_path / "whole.onnx"))
    for one, other in zip(
        onnx.load(str(result.output)).graph.initializer,
        onnx.load(str(inside.output)).graph.initializer,
        strict=True,
    ):
        np.testing.assert_array_equal(
            onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other)
        )


def test_external_data_of_the_input_is_not_overwritten(tmp_path: Path) -> None:
    source = save_external(build(), tmp_path / "net.onnx", location="out.onnx.data")
    before = (tmp_path / "out.onnx.data").read_bytes()
    with pytest.raises(OutputError, match="holds weights of the input model"):
        onnxq.quantize_dynamic(source, tmp_path / "out.onnx", force=True)
    assert (tmp_path / "out.onnx.data").read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["net.onnx", "out.onnx.data"]


@pytest.mark.parametrize("keep", [True, False])
def test_debugging_texts_are_kept_on_demand(keep: bool, tmp_path: Path) -> None:
    model = build()
    model.graph.node[0].doc_string = "traced from here"
    source = save(model, tmp_path / "net.onnx")
    output = onnxq.quantize_dynamic(source, exclude=["one"], keep_metadata=keep).output
    (node,) = (one for one in onnx.load(str(output)).graph.node if one.name == "one")
    assert node.doc_string == ("traced from here" if keep else "")


def test_same_bytes_twice(source: Path, tmp_path: Path) -> None:
    outputs = [
        onnxq.quantize_dynamic(source, tmp_path / f"{index}.onnx").output for index in range(2)
    ]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


@pytest.mark.parametrize("name", ["int3", "INT8", ""])
def test_unknown_type_is_refused(name: str, source: Path) -> None:
    with pytest.raises(UsageError, match="known types: int8, uint8, int4, uint4, int16"):
        onnxq.quantize_dynamic(source, weights=name)
    with pytest.raises(UsageError):
        parse_weight_type(name)


def test_unknown_target_is_refused(source: Path) -> None:
    with pytest.raises(UsageError, match="known targets: ort-cpu, onnx"):
        onnxq.quantize_dynamic(source, target="gpu")
    with pytest.raises(UsageError, match="known targets"):
        onnxq.inspect(source, target="gpu")


def test_every_error_is_one_family_with_an_exit_code() -> None:
    from onnxq import errors

    kinds = [
        one
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, OnnxqError)
    ]
    assert len(kinds) > 10
    for kind in kinds:
        assert kind.exit_code in (1, 2, 3)
        assert f"{kind.__name__:<22} {kind.exit_code}".split() == _documented(kind.__name__)
        assert str(kind("two\n  lines")) == "two lines"


def _documented(name: str) -> list[str]:
    """The row of an error in the tree at the top of its module."""
    from onnxq import errors

    assert errors.__doc__
    for line in errors.__doc__.splitlines():
        words = [word for word in line.split() if word not in ("|", "+--")]
        if words and words[0] == name:
            return words[:2]
    raise AssertionError(f"{name} is not in the tree of errors")


@pytest.mark.parametrize(
    "call",
    [
        lambda: onnxq.quantize_dynamic(""),
        lambda: onnxq.quantize_static("", "samples"),
        lambda: onnxq.quantize_dynamic("m.onnx", ""),
        lambda: onnxq.compare("", "q.onnx", "samples"),
        lambda: onnxq.compare("m.onnx", "", "samples"),
        lambda: onnxq.inspect(""),
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    call: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "samples").mkdir()
    np.savez(tmp_path / "samples" / "0.npz", x=np.ones(3, np.float32))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="a path is empty"):
        call()
