from __future__ import annotations

from pathlib import Path

import pytest

from onnxq.pipelines import Budget
from onnxq.plan import DynamicOptions, StaticOptions
from onnxq.runs import PipelineFileError, read_pipeline
from onnxq.runs.keys import BUDGET_KEYS, KEYS, Kind
from onnxq.schemes import ActivationType, WeightType
from tests.runs.pipelines import write_pipeline


def mistakes(folder: Path, text: str) -> list[str]:
    path = write_pipeline(folder, text)
    with pytest.raises(PipelineFileError) as caught:
        read_pipeline(path)
    assert all(line.startswith(f"{path}:") for line in caught.value.lines)
    return [line.removeprefix(f"{path}:") for line in caught.value.lines]


def test_paths_and_defaults(tmp_path: Path) -> None:
    pipeline = read_pipeline(write_pipeline(tmp_path))
    first, second = pipeline.jobs
    assert (first.name, first.key, first.mode) == ("a", "a.int8.onnx", "dynamic")
    assert first.evaluation is None and first.calibration is None
    assert second.evaluation is not None
    assert second.evaluation.samples.folder == Path("eval")
    assert second.evaluation.options.limits == {"min-sqnr": 30.0}
    assert pipeline.lock_path == tmp_path / "onnxq.lock"
    assert pipeline.folder == tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [("", None), ("reduce_range = true", True), ("reduce_range = false", False)],
    ids=["by-processor", "7-bit", "8-bit"],
)
@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_bits_of_weights(mode: str, line: str, expected: bool | None, tmp_path: Path) -> None:
    text = f'[[model]]\nsource = "a.onnx"\nmode = "{mode}"\n{line}\n'
    text += 'calib = "eval"\n' if mode == "static" else ""
    (job,) = read_pipeline(write_pipeline(tmp_path, text)).jobs
    assert job.options.reduce_range is expected


def test_every_option_arrives(tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text("")
    (tmp_path / "ranges.json").write_text("")
    text = """
[[model]]
name = "one"
source = "a.onnx"
output = "out/deep/a.onnx"
mode = "static"
target = "onnx"
weights = "uint8"
per-channel = false
symmetric = true
reduce_range = true
storage = false
include = ["a*", "b*"]
exclude = "c"
op-types = "Conv, Gemm"
keep_metadata = true
reader = "reader.py:samples"
samples = 7
seed = 3
skip_bad = true
size = "8x9"
mean = [0.1, 1, 2]
std = 0.5
scale = 2
layout = "nhwc"
channels = "bgr"
method = "percentile"
percentile = 99
ranges = "ranges.json"
save_ranges = "made/r.json"
activations = "int8"
symmetric_activations = true
dynamic_matmul = true
format = "qoperator"
eval = "eval"
eval_samples = 4
labels = "ranges.json"
metric = "mine:rate"
layers = true
latency = false
threads = 2
rounds = 5
report = ["r.json", "r.md"]
gates = { min_accuracy = 7.5 }
"""
    text = text.replace('weights = "uint8"', 'weights = "int8"')
    (job,) = read_pipeline(write_pipeline(tmp_path, text)).jobs
    options = job.options
    assert isinstance(options, StaticOptions)
    assert (options.weights, options.activations.type) == (WeightType.INT8, ActivationType.INT8)
    assert options.activations.symmetric and options.symmetric_weights is True
    assert (options.per_channel, options.reduce_range, options.storage) == (False, True, False)
    assert options.dynamic_matmul is True and options.writes_operators
    assert (options.include, options.exclude) == (("a*", "b*"), ("c",))
    assert options.op_types == ("Conv", "Gemm")
    assert (job.name, job.output, job.target) == ("one", Path("out/deep/a.onnx"), "onnx")
    assert job.keep_metadata
    calibration, evaluation = job.calibration, job.evaluation
    assert calibration is not None and calibration.samples is not None
    assert (calibration.options.method, calibration.options.percentile) == ("percentile", 99.0)
    assert (calibration.load, calibration.save) == (Path("ranges.json"), Path("made/r.json"))
    samples = calibration.samples.options
    assert (samples.limit, samples.seed, samples.skip_bad) == (7, 3, True)
    assert samples.images is not None
    assert (samples.images.size, samples.images.mean) == ((8, 9), (0.1, 1.0, 2.0))
    assert (samples.images.std, samples.images.scale) == ((0.5,), 2.0)
    assert (samples.images.layout, samples.images.channels) == ("nhwc", "bgr")
    assert evaluation is not None and evaluation.samples.options.limit == 4
    measured = evaluation.options
    assert (measured.labels, measured.metric) == (Path("ranges.json"), "mine:rate")
    assert (measured.layers, measured.latency) == (True, False)
    assert (measured.threads, measured.rounds) == (2, 5)
    assert measured.limits == {"min-accuracy": 7.5}  # a metric of the user need not be a share
    assert evaluation.reports == (Path("r.json"), Path("r.md"))


def test_defaults_of_the_other_mode_do_not_count(tmp_path: Path) -> None:
    text = """
[defaults]
mode = "static"
calib = "eval"
activations = "uint8"
block_size = 64
[defaults.gates]
min_sqnr = 30
min_cosine = 0.9
[[model]]
source = "a.onnx"
mode = "dynamic"
weights = "uint4"
[[model]]
source = "b.onnx"
eval = "eval"
gates = { min_sqnr = 40 }
"""
    first, second = read_pipeline(write_pipeline(tmp_path, text)).jobs
    assert isinstance(first.options, DynamicOptions) and first.options.block_size == 64
    assert first.evaluation is None
    assert isinstance(second.options, StaticOptions)
    assert second.output == Path("b.static.onnx")
    assert second.evaluation is not None
    assert second.evaluation.options.limits == {"min-sqnr": 40.0, "min-cosine": 0.9}


def test_all_mistakes_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """models = 1
[defaults]
mode = "dynamic"
source = "x.onnx"
[defaults.gates]
min_sqrn = 3
[[model]]
source = "none.onnx"
per-channel = "yes"
per_channel = true
calib = "eval"
labels = "l.json"
[[model]]
source = "a.onnx"
mode = "static"
weights = "int16"
samples = 0
eval = "eval"
report = ["a.md", "b.txt"]
[model.gates]
min-agreement = 200
max_latency_ms = inf
[[model]]
output = "b.onnx"
source = "b.onnx"
wieghts = "int8"
eval = "none"
metric = "nothing"
[[model]]
mode = "foo"
"""
    found = mistakes(tmp_path, text)
    expected = [
        (1, "models: no such table"),
        (4, "source: belongs to one model"),
        (6, "min_sqrn: no such gate; there are min_sqnr"),
        (8, "source: none.onnx: no such file"),
        (9, "per-channel = 'yes': give true or false"),
        (11, "calib: is for static"),
        (12, "labels: l.json: no such file"),
        (12, "labels: needs eval"),
        (15, "calib: is missing"),
        (16, "--weights int16: target 'ort-cpu' has no fast kernel"),
        (17, "samples = 0: give a whole number of 1 or more"),
        (19, "b.txt: unknown kind of report"),
        (21, "--min-agreement 200.0: is no share"),
        (22, "--max-latency-ms inf: is no limit"),
        (24, "output: b.onnx is the source of 'b'"),
        (26, "wieghts: no such key; did you mean weights?"),
        (27, "eval: none: no such folder"),
        (28, "metric: nothing: give module:function"),
        (29, "source: is missing"),
        (30, "mode: 'foo' is no mode"),
    ]
    assert [int(line.split(":")[0]) for line in found] == [line for line, _ in expected], found
    for line, (number, part) in zip(found, expected, strict=True):
        assert line.startswith(f"{number}: {part}"), line


@pytest.mark.parametrize(
    ("lines", "mistake"),
    [
        ('weights = "int3"', "5: no weight type is called 'int3'"),
        ('target = "tpu"', "5: no target is called 'tpu'"),
        ('weights = "fp16"\nper_channel = false', "6: --per-tensor has no meaning"),
        ("block_size = 32", "5: --block-size is for 4-bit weights"),
        ("include = 5", "5: include = 5: give a text, or a list of texts"),
        ('include = ["a", 5]', "5: include = ['a', 5]: give a text, or a list of texts"),
        ("seed = 1.5\neval = 'eval'", "5: seed = 1.5: give a whole number"),
        ("seed = true\neval = 'eval'", "5: seed = true: give a whole number"),
        ('size = "8x8x8"\neval = "eval"', "5: size = '8x8x8': give a size"),
        ('size = "big"\neval = "eval"', "5: size = 'big': give a size"),
        ('size = 0\neval = "eval"', "5: --size 0x0: give a height"),
        ('std = 0\neval = "eval"', "5: --std 0"),
        ('layout = "hwc"\neval = "eval"', "5: --layout hwc"),
        ("gates = 3", "5: gates = 3: give a table"),
        ("gates = { min_sqnr = 'x' }\neval = 'eval'", "5: min_sqnr = 'x': give a number"),
        ("gates = { min_sqnr = 3 }", "5: gates: needs eval"),
        ('output = ""', "5: output = '': give a text"),
        ('output = "a\\u0000"', "5: output = 'a\\x00': give a text"),
        ('output = "onnxq.toml"', "5: output: onnxq.toml is the pipeline file"),
        ('output = "onnxq.lock"', "5: output: onnxq.lock is the lock"),
        ('output = "eval"', "5: output: "),
        ('output = "a.onnx/x.onnx"', "5: output: "),
        ('eval = "eval"\neval_reader = "m:f"', "6: eval_reader: stands beside eval"),
        ('eval_reader = "none.py:f"', "5: eval_reader: none.py: no such file"),
        ("save_ranges = 'r.json'", "5: save_ranges: is for static"),
        ("samples = 3\neval = 'eval'", "5: samples: is for static, and for 4-bit weights"),
        ("calib = 'eval'", "5: calib: is for static, and for 4-bit weights"),
        ("weights = 'fp16'\ncalib = 'eval'", "6: calib: is for static, and for 4-bit weights"),
        ("weights = 'int4'\ncalib = 'none'", "6: calib: none: no such folder"),
        ("weights = 'int4'\nsamples = 3\neval = 'eval'", "6: samples: needs calib or reader"),
        ("seed = 3", "5: seed: needs calib, reader or eval"),
        (f'output = "{"x" * 300}/y"', "5: output: "),
    ],
)  # fmt: skip
def test_mistake(lines: str, mistake: str, tmp_path: Path) -> None:
    text = f'[defaults]\nmode = "dynamic"\n[[model]]\nsource = "a.onnx"\n{lines}\n'
    (found,) = mistakes(tmp_path, text)
    assert found.startswith(mistake)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "1: has no [[model]]"),
        ("a = 1\nb = \n", "2: is not TOML: Invalid value"),
        ('a = """', "1: is not TOML"),
        ("[[model]\n", "1: is not TOML"),
        ("[model]\nsource = 'a.onnx'", "1: model: write it in double brackets"),
        ("\ndefaults = 3", "2: defaults: write it as a table"),
    ],
)
def test_file_that_is_no_pipeline(text: str, mistake: str, tmp_path: Path) -> None:
    assert any(one.startswith(mistake) for one in mistakes(tmp_path, text))


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# fine\n# \xe9\n")
    for path, mistake in (("none.toml", "1: cannot be read"), ("latin.toml", "2: is not UTF-8")):
        with pytest.raises(PipelineFileError, match=mistake):
            read_pipeline(tmp_path / path)


def test_results_that_would_overwrite_each_other(tmp_path: Path) -> None:
    text = """
[defaults]
mode = "dynamic"
[[model]]
source = "a.onnx"
eval = "eval"
report = "r.md"
[[model]]
name = "again"
source = "a.onnx"
[[model]]
source = "b.onnx"
eval = "eval"
output = "./x/../b.out.onnx"
report = ["eval/../r.md", "b.out.onnx.md"]
[[model]]
source = "b.onnx"
output = "b.out.onnx"
"""
    assert [line.split(";")[0] for line in mistakes(tmp_path, text)] == [
        "10: output: a.int8.onnx is the output of 'a'",
        "15: report: eval/../r.md is the report of 'a'",
        "17: name: the model of line 11 is called 'b', too",
        "18: output: b.out.onnx is the output of 'b'",
    ]


def test_windows_line_ends(tmp_path: Path) -> None:
    text = '[[model]]\r\nsource = "a.onnx"\r\nmode = "dynamic"\r\nweights = "x"\r\n'
    assert mistakes(tmp_path, text)[0].startswith("4: no weight type")


def test_a_mistake_in_the_defaults_is_said_once(tmp_path: Path) -> None:
    text = '[defaults]\nmode = "dynamic"\nweights = "x"\n[[model]]\nsource = "a.onnx"\n'
    assert len(mistakes(tmp_path, text + '[[model]]\nsource = "b.onnx"\n')) == 1


def test_keys_are_the_options_of_the_commands() -> None:
    from onnxq.cli import cli

    own = {"budget", "name", "source", "mode", "eval", "eval_reader", "eval_samples", "gates"}
    options = {
        parameter.name
        for name in ("dynamic", "static", "compare")
        for parameter in cli.commands[name].params
    } | {"report"}
    assert set(KEYS) - own <= options
    assert set(BUDGET_KEYS) <= options
    assert all(isinstance(key.kind, Kind) for key in KEYS.values())


@pytest.mark.parametrize(("weights", "is_used"), [("int4", True), ("uint4", True), ("int8", False)])
@pytest.mark.parametrize("place", ["defaults", "model"])
def test_samples_of_dynamic_models_are_for_4_bits(
    place: str, weights: str, is_used: bool, tmp_path: Path
) -> None:
    lines = 'calib = "eval"\nsamples = 3\n'
    text = (
        f'[defaults]\nmode = "dynamic"\n{lines if place == "defaults" else ""}'
        f'[[model]]\nsource = "a.onnx"\nweights = "{weights}"\n'
        f"{lines if place == 'model' else ''}"
    )
    if place == "model" and not is_used:
        assert len(mistakes(tmp_path, text)) == 2
        return
    (job,) = read_pipeline(write_pipeline(tmp_path, text)).jobs
    assert (job.calibration is not None) is is_used
    if job.calibration is not None:
        assert job.calibration.samples is not None
        assert job.calibration.samples.folder == Path("eval")
        assert job.calibration.samples.options.limit == 3


BUDGETED = """
[defaults]
accuracy = "best"
budget = { min_sqnr = 20, time_limit = 60 }

[[model]]
source = "a.onnx"
mode = "static"
calib = "eval"
budget = { min-sqnr = 30, max_accuracy_drop = 1, labels = "y.json" }
"""


def test_budget_of_a_model_comes_before_that_of_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "y.json").write_text("{}")
    (job,) = read_pipeline(write_pipeline(tmp_path, BUDGETED)).jobs
    assert job.calibration is not None
    assert job.calibration.accuracy == "best"
    assert job.calibration.budget == Budget(
        min_sqnr_db=30.0, max_accuracy_drop=1.0, labels=Path("y.json"), time_limit_s=60.0
    )
    assert job.evaluation is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('accuracy = "perfect"', "6: no accuracy 'perfect'; known levels: fast, balanced, best"),
        ("budget = { min_sqrn = 1 }", "6: min_sqrn: no such key of a budget; there are min_sqnr"),
        ('budget = { min_sqnr = "1" }', "6: min_sqnr = '1': give a number"),
        ("budget = { min_agreement = 101 }", "6: --min-agreement 101 is no share in percent"),
        ("budget = { time_limit = 9 }", "6: --time-limit is for the search"),
        (
            'budget = { max_accuracy_drop = 1, labels = "no.json" }',
            "6: budget: no.json: no such file",
        ),
    ],
    ids=["level", "name", "kind", "share", "alone", "labels"],
)
def test_mistakes_in_what_accuracy_is_asked_for(line: str, said: str, tmp_path: Path) -> None:
    text = f'\n[[model]]\nsource = "a.onnx"\nmode = "static"\ncalib = "eval"\n{line}\n'
    (found,) = mistakes(tmp_path, text)
    assert found.startswith(said)
