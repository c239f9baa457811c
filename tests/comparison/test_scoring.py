"""Task metrics against numpy, and functions of users that fail."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxq.comparison.labels import Labels
from onnxq.comparison.results import TaskMetric
from onnxq.comparison.scoring import FunctionScorer, LabelScorer
from onnxq.errors import DataError
from onnxq.samples import Sample
from onnxq.samples.user_code import UserFunction

Array = npt.NDArray[Any]


def named(index: int) -> Sample:
    return Sample(f"s{index}.npz", {"x": np.float32([index])})


def count_hits(scores: Array, labels: Array, top: int) -> int:
    """Without sorting: a class is in the top k if fewer than k scores beat it; ties by index."""
    hits = 0
    for row, label in zip(scores, labels, strict=True):
        before = sum(
            one > row[label] or (one == row[label] and index < label)
            for index, one in enumerate(row)
        )
        hits += before < top
    return hits


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    classes=st.integers(2, 12),
    seed=st.integers(0, 1000),
    in_order=st.booleans(),
)
def test_top_1_and_top_5_against_numpy(
    sizes: list[int], classes: int, seed: int, in_order: bool
) -> None:
    rng = np.random.default_rng(seed)
    rows = sum(sizes)
    # Few values, so that ties are common.
    scores = rng.integers(0, 5, (2, rows, classes)).astype(np.float32)
    wanted = rng.integers(0, classes, rows)
    ends = np.cumsum([0, *sizes])
    parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
    labels = (
        Labels("test", sequence=wanted)
        if in_order
        else Labels("test", {f"s{index}": wanted[part] for index, part in enumerate(parts)})
    )
    scorer = LabelScorer(labels)
    for index, part in enumerate(parts):
        scorer.add(named(index), {"y": scores[0, part]}, {"y": scores[1, part]})
    tops = (1, 5) if classes > 5 else (1,)
    assert scorer.results() == tuple(
        TaskMetric(
            name=f"top-{top}",
            float_value=count_hits(scores[0], wanted, top) / rows,
            quantized_value=count_hits(scores[1], wanted, top) / rows,
            samples=rows,
        )
        for top in tops
    )


def score(
    labels: Labels, expected: dict[str, Array], measured: dict[str, Array] | None = None
) -> tuple[TaskMetric, ...]:
    scorer = LabelScorer(labels)
    scorer.add(named(0), expected, measured or expected)
    return scorer.results()


ONE = Labels("labels.json", {"s0": np.array([1])})
RIGHT = np.float32([[0, 1, 0]])


def test_each_model_is_rated_on_its_own_output() -> None:
    (metric,) = score(ONE, {"y": RIGHT}, {"y": -RIGHT})
    assert (metric.float_value, metric.quantized_value, metric.drop_points) == (1.0, 0.0, 100.0)
    assert metric.to_json()["drop_points"] == 100.0


def test_samples_without_a_label_are_left_out() -> None:
    scorer = LabelScorer(ONE)
    for index in (1, 0, 2):
        scorer.add(named(index), {"y": RIGHT}, {"y": RIGHT})
    assert [metric.samples for metric in scorer.results()] == [1]


def test_no_label_at_all() -> None:
    scorer = LabelScorer(ONE)
    scorer.add(named(5), {"y": RIGHT}, {"y": RIGHT})
    with pytest.raises(DataError, match="no label is for a sample that was run"):
        scorer.results()
    scorer = LabelScorer(replace(ONE, is_guessed=True))
    scorer.add(named(5), {"y": RIGHT}, {"y": RIGHT})
    assert scorer.results() == ()


@pytest.mark.parametrize("labels", [[1, 1], [1, 1, 1, 1]], ids=str)
def test_wrong_count_of_named_labels(labels: list[int]) -> None:
    with pytest.raises(DataError, match=r"labels for sample s0\.npz, whose output 'y' has 3 rows"):
        score(Labels("labels.json", {"s0": np.array(labels)}), {"y": np.repeat(RIGHT, 3, axis=0)})


def test_labels_in_order_that_end_too_early() -> None:
    with pytest.raises(DataError, match=r"2 labels for sample s0\.npz"):
        score(Labels("labels.npy", sequence=np.array([1, 1])), {"y": np.repeat(RIGHT, 3, axis=0)})


def test_labels_in_order_that_are_left_over() -> None:
    with pytest.raises(DataError, match="labels"):
        score(Labels("labels.npy", sequence=np.array([1, 1])), {"y": RIGHT})


@pytest.mark.parametrize("label", [3, -1, 1000])
def test_class_that_the_model_does_not_have(label: int) -> None:
    with pytest.raises(DataError, match="class"):
        score(Labels("labels.json", {"s0": np.array([label])}), {"y": RIGHT})


def test_scores_are_found_among_the_outputs() -> None:
    features = np.ones((1, 4, 4), np.float32)
    (metric,) = score(ONE, {"features": features, "ids": np.array([[1, 2]]), "y": RIGHT})
    assert metric.float_value == 1.0


def test_scores_of_the_named_output() -> None:
    labels = Labels("labels.json", {"s0": np.array([1])}, output="other")
    (metric,) = score(labels, {"y": RIGHT, "other": -RIGHT})
    assert metric.float_value == 0.0


def test_scores_of_every_place() -> None:
    places = np.float32([[[0.1, 0.9], [0.8, 0.2]]])
    (metric,) = score(Labels("labels.json", {"s0": np.array([1, 1])}), {"y": places})
    assert (metric.float_value, metric.samples) == (0.5, 2)


def test_named_output_that_is_not_there() -> None:
    labels = Labels("labels.json", {"s0": np.array([1])}, output="none")
    with pytest.raises(DataError, match="names output 'none'; the model has y"):
        score(labels, {"y": RIGHT})


def test_no_output_looks_like_scores() -> None:
    with pytest.raises(DataError, match="no output of the model looks like scores"):
        score(ONE, {"y": np.ones((1, 4, 4), np.float32)})


OTHER_ERROR: list[pytest.MarkDecorator] = []


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.float32(3), id="scalar", marks=OTHER_ERROR),
        pytest.param(np.array([[True, False]]), id="boolean", marks=OTHER_ERROR),
        pytest.param(np.array([["a", "b"]]), id="strings", marks=OTHER_ERROR),
    ],
)
def test_named_output_that_holds_no_scores(array: Array) -> None:
    """Either an error that says so, or the right answer: class 1 is not the largest of any."""
    labels = Labels("labels.json", {"s0": np.array([1])}, output="y")
    try:
        (metric,) = score(labels, {"y": np.asarray(array)})
    except DataError:
        return
    assert metric.float_value == 0.0


def test_scores_that_are_unsigned() -> None:
    labels = Labels("labels.json", {"s0": np.array([2])}, output="y")
    (metric,) = score(labels, {"y": np.uint8([[0, 1, 2]])})
    assert metric.float_value == 1.0


def rate(function: Callable[..., Any], samples: int = 3) -> tuple[TaskMetric, ...]:
    scorer = FunctionScorer(UserFunction("m:f", function, Path.cwd()))
    for index in range(samples):
        scorer.add(named(index), {"y": np.float32([index])}, {"y": np.float32([10 * index])})
    return scorer.results()


def test_function_sees_outputs_inputs_and_name() -> None:
    seen = []

    def function(outputs: dict[str, Array], inputs: dict[str, Array], name: str) -> float:
        seen.append((outputs["y"].item(), inputs["x"].item(), name))
        return 1.0

    rate(function, samples=2)
    assert seen == [
        (0.0, 0.0, "s0.npz"),
        (0.0, 0.0, "s0.npz"),
        (1.0, 1.0, "s1.npz"),
        (10.0, 1.0, "s1.npz"),
    ]


def test_function_is_averaged() -> None:
    assert rate(lambda outputs, *_: outputs["y"][0]) == (
        TaskMetric(name="m:f", float_value=1.0, quantized_value=10.0, samples=3, is_share=False),
    )


def test_function_of_an_own_metric_has_no_points() -> None:
    (metric,) = rate(lambda *_: 2)
    assert metric.to_json()["drop_points"] is None


def test_function_that_leaves_samples_out() -> None:
    (metric,) = rate(lambda outputs, _, name: None if name == "s1.npz" else outputs["y"][0])
    assert (metric.float_value, metric.quantized_value, metric.samples) == (1.0, 10.0, 2)


def test_function_that_leaves_one_model_out() -> None:
    assert rate(lambda outputs, *_: None if outputs["y"][0] >= 10 else 1.0)[0].samples == 1


def test_function_that_leaves_everything_out() -> None:
    assert rate(lambda *_: None) == ()


def fail(*_: Any) -> float:
    raise KeyError("no such thing")


def leave(*_: Any) -> float:
    raise SystemExit(1)


FAILING: dict[str, Callable[..., Any]] = {
    "raises": fail,
    "leaves": leave,
    "text": lambda *_: "good",
    "list": lambda *_: [1.0],
    "dictionary": lambda *_: {},
    "array": lambda *_: np.ones(2),
    "complex": lambda *_: 1j,
    "nan": lambda *_: math.nan,
    "infinite": lambda *_: np.float32(np.inf),
    "takes-nothing": lambda: 1.0,
}


@pytest.mark.parametrize(
    "function",
    [pytest.param(one, id=key) for key, one in FAILING.items()],
)
def test_function_that_fails(function: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"--metric m:f.*sample s0\.npz") as caught:
        rate(function)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [1, True, np.float32(1), np.int64(1), np.array(1.0)], ids=repr)
def test_numbers_of_every_kind(value: Any) -> None:
    assert rate(lambda *_: value)[0].float_value == 1.0
