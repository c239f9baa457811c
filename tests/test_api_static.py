"""``onnxq.quantize_static`` as a caller uses it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import click
import numpy as np
import onnx
import pytest

import onnxq
from onnxq.cli import cli
from onnxq.errors import (
    AlreadyQuantizedError,
    DataError,
    NothingToQuantizeError,
    OutputError,
    UsageError,
)
from tests.apply.calibrated_models import MODELS, images, save_samples
from tests.models import make_model, save, save_external

IMAGE_OPTIONS = {"size", "mean", "std", "scale", "layout", "channels"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_samples(images(), tmp_path / "samples")
    return save(MODELS["Conv-Relu"].build(), tmp_path / "net.onnx")


def test_function_takes_what_the_command_takes() -> None:
    options = {one.name: one for one in cli.commands["static"].params if one.name != "as_json"}
    parameters = inspect.signature(onnxq.quantize_static).parameters
    assert set(parameters) - {"images", "progress"} == set(options) - IMAGE_OPTIONS
    context = click.Context(cli.commands["static"])
    for name, option in options.items():
        if isinstance(option, click.Option) and name not in IMAGE_OPTIONS:
            default = option.get_default(context)
            given = default if isinstance(default, str | bool | int | float) else None
            assert (given or None) == (parameters[name].default or None)


def test_image_options_are_those_of_the_command() -> None:
    from onnxq.samples import ImageOptions

    assert set(inspect.signature(ImageOptions).parameters) == IMAGE_OPTIONS


def test_every_parameter_is_documented() -> None:
    documentation = onnxq.quantize_static.__doc__
    assert documentation
    for name in inspect.signature(onnxq.quantize_static).parameters:
        assert f"{name}:" in documentation


def test_default_name(source: Path) -> None:
    result = onnxq.quantize_static(source, source.parent / "samples")
    assert result.output == source.with_name("net.static.onnx")
    assert result.size_bytes == result.output.stat().st_size
    names = {one.name for one in source.parent.iterdir()}
    assert names == {"net.onnx", "net.static.onnx", "samples"}


def test_paths_may_be_texts(source: Path) -> None:
    folder = source.parent
    result = onnxq.quantize_static(
        str(source),
        str(folder / "samples"),
        str(folder / "out.onnx"),
        save_ranges=str(folder / "ranges.json"),
    )
    assert result.output == folder / "out.onnx"
    assert (folder / "ranges.json").is_file()


def test_result_is_plain_data_too(source: Path) -> None:
    result = onnxq.quantize_static(source, source.parent / "samples")
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert data["mode"] == "static"
    assert data["written"] is True
    calibration = data["calibration"]
    assert calibration["samples"] == 5
    assert calibration["held_back"] == 1
    assert calibration["method"] in ("minmax", "percentile", "mse")
    assert [one["method"] for one in calibration["candidates"]] == ["minmax", "percentile", "mse"]
    assert {one["tensor"] for one in calibration["ranges"]} == {"x", "a", "c", "d"}


@pytest.mark.parametrize("external", [False, True], ids=["one-file", "external-data"])
def test_nothing_of_the_user_is_modified(external: bool, source: Path) -> None:
    if external:
        save_external(MODELS["Conv-Relu"].build(), source)
    folder = source.parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    onnxq.quantize_static(source, folder / "samples")
    for path, content in before.items():
        assert path.read_bytes() == content


def test_dry_run_reads_no_sample_and_writes_nothing(source: Path) -> None:
    folder = source.parent
    for path in (folder / "samples").iterdir():
        path.write_bytes(b"no sample")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    planned = onnxq.quantize_static(
        source, folder / "samples", dry_run=True, save_ranges=folder / "ranges.json"
    )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert (planned.size_bytes, planned.verification, planned.calibration) == (None, None, None)
    save_samples(images(), folder / "samples")
    assert onnxq.quantize_static(source, folder / "samples").plan == planned.plan


def test_reader_is_not_called_by_a_dry_run(source: Path) -> None:
    reader = source.with_name("reader_that_fails.py")
    reader.write_text("def samples():\n    raise RuntimeError('called')\n")
    onnxq.quantize_static(source, reader=f"{reader}:samples", dry_run=True)
    with pytest.raises(DataError, match="called"):
        onnxq.quantize_static(source, reader=f"{reader}:samples")


def test_in_place(source: Path) -> None:
    other = onnxq.quantize_static(source, source.parent / "samples").output.read_bytes()
    result = onnxq.quantize_static(source, source.parent / "samples", in_place=True)
    assert result.output == source
    assert source.read_bytes() == other
    assert {one.name for one in source.parent.iterdir()} == {
        "net.onnx",
        "net.static.onnx",
        "samples",
    }
    with pytest.raises(AlreadyQuantizedError):
        onnxq.quantize_static(source, source.parent / "samples", force=True)


def test_existing_output_needs_force(source: Path) -> None:
    first = onnxq.quantize_static(source, source.parent / "samples").output.read_bytes()
    with pytest.raises(OutputError, match="--force replaces it"):
        onnxq.quantize_static(source, source.parent / "samples")
    again = onnxq.quantize_static(source, source.parent / "samples", force=True)
    assert again.output.read_bytes() == first


def test_in_place_beside_an_output_is_refused(source: Path) -> None:
    with pytest.raises(UsageError, match="--in-place"):
        onnxq.quantize_static(
            source, source.parent / "samples", source.with_name("o.onnx"), in_place=True
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "best"}, "no method is called 'best'; known methods: minmax"),
        ({"method": "percentile", "percentile": 40}, "--percentile 40: give a number above 50"),
        ({"method": "percentile", "percentile": float("nan")}, "percentile"),
        ({"activations": "uint2"}, "no activation type is called 'uint2'; known types: uint8"),
        ({"weights": "int3"}, "no weight type is called 'int3'"),
        ({"weights": "fp16"}, "--weights fp16 cannot be calibrated"),
        ({"target": "gpu"}, "known targets: ort-cpu, onnx"),
        ({"samples": 0}, "--samples 0: give 1 or more"),
        ({"exclude": ["nothing*"]}, "'nothing\\*' matches no node"),
        ({"reader": "json:loads"}, "--reader: give one of"),
    ],
    ids=lambda one: one if isinstance(one, str) else ",".join(one),
)
def test_wrong_calls_are_refused_before_any_work(
    options: dict[str, object], message: str, source: Path
) -> None:
    before = sorted(source.parent.rglob("*"))
    with pytest.raises(UsageError, match=message):
        onnxq.quantize_static(source, source.parent / "samples", **options)  # type: ignore[arg-type]
    assert sorted(source.parent.rglob("*")) == before


@pytest.mark.parametrize("percentile", [40, 0, 101, float("nan")])
def test_percentile_out_of_range_is_refused_for_every_method(
    percentile: float, source: Path
) -> None:
    """Auto tries the percentile method too."""
    with pytest.raises(UsageError, match="percentile"):
        onnxq.quantize_static(source, source.parent / "samples", percentile=percentile)
    assert {one.name for one in source.parent.iterdir()} == {"net.onnx", "samples"}


def test_no_samples_at_all_is_an_error(source: Path) -> None:
    with pytest.raises(UsageError, match="--calib DIR or --reader"):
        onnxq.quantize_static(source)


def test_nothing_to_quantize(tmp_path: Path) -> None:
    save_samples(images(), tmp_path / "samples")
    model = make_model("y = Relu(x)", "float[N, 24, 8, 8] x", "float[N, 24, 8, 8] y", {})
    with pytest.raises(NothingToQuantizeError, match="nothing to quantize"):
        onnxq.quantize_static(save(model, tmp_path / "net.onnx"), tmp_path / "samples")


def test_same_bytes_twice(source: Path) -> None:
    folder = source.parent
    outputs = [
        onnxq.quantize_static(source, folder / "samples", folder / f"{index}.onnx").output
        for index in range(2)
    ]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_progress_is_shown_for_each_step(source: Path) -> None:
    seen: list[tuple[str, int | None, int]] = []

    def progress(label: str):
        def track(things, total):
            given = list(things)
            seen.append((label, total, len(given)))
            return given

        return track

    onnxq.quantize_static(source, source.parent / "samples", accuracy="fast", progress=progress)
    assert seen == [("calibrating", 5, 5), ("choosing ranges", 1, 1), ("comparing", 1, 1)]


@pytest.mark.parametrize("keep", [True, False])
def test_debugging_texts_are_kept_on_demand(keep: bool, source: Path) -> None:
    model = MODELS["Conv-Relu"].build()
    model.graph.node[0].doc_string = "traced from here"
    save(model, source)
    output = onnxq.quantize_static(
        source, source.parent / "samples", keep_metadata=keep, exclude=["first"]
    ).output
    (node,) = (one for one in onnx.load(str(output)).graph.node if one.name == "first")
    assert node.doc_string == ("traced from here" if keep else "")


def test_feeds_of_the_wrong_shape_are_named(source: Path) -> None:
    folder = source.parent
    np.savez(folder / "samples" / "sample_002.npz", x=np.zeros((1, 24, 9, 8), np.float32))
    with pytest.raises(DataError, match=r"sample_002.npz.*expected.*--skip-bad") as found:
        onnxq.quantize_static(source, folder / "samples")
    assert "float32[1, 24, 9, 8]" in str(found.value)
    assert {one.name for one in folder.iterdir()} == {"net.onnx", "samples"}
    result = onnxq.quantize_static(source, folder / "samples", skip_bad=True)
    assert result.calibration is not None
    assert len(result.calibration.skipped) == 1
    assert "sample_002.npz" in result.calibration.skipped[0]
