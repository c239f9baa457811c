"""Mixtures of samples, and small changes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from onnxq.errors import DataError  # noqa: E402
from onnxq.training.examples import Arrays, Example, Examples  # noqa: E402
from onnxq.training.mixtures import Mixtures, enlarge, mix  # noqa: E402
from onnxq.training.variations import (  # noqa: E402
    LARGEST_GAIN,
    LARGEST_SHIFT,
    is_graded,
    vary,
)


def example(number: int, width: int = 64) -> Example:
    values = np.random.default_rng(number).standard_normal((1, width)).astype(np.float32)
    feeds = {"x": values, "ids": np.full((1, 3), number), "on": np.float32([[number % 2] * 40])}
    return Example(str(number), feeds, {"y": values.sum(1)}, np.array([number]))


def ask(feeds: Sequence[Arrays]) -> list[Arrays]:
    return [{"y": one["x"].sum(1)} for one in feeds]


def renew(batch: list[Example], *, share: float = 1.0, seed: int = 0) -> list[Example]:
    return Mixtures(ask, share).renew(batch, np.random.default_rng(seed))


def test_a_mixture_has_the_answer_of_the_float_model_and_no_label() -> None:
    batch = [example(at) for at in range(8)]
    for before, after in zip(batch, renew(batch), strict=True):
        assert after.labels is None
        assert not np.array_equal(after.feeds["x"], before.feeds["x"])
        np.testing.assert_array_equal(after.targets["y"], after.feeds["x"].sum(1))


def test_masks_and_integers_are_those_of_one_sample() -> None:
    batch = [example(at) for at in range(8)]
    for after in renew(batch):
        number = int(after.feeds["ids"][0, 0])
        np.testing.assert_array_equal(after.feeds["ids"], batch[number].feeds["ids"])
        np.testing.assert_array_equal(after.feeds["on"], batch[number].feeds["on"])


def test_a_mixture_lies_between_two_samples() -> None:
    first, second = example(1).feeds, example(2).feeds
    mixed = mix(first, second, weight=0.25)["x"]
    np.testing.assert_allclose(mixed, 0.25 * first["x"] + 0.75 * second["x"], rtol=1e-6)
    assert mixed.dtype == np.float32


def test_about_as_many_are_mixed_as_were_asked_for() -> None:
    batch = [example(at) for at in range(200)]
    plain = sum(one is before for one, before in zip(renew(batch, share=0.7), batch, strict=True))
    # Of 200 draws with 0.3, six standard deviations of 6.5 are 39.
    assert abs(plain - 60) < 39


def test_samples_of_other_shapes_are_not_mixed_together() -> None:
    batch = [example(1), example(2, width=80), example(3)]
    assert [one.feeds["x"].shape for one in renew(batch)] == [(1, 64), (1, 80), (1, 64)]


def test_a_model_that_refuses_mixtures_learns_from_samples() -> None:
    def refuse(feeds: Sequence[Arrays]) -> list[Arrays]:
        raise DataError("a mixture of samples: index out of range")

    mixtures, batch = Mixtures(refuse), [example(1), example(2)]
    assert mixtures.renew(batch, np.random.default_rng(0)) == batch
    assert "out of range" in mixtures.failed
    assert mixtures.renew(batch, np.random.default_rng(0)) == batch


def test_the_same_generator_gives_the_same_mixtures() -> None:
    batch = [example(at) for at in range(5)]
    for one, other in zip(renew(batch, seed=3), renew(batch, seed=3), strict=True):
        np.testing.assert_array_equal(one.feeds["x"], other.feeds["x"])


def test_variations_are_small_and_leave_masks_alone() -> None:
    image = np.random.default_rng(0).standard_normal((1, 2, 16, 24)).astype(np.float32)
    mask = np.float32([0, -1e4] * 50)
    varied = vary({"image": image, "mask": mask}, np.random.default_rng(1))
    np.testing.assert_array_equal(varied["mask"], mask)
    assert not is_graded(mask) and is_graded(image)
    # With the shift taken back, what remains is gain, offset and noise.
    best = np.inf
    for rows in range(-2, 3):
        for columns in range(-3, 4):
            there = np.roll(image, (-rows, -columns), (2, 3))[..., 3:-3, 3:-3]
            here = varied["image"][..., 3:-3, 3:-3]
            best = min(best, float(np.std(here - there) / np.std(there)))
    assert 16 * LARGEST_SHIFT == 2 and 24 * LARGEST_SHIFT == 3
    assert 0.01 < best < LARGEST_GAIN + 0.1 + 0.05


def test_samples_are_enlarged_by_mixtures_that_stay_the_same() -> None:
    batch = [example(at) for at in range(10)]
    size = batch[0].size_bytes
    enlarged = enlarge(
        Examples(lambda: iter(batch)), Mixtures(ask, 1.0), seed=1, kept_bytes=25 * size
    )
    found = list(enlarged.in_order())
    assert [one.name for one in found[:10]] == [one.name for one in batch]
    assert len(found) == 25
    assert all(one.labels is None for one in found[10:])
    for one, other in zip(found, enlarged.in_order(), strict=True):
        np.testing.assert_array_equal(one.feeds["x"], other.feeds["x"])


def test_samples_that_fill_the_memory_stay_alone() -> None:
    examples = Examples(lambda: iter([example(at) for at in range(10)]))
    assert enlarge(examples, Mixtures(ask), seed=1, kept_bytes=100) is examples
