"""Fixtures that several test modules share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every test."""
    return np.random.default_rng(20)


@pytest.fixture
def sample_models() -> Path:
    """The folder of the four trained sample models."""
    return REPOSITORY / "sample_models"
