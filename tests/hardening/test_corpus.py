"""Every operator and model that onnx has a test case of: a good result, or a reason.

What a good result is, ``judging.py`` says. ``python -m tests.hardening.count`` counts the outcomes.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.hardening.cases import Case, make_variants, model_cases, operator_cases, operator_modules
from tests.hardening.trying import Outcome, try_modes

MODES = ("int8", "fp16", "static")

LAYERS = ("conv", "convtranspose", "einsum", "gather", "gemm", "gru", "lstm", "matmul", "rnn")
OTHERS = 10
"""Modules beside those of layers in the slice."""
SLICE_CASES = 2

# Each takes seconds to make its cases, most of them the expansions of one operator.
SLOW_MODULES = frozenset({"attention", "flexattention", "linear_attention", "softmaxcrossentropy"})

_random = random.Random(20)
SLICE = sorted(
    {
        *LAYERS,
        *_random.sample(sorted(set(operator_modules()) - SLOW_MODULES - set(LAYERS)), OTHERS),
    }
)


def check(cases: list[Case], folder: Path, *, at_zero: bool) -> list[Outcome]:
    """Fail with every fault; returns the outcomes."""
    findings = [
        finding
        for index, case in enumerate(cases)
        for finding in try_modes(case, MODES, folder / str(index), at_zero=at_zero)
    ]
    faults = [str(finding) for finding in findings if finding.outcome.is_fault]
    assert not faults, "\n".join(faults)
    for finding in findings:
        if finding.outcome in (Outcome.NOTHING, Outcome.REFUSED):
            assert finding.detail, finding
            assert "\n" not in finding.detail
    return [finding.outcome for finding in findings]


def with_weights(cases: list[Case]) -> list[Case]:
    """Every variant of every case."""
    return [variant for case in cases for variant in make_variants(case)]


@pytest.mark.parametrize("module", SLICE)
def test_a_slice_of_the_operators(module: str, tmp_path: Path) -> None:
    cases = with_weights(operator_cases(module))
    chosen = random.Random(module).sample(cases, min(SLICE_CASES, len(cases)))
    outcomes = check(chosen, tmp_path, at_zero=True)
    if module in ("conv", "gemm", "matmul"):
        assert Outcome.QUANTIZED in outcomes


@pytest.mark.full
@pytest.mark.parametrize("at_zero", [True, False], ids=["any_size", "as_users_get_it"])
@pytest.mark.parametrize("module", operator_modules())
def test_all_operators(module: str, at_zero: bool, tmp_path: Path) -> None:
    check(with_weights(operator_cases(module)), tmp_path, at_zero=at_zero)


@pytest.mark.full
@pytest.mark.parametrize("at_zero", [True, False], ids=["any_size", "as_users_get_it"])
def test_all_models(at_zero: bool, tmp_path: Path) -> None:
    outcomes = check(with_weights(model_cases()), tmp_path, at_zero=at_zero)
    assert Outcome.QUANTIZED in outcomes
