"""4-bit weights rounded with samples: kept where that is better on samples held back."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxq.algorithms.block_rounding import find_block_layers, round_block_layers
from onnxq.apply import Blocks, apply_plan
from onnxq.errors import DataError, ExecutionError
from onnxq.graph.copies import copy_model
from onnxq.graph.files import ModelFile
from onnxq.graph.output import Output, write_model
from onnxq.pipelines.calibrate import Progress
from onnxq.plan import Plan
from onnxq.plan.translate import translate_plan
from onnxq.runtime.session import Feeds, Session
from onnxq.runtime.signatures import read_signatures
from onnxq.samples import Part, Samples, calibration_part, verification_part
from onnxq.targets import Target
from onnxq.verification.comparison import Comparison, OutputComparison

NEAREST = "nearest"
SECOND_ORDER = "second order"


@dataclass(frozen=True)
class RoundingReport:
    """How 4-bit weights were rounded.

    Attributes:
        data: where the samples came from.
        samples: how many were run.
        compared_on: the samples that decided.
        layers: how many weights were rounded with them.
        method: 'nearest' or 'second order', whichever is better.
        nearest_db: SQNR of all float outputs together with the nearest integers; None if they are
            identical.
        second_order_db: likewise.
        skipped: a message for each bad sample that was left out.
        notes: what a user should know of how files became inputs.
    """

    data: str
    samples: int
    compared_on: str
    layers: int
    method: str
    nearest_db: float | None
    second_order_db: float | None
    skipped: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "skipped": list(self.skipped), "notes": list(self.notes)}


@dataclass(frozen=True)
class BlockRounding:
    """Rounds the 4-bit weights of one model.

    Attributes:
        file: the float model.
        plan: made for it.
        target: likewise.
        samples: to learn from, and to decide on.
        staged: where the result will be.
        progress: shows it.
    """

    file: ModelFile
    plan: Plan
    target: Target
    samples: Samples
    staged: Output
    progress: Progress

    def run(self) -> tuple[Blocks, RoundingReport, Part]:
        """The better integers, a report, and the samples held back.

        Raises:
            DataError: a sample is bad.
            ExecutionError: the float model does not load.
        """
        folder = self.staged.staged_path.parent / "rounding"
        folder.mkdir()
        part = calibration_part(self.samples)
        counted = _Counted()
        layers = find_block_layers(self.plan, self.file.model.graph)
        signatures = read_signatures(self.file.model)

        def read_feeds() -> Iterable[Feeds]:
            feeds = self.progress("observing layers")(part.read(signatures), part.count)
            return counted.count(feeds)

        try:
            found = round_block_layers(self.file.model, layers, read_feeds, folder / "inputs.onnx")
            evaluation = verification_part(self.samples, signatures)
            scores = self._measure({NEAREST: {}, SECOND_ORDER: found}, evaluation, folder)
        except ExecutionError as error:
            raise DataError(f"{part.label}: the model cannot run: {error.reason}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        is_better = scores[SECOND_ORDER] > scores[NEAREST]
        report = RoundingReport(
            data=self.samples.label,
            samples=counted.last,
            compared_on=evaluation.label,
            layers=len(found),
            method=SECOND_ORDER if is_better else NEAREST,
            nearest_db=_finite(scores[NEAREST]),
            second_order_db=_finite(scores[SECOND_ORDER]),
            skipped=self.samples.skipped,
            notes=self.samples.notes,
        )
        return found if is_better else {}, report, evaluation

    def _measure(
        self, candidates: Mapping[str, Blocks], evaluation: Part, folder: Path
    ) -> dict[str, float]:
        reference = Session(self.file.path, lean=True)
        comparisons = {
            name: Comparison(reference, Session(self._write(blocks, folder / name), lean=True))
            for name, blocks in candidates.items()
        }
        feeds = self.progress("choosing a rounding")(
            evaluation.read(reference.inputs), evaluation.count
        )
        for one in feeds:
            expected = reference.run(one)
            for comparison in comparisons.values():
                comparison.add(one, expected)
        return {name: _combine(one.results()) for name, one in comparisons.items()}

    def _write(self, blocks: Blocks, folder: Path) -> Path:
        copy = copy_model(self.file.model)
        moved = {
            (copy.values[value], layout, factor): found
            for (value, layout, factor), found in blocks.items()
        }
        apply_plan(copy.model, translate_plan(self.plan, copy), self.target, blocks=moved)
        folder.mkdir()
        output = Output(self.staged.path, folder / self.staged.path.name)
        write_model(replace(self.file, model=copy.model), output, force=True)
        return output.staged_path


class _Counted:
    """How many samples the last pass had."""

    def __init__(self) -> None:
        self.last = 0

    def count(self, feeds: Iterable[Feeds]) -> Iterable[Feeds]:
        self.last = 0
        for one in feeds:
            self.last += 1
            yield one


def _combine(outputs: Iterable[OutputComparison]) -> float:
    """SQNR in dB of all float outputs together, each counting the same."""
    found = [one.sqnr_db for one in outputs if one.sqnr_db is not None]
    noise = sum(10.0 ** (-one / 10.0) for one in found) / max(1, len(found))
    return -10.0 * math.log10(noise) if noise > 0.0 else math.inf


def _finite(sqnr_db: float) -> float | None:
    return sqnr_db if math.isfinite(sqnr_db) else None
