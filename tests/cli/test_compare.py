"""``onnxq compare`` as a user calls it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import onnxq
from onnxq.comparison.gates import GATE_RULES
from tests.cli.running import CALIB_DATA, COMMAND, SAMPLE_MODELS, assert_refused, list_files, onnxq
from tests.models import FloatArray, float_weight, make_model, save

Run = Callable[..., CompletedProcess[str]]

PAIR = ("cnn.onnx", "cnn.static.onnx")
DATA = ("--data", "cnn/eval")
QUICK = (*PAIR, *DATA, "--samples", "2", "--no-latency")

MET: dict[str, str] = {
    "min-sqnr": "20",
    "min-cosine": "0.9",
    "min-agreement": "90",
    "min-accuracy": "0.9",
    "max-accuracy-drop": "5",
    "min-speedup": "0.01",
    "max-size-ratio": "0.5",
    "max-latency-ms": "10000",
}
NOT_MET: dict[str, str] = {
    "min-sqnr": "90",
    "min-cosine": "0.9999999",
    "min-agreement": "100",
    "min-accuracy": "100",
    "max-accuracy-drop": "-1",
    "min-speedup": "1000",
    "max-size-ratio": "0.1",
    "max-latency-ms": "0.000001",
}
TIMES = ("min-speedup", "max-latency-ms")

METRIC = """
import numpy as np

def mean(outputs, inputs, name):
    print("called with", name)
    return float(np.mean(outputs["logits"]) + 0 * inputs["image"].sum())

def nothing(outputs, inputs, name):
    return None

def broken(outputs, inputs, name):
    return outputs["no such output"]
"""


@pytest.fixture(scope="session")
def quantized_cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample cnn in int8; made once."""
    output = tmp_path_factory.mktemp("compare") / "cnn.static.onnx"
    calib = CALIB_DATA / "cnn" / "calib"
    return onnxq_quantize(SAMPLE_MODELS / "cnn.onnx", calib, output)


def onnxq_quantize(source: Path, calib: Path, output: Path) -> Path:
    return onnxq.quantize_static(source, calib, output, method="minmax").output


@pytest.fixture
def folder(quantized_cnn: Path, tmp_path: Path) -> Path:
    """A folder with both models and the data."""
    shutil.copy(SAMPLE_MODELS / "cnn.onnx", tmp_path)
    shutil.copy(quantized_cnn, tmp_path)
    (tmp_path / "cnn").symlink_to(CALIB_DATA / "cnn")
    (tmp_path / "metrics.py").write_text(METRIC)
    return tmp_path
