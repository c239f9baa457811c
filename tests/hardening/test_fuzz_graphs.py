"""Random graphs in every mode: a good result, or a reason.

What a good result is, ``judging.py`` says. Only models that onnxruntime loads and runs count.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.hardening.cases import Case
from tests.hardening.graphs import models
from tests.hardening.judging import STEPS, open_session, run_once
from tests.hardening.trying import try_modes

FEW = 25
MANY = 3000

# A third of the models is no valid one; examples are drawn for as long as it takes.
_SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def check(case: Case, mode: str, at_zero: bool) -> None:
    try:
        run_once(open_session(case.model), case.feeds)
    except Exception:
        assume(False)
    with tempfile.TemporaryDirectory() as folder:
        for finding in try_modes(case, [mode], Path(folder) / "work", at_zero=at_zero):
            assert not finding.outcome.is_fault, finding


every_mode = given(models(), st.sampled_from(sorted(STEPS)), st.sampled_from((True, True, False)))


@settings(_SETTINGS, max_examples=FEW)
@every_mode
def test_random_graphs(case: Case, mode: str, at_zero: bool) -> None:
    check(case, mode, at_zero)


@pytest.mark.full
@settings(_SETTINGS, max_examples=MANY)
@every_mode
def test_many_random_graphs(case: Case, mode: str, at_zero: bool) -> None:
    check(case, mode, at_zero)
