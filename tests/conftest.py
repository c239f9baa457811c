"""Fixtures that several test modules share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxq.targets import presets

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every test."""
    return np.random.default_rng(20)


@pytest.fixture
def sample_models() -> Path:
    """The folder of the four trained sample models."""
    return REPOSITORY / "sample_models"


@pytest.fixture(autouse=True)
def regions_of_any_size(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Regions as small as those in tests would not pay for their borders, and would stay float.

    Tests of that rule, marked ``real_borders``, and those that start a process see it as it is.
    """
    if "real_borders" not in request.keywords:
        targets = tuple(replace(one, crossing_multiplications=0) for one in presets.TARGETS)
        monkeypatch.setattr(presets, "TARGETS", targets)
