"""The choice among samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxq.samples import held_back
from onnxq.samples.choice import choose

NAMES = [f"class{index // 20}/{index:03d}.npz" for index in range(100)]
names_of_files = st.lists(st.text(max_size=5), unique=True, max_size=40)


@given(names_of_files, st.integers(1, 50), st.integers(-2, 2))
def test_limit_is_kept_in_the_order_of_the_names(names: list[str], limit: int, seed: int) -> None:
    chosen = choose(names, limit, seed)
    assert len(chosen) == min(limit, len(names))
    assert list(chosen) == sorted(set(chosen))
    assert chosen == choose(names, limit, seed)


def test_another_seed_chooses_others() -> None:
    assert len({choose(NAMES, 10, seed) for seed in range(20)}) == 20


def test_every_sample_can_be_chosen() -> None:
    assert {index for seed in range(200) for index in choose(NAMES, 10, seed)} == set(range(100))


def test_a_new_file_changes_little() -> None:
    before = {NAMES[index] for index in choose(NAMES, 20, 0)}
    more = [*NAMES, "new.npz"]
    after = {more[index] for index in choose(more, 20, 0)}
    assert len(before - after) <= 1


def test_choice_is_the_same_for_ever() -> None:
    """Another choice changes the quantized model, so it has to be on purpose."""
    assert choose(NAMES, 5, 0) == choose(NAMES, 5, 0) == (3, 37, 49, 57, 63)


@pytest.mark.parametrize("limit", [None, 100, 101])
def test_all(limit: int | None) -> None:
    assert choose(NAMES, limit, 0) == tuple(range(100))


def test_every_fifth_is_held_back_up_to_32() -> None:
    held = [index for index in range(1000) if held_back(index)]
    assert held == list(range(4, 160, 5))
    assert len(held) == 32
