"""How models are ranked on samples held back and on variants of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from onnxq.errors import VerificationError
from onnxq.pipelines.common import pass_through
from onnxq.pipelines.qat_judging import WORST_DB, Judge, Likeness
from onnxq.samples import Part, SampleOptions, open_samples
from tests.apply.calibrated_models import save_samples
from tests.models import make_model, save

ENDS = ("float[N, 32] x", "float[N, 32] y")


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """Of a model that doubles its input, on two samples between 1 and 2."""
    save(make_model("y = Add(x, x)", *ENDS), tmp_path / "float.onnx")
    rng = np.random.default_rng(0)
    pool = [{"x": rng.uniform(1, 2, (1, 32)).astype(np.float32)} for _ in range(2)]
    save_samples(pool, tmp_path / "samples")
    part = Part(open_samples(tmp_path / "samples", options=SampleOptions()), None, "samples")
    folder = tmp_path / "variants"
    folder.mkdir()
    return Judge.prepare(
        tmp_path / "float.onnx", part, folder, seed=0, progress=lambda _: pass_through
    )


def test_both_are_measured(judge: Judge, tmp_path: Path) -> None:
    scaled = make_model("y = Mul(x, c)", *ENDS, {"c": np.float32(2.2)})
    found = judge.measure(save(scaled, tmp_path / "scaled.onnx"))
    # A tenth of the signal is noise, wherever it is looked at.
    assert found.held_back_db == pytest.approx(20.0, abs=1e-3)
    assert found.variants_db == pytest.approx(20.0, abs=1e-3)
    assert judge.variants is not None
    assert judge.variants.count == 64


def test_the_float_model_itself_has_no_figure(judge: Judge, tmp_path: Path) -> None:
    assert judge.measure(tmp_path / "float.onnx") == Likeness(held_back_db=None, variants_db=None)


def test_no_numbers_on_variants_are_the_worst_and_on_samples_an_error(
    judge: Judge, tmp_path: Path
) -> None:
    assert judge.variants is not None
    lowest = min(one["x"].min() for one in _feeds(judge.held_back))
    bound = float(min(one["x"].min() for one in _feeds(judge.variants)) + lowest) / 2
    nodes = "a = Sub(x, c) b = Sqrt(a) z = Mul(b, zero) d = Add(x, x) y = Add(d, z)"
    strict = make_model(nodes, *ENDS, {"c": np.float32(bound), "zero": np.float32(0)})
    found = judge.measure(save(strict, tmp_path / "strict.onnx"))
    assert found.variants_db == WORST_DB
    never = make_model(nodes, *ENDS, {"c": np.float32(9), "zero": np.float32(0)})
    with pytest.raises(VerificationError, match="'y'"):
        judge.measure(save(never, tmp_path / "never.onnx"))


def _feeds(part: Part) -> list[dict[str, np.ndarray]]:
    found = []
    for file in sorted(Path(part.samples.folder or "").glob("*.npz")):
        with np.load(file) as arrays:
            found.append(dict(arrays))
    return found


@pytest.mark.parametrize(
    ("one", "other", "is_better"),
    [
        pytest.param((14.0, None), (13.0, None), True, id="no variants"),
        pytest.param((13.0, 10.0), (14.0, 9.5), False, id="lower mean"),
        pytest.param((13.0, 10.0), (13.0, 10.0), False, id="the same"),
        pytest.param((None, None), (13.0, 10.0), False, id="not known"),
        pytest.param((13.0, 10.0), (None, None), False, id="other not known"),
        pytest.param((13.0, -200.0), (1.0, 1.0), False, id="no numbers on variants"),
    ],
)
def test_which_is_better(
    one: tuple[float | None, float | None],
    other: tuple[float | None, float | None],
    is_better: bool,
) -> None:
    likeness = [Likeness(held_back_db=a, variants_db=b) for a, b in (one, other)]
    assert likeness[0].is_better_than(likeness[1]) is is_better
