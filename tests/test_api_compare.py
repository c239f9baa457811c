"""``onnxq.compare`` as a caller uses it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import click
import numpy as np
import pytest

import onnxq
from onnxq.cli import cli
from onnxq.comparison.gates import GATE_RULES
from onnxq.errors import (
    DataError,
    ExecutionError,
    OnnxqError,
    UsageError,
    VerificationError,
)
from onnxq.samples import ImageOptions
from tests.models import float_weight, make_model, matmul_model, save

IMAGE_OPTIONS = {"size", "mean", "std", "scale", "layout", "channels"}
OF_THE_COMMAND = {"as_json", "reports"}


@pytest.fixture
def pair(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Path, Path]:
    """A model, another one with rounded weights, and samples."""
    weight = float_weight(rng, (8, 4))
    folder = tmp_path / "samples"
    folder.mkdir()
    for index in range(3):
        np.savez(folder / f"{index}.npz", x=rng.standard_normal((2, 8)).astype(np.float32))
    rounded = (np.round(weight * 16) / 16).astype(np.float32)
    return (
        save(matmul_model(weight), tmp_path / "a.onnx"),
        save(matmul_model(rounded), tmp_path / "b.onnx"),
        folder,
    )


def test_function_takes_what_the_command_takes() -> None:
    gates = {name.replace("-", "_") for name in GATE_RULES}
    command = cli.commands["compare"]
    options = {str(one.name): one for one in command.params}
    parameters = inspect.signature(onnxq.compare).parameters
    assert gates < set(options)
    assert set(parameters) - {"images", "progress", "gates"} == (
        set(options) - gates - IMAGE_OPTIONS - OF_THE_COMMAND
    )
    context = click.Context(command)
    for name, parameter in parameters.items():
        option = options.get(name)
        if isinstance(option, click.Option):
            default = option.get_default(context)
            given = default if isinstance(default, str | bool | int | float) else None
            assert (given or None) == (parameter.default or None), name


def test_every_parameter_is_documented() -> None:
    documentation = onnxq.compare.__doc__
    assert documentation
    for name in inspect.signature(onnxq.compare).parameters:
        assert f"{name}:" in documentation


def test_result_is_plain_values(pair: tuple[Path, Path, Path]) -> None:
    report = onnxq.compare(*map(str, pair), layers=True, rounds=3, gates={"min-sqnr": 20.0})
    assert report.is_passed
    assert report.samples == 3
    (output,) = report.outputs
    assert output.sqnr_db is not None
    assert report.gates[0].reached == output.sqnr_db
    assert report.layers[0].added_sqnr_db == pytest.approx(output.sqnr_db, abs=0.01)
    assert report.latency is not None
    json.dumps(report.to_json(), allow_nan=False)


def test_gate_that_is_not_met_is_no_error(pair: tuple[Path, Path, Path]) -> None:
    report = onnxq.compare(*pair, latency=False, gates={"min-sqnr": 150.0, "max-size-ratio": 1.1})
    assert [gate.is_met for gate in report.gates] == [False, True]
    assert not report.is_passed


def test_images_take_the_options_of_the_command() -> None:
    assert set(inspect.signature(ImageOptions).parameters) == IMAGE_OPTIONS


def test_progress_is_told_of_both_passes(pair: tuple[Path, Path, Path]) -> None:
    seen: list[str] = []

    def progress(label: str):  # type: ignore[no-untyped-def]
        seen.append(label)
        return lambda items, _count: items

    onnxq.compare(*pair, latency=False, layers=True, progress=progress)
    assert seen == ["comparing", "comparing layers"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"gates": {"min-speed": 1.0}}, UsageError),
        ({"gates": {"min-sqnr": float("inf")}}, UsageError),
        ({"data": None}, UsageError),
        ({"metric": "nothing"}, UsageError),
        ({"data": "none"}, DataError),
        ({"labels": "none.json"}, DataError),
        ({"float_model": "none.onnx"}, ExecutionError),
        ({"quantized_model": "none.onnx"}, ExecutionError),
    ],
    ids=str,
)
def test_errors(
    change: dict[str, object], kind: type[OnnxqError], pair: tuple[Path, Path, Path]
) -> None:
    arguments = dict(zip(("float_model", "quantized_model", "data"), pair, strict=True)) | change
    with pytest.raises(kind) as caught:
        onnxq.compare(**arguments, latency=False)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_model_that_does_not_belong(pair: tuple[Path, Path, Path]) -> None:
    a, b, data = pair
    weight = np.ones((8, 4), np.float32)
    save(make_model("z = MatMul(x, w)", "float[N, 8] x", "float[N, 4] z", {"w": weight}), b)
    with pytest.raises(VerificationError, match="has no output 'y'"):
        onnxq.compare(a, b, data, latency=False)
