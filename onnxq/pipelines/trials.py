"""Trying recipes: each is written as the model that it would be, and run on samples held back."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxq.algorithms.recipe import Recipe, apply_recipe
from onnxq.algorithms.simulation import simulate_activations
from onnxq.comparison.labels import Labels
from onnxq.comparison.scoring import LabelScorer
from onnxq.errors import ExecutionError, VerificationError
from onnxq.graph.files import ModelFile
from onnxq.graph.output import Output, write_model
from onnxq.numerics.affine import Array
from onnxq.numerics.metrics import ErrorAccumulator, mean_sqnr_db
from onnxq.numerics.probabilities import are_probabilities, to_log_odds, to_logits
from onnxq.pipelines.calibrate import Progress
from onnxq.pipelines.reference import Reference
from onnxq.rules.probabilities import find_sigmoid_outputs
from onnxq.runtime.session import Session
from onnxq.samples import Part
from onnxq.verification.comparison import Comparison


@dataclass(frozen=True)
class Score:
    """How a recipe does on samples held back.

    Attributes:
        sqnr_db: of all float outputs together, each counting the same; probabilities as
            logits. -infinity where the model failed, NaN where no output holds floats.
        agreement: the lowest share of places where an output that holds scores has its largest at
            the same index; None if there is none.
        accuracy_drop: top-1 accuracy of the float model less that of this one, in points; without
            labels the share of places where they disagree. None if neither can be told.
    """

    sqnr_db: float
    agreement: float | None = None
    accuracy_drop: float | None = None

    @property
    def finite_db(self) -> float | None:
        """The SQNR; None where the model failed or is identical."""
        return self.sqnr_db if math.isfinite(self.sqnr_db) else None


FAILED = Score(-math.inf)

LARGE_BYTES = 500_000_000
"""Float models from this size on have their recipes measured one after the other: each holds as
much as the float model, or a quarter of that, and memory has to hold few of them."""


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Writes recipes and measures them.

    Attributes:
        file: the float model; for what is written beside the graph.
        staged: where the result will be.
        evaluation: the samples.
        progress: shows it.
        reference: the float model, as it was.
        limit: use so many of them; None for all.
        labels: classes of samples; None without.
    """

    file: ModelFile
    staged: Output
    evaluation: Part
    progress: Progress
    reference: Reference
    limit: int | None = None
    labels: Labels | None = None

    def measure(self, recipes: Mapping[str, Recipe], label: str) -> dict[str, Score]:
        """How each recipe does, as it would be written; the float model is run once for all.

        Args:
            recipes: by a name for each.
            label: of the progress.

        Raises:
            OutputError: a model cannot be written.
        """
        return self._measure(recipes, label, apply_recipe)

    def measure_activations(self, recipes: Mapping[str, Recipe], label: str) -> dict[str, Score]:
        """How the activations of each recipe do, with the weights of the float model.

        Args:
            recipes: by a name for each.
            label: of the progress.

        Raises:
            OutputError: a model cannot be written.
        """
        return self._measure(recipes, label, simulate_activations, keeps_float_layers=True)

    def _measure(
        self,
        recipes: Mapping[str, Recipe],
        label: str,
        make: Callable[[Recipe], ir.Model],
        *,
        keeps_float_layers: bool = False,
    ) -> dict[str, Score]:
        folder = self.staged.staged_path.parent / "trials"

        def open_session(recipe: Recipe) -> Session:
            path = self._write(make(recipe), Path(tempfile.mkdtemp(dir=folder)))
            return Session(path, lean=True, keeps_float_layers=keeps_float_layers)

        folder.mkdir()
        groups = [recipes]
        if self.file.size_bytes >= LARGE_BYTES:
            groups = [{name: recipe} for name, recipe in recipes.items()]
        try:
            scores: dict[str, Score] = {}
            for group in groups:
                scores |= self._compare(group, label, open_session)
            return scores
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, model: ir.Model, folder: Path) -> Path:
        output = Output(self.staged.path, folder / self.staged.path.name)
        write_model(replace(self.file, model=model), output, force=True)
        return output.staged_path

    def _compare(
        self,
        recipes: Mapping[str, Recipe],
        label: str,
        open_session: Callable[[Recipe], Session],
    ) -> dict[str, Score]:
        reference, names = self.reference, self.reference.output_names
        comparisons = {}
        labels = self.labels
        scorers = {} if labels is None else {name: LabelScorer(labels) for name in recipes}
        errors = {name: _Errors(find_sigmoid_outputs(self.file.model.graph)) for name in recipes}
        for name, recipe in recipes.items():
            try:
                session = open_session(recipe)
            except ExecutionError:
                continue
            comparisons[name] = Comparison(reference, session)
        read = islice(reference.read(self.evaluation), self.limit)
        for sample, expected in self.progress(label)(read, self.evaluation.count):
            for name, comparison in list(comparisons.items()):
                try:
                    measured = comparison.add(sample.feeds, expected)
                except VerificationError:
                    del comparisons[name]
                    continue
                errors[name].add(names, expected, measured)
                if name in scorers:
                    scorers[name].add(
                        sample,
                        dict(zip(names, expected, strict=True)),
                        dict(zip(names, measured, strict=True)),
                    )
        return {
            name: _score(comparisons[name], errors[name], scorers.get(name))
            if name in comparisons
            else FAILED
            for name in recipes
        }


class _Errors:
    """Errors of the float outputs, of probabilities on the scale on which they are computed."""

    def __init__(self, sigmoid_outputs: frozenset[str]) -> None:
        self._sigmoid_outputs = sigmoid_outputs
        self._found: dict[str, ErrorAccumulator] = {}

    def add(self, names: Sequence[str], expected: Sequence[Any], measured: Sequence[Any]) -> None:
        """Add one sample."""
        for name, one, other in zip(names, expected, measured, strict=True):
            if isinstance(one, np.ndarray) and one.dtype.kind == "f" and one.size:
                widen = self._find_scale(name, one)
                self._found.setdefault(name, ErrorAccumulator()).add(widen(one), widen(other))

    def _find_scale(self, name: str, expected: Array) -> Callable[[Array], Array]:
        if name in self._sigmoid_outputs:
            return to_log_odds
        return to_logits if are_probabilities(expected) else np.asarray

    @property
    def sqnr_db(self) -> float:
        """Of all outputs together; NaN without any."""
        return mean_sqnr_db(self._found.values()) if self._found else math.nan


def _score(comparison: Comparison, errors: _Errors, scorer: LabelScorer | None) -> Score:
    shares = [one.agreement for one in comparison.results() if one.agreement is not None]
    agreement = min(shares, default=None)
    drop = None if agreement is None else 100.0 * (1.0 - agreement)
    metrics = () if scorer is None else scorer.results()
    if metrics:
        drop = 100.0 * (metrics[0].float_value - metrics[0].quantized_value)
    return Score(errors.sqnr_db, agreement, drop)
