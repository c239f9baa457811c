"""One model through one mode, and what came of it."""

from __future__ import annotations

import contextlib
import enum
import shutil
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import pytest

import onnxq
from onnxq.errors import EXIT_NO, VerificationError
from onnxq.plan import dynamic, half, integer
from onnxq.targets import presets
from tests.hardening.cases import Case, are_plain, pad_with_text, write_samples
from tests.hardening.judging import STEPS, Judge, open_session, run_once

COMPARED_SAMPLES = 2

_NEW_NAN = "NaN or infinity where the float model has numbers"


class Outcome(enum.Enum):
    """What a mode did with a model."""

    QUANTIZED = "quantized, explained by rounding"
    UNCOMPARED = "quantized, float model does not run here"
    NOTHING = "nothing to quantize"
    REFUSED = "refused"
    CRASH = "crash"
    INVALID = "invalid file"
    WRONG = "wrong result"

    @property
    def is_fault(self) -> bool:
        """Whether onnxq is to blame."""
        return self in (Outcome.CRASH, Outcome.INVALID, Outcome.WRONG)


@dataclass(frozen=True)
class Finding:
    """The outcome for one model in one mode.

    Attributes:
        case: its name.
        mode: 'static', or the type of weights of dynamic mode.
        outcome: what came of it.
        detail: the reason, the traceback, or the fault.
    """

    case: str
    mode: str
    outcome: Outcome
    detail: str

    def __str__(self) -> str:
        return f"{self.case} {self.mode}: {self.outcome.value}: {self.detail}"


@contextlib.contextmanager
def limits_at_zero() -> Iterator[None]:
    """Quantize whatever can be, however small: models of tests gain nothing from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "TARGETS", tuple(map(_without_limits, presets.TARGETS)))
        patch.setattr(dynamic, "SMALLEST_TENSOR_ELEMENTS", 1)
        patch.setattr(dynamic, "INTEGER_BUDGET", -1.0)
        patch.setattr(dynamic, "HALF_BUDGET", -1.0)
        patch.setattr(integer, "STORAGE_OVERHEAD_BYTES", -(10**9))
        patch.setattr(half, "HALF_OVERHEAD_BYTES", -1)
        yield


def _without_limits(target: Any) -> Any:
    return replace(
        target,
        integer_matrix_min_elements=0,
        integer_matrix_min_columns=0,
        integer_lstm_min_hidden=0,
        integer_conv_min_channels=0,
        integer_conv_min_reduction=0,
        crossing_multiplications=0,
    )


def try_modes(
    case: Case, modes: Sequence[str], folder: Path, *, at_zero: bool
) -> Iterator[Finding]:
    """Quantize a model in each mode and look at the result.

    Args:
        case: the float model.
        modes: 'static', or types of weights of dynamic mode.
        folder: a new one for temporary files; it is gone afterwards.
        at_zero: also quantize what is too small to gain.
    """
    (folder / "samples").mkdir(parents=True)
    case = pad_with_text(case) if at_zero else case
    (folder / "float.onnx").write_bytes(case.model.SerializeToString())
    samples = write_samples(case, folder / "samples")
    with limits_at_zero() if at_zero else contextlib.nullcontext():
        for mode in modes:
            outcome, detail = _quantize(mode, folder, has_samples=are_plain(case.feeds)) or (
                _look_at(case, mode, folder, samples)
            )
            if _NEW_NAN in detail and _makes_nan(case, mode, samples):
                outcome = Outcome.REFUSED
            yield Finding(case.name, mode, outcome, detail)
    shutil.rmtree(folder)


def _makes_nan(case: Case, mode: str, samples: list[dict[str, Any]]) -> bool:
    """Whether rounding alone makes NaN or infinity of a number, as in the logarithm of a sum."""
    return any(Judge(case.model, feeds, STEPS[mode]).can_make_nan() for feeds in samples)


def _quantize(mode: str, folder: Path, *, has_samples: bool) -> tuple[Outcome, str] | None:
    source, output = folder / "float.onnx", folder / f"{mode}.onnx"
    before = sorted(folder.iterdir())
    try:
        if mode == "static":
            onnxq.quantize_static(source, folder / "samples", output)
        else:
            data = folder / "samples" if has_samples else None
            onnxq.quantize_dynamic(source, output, weights=mode, data=data)
    except onnxq.OnnxqError as error:
        text = str(error)
        if sorted(folder.iterdir()) != before:
            return Outcome.CRASH, f"files are left behind after: {text}"
        if "please report" in text or isinstance(error, VerificationError):
            return Outcome.INVALID, text
        return (Outcome.NOTHING if error.exit_code == EXIT_NO else Outcome.REFUSED), text
    except Exception:
        return Outcome.CRASH, traceback.format_exc()
    return None


def _look_at(
    case: Case, mode: str, folder: Path, samples: list[dict[str, Any]]
) -> tuple[Outcome, str]:
    judges = []
    for feeds in samples[:COMPARED_SAMPLES]:
        try:
            judges.append((feeds, Judge(case.model, feeds, STEPS[mode])))
        except Exception as error:
            if not judges:
                return Outcome.UNCOMPARED, str(error)
    path = str(folder / f"{mode}.onnx")
    fault = _compare_files(case.model, onnx.load(path))
    if fault is not None:
        return Outcome.INVALID, fault
    for optimized in (True, False):
        if not optimized and not _loads_bare(case.model):
            continue
        level = "optimized" if optimized else "not optimized"
        try:
            session = open_session(path, optimized=optimized)
            results = [run_once(session, feeds) for feeds, _ in judges]
        except Exception as error:
            return Outcome.INVALID, f"{level}: {error}"
        for (_, judge), measured in zip(judges, results, strict=True):
            fault = judge.find_fault(measured)
            if fault is not None:
                return Outcome.WRONG, f"{level}: {fault}"
    return Outcome.QUANTIZED, ""


def _loads_bare(model: onnx.ModelProto) -> bool:
    """Whether the runtime takes the float model as it is; some it takes only after rewriting."""
    try:
        open_session(model, optimized=False)
    except Exception:
        return False
    return True


def _compare_files(float_model: onnx.ModelProto, quantized: onnx.ModelProto) -> str | None:
    if _signature(float_model) != _signature(quantized):
        return "inputs or outputs are declared otherwise"
    fault = _check_fully(quantized)
    return fault if fault is not None and _check_fully(float_model) is None else None


def _signature(model: onnx.ModelProto) -> list[bytes]:
    known = {one.name for one in model.graph.initializer}
    given = [one for one in model.graph.input if one.name not in known]
    values = (*given, *model.graph.output)
    return [
        one.name.encode() + b" " + one.type.SerializeToString(deterministic=True) for one in values
    ]


def _check_fully(model: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        return " ".join(str(error).split())
    return None
