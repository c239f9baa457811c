"""What fine-tuning gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxq.pipelines.common import QuantizationResult
from onnxq.pipelines.qat_judging import Likeness
from onnxq.verification import Verification

if TYPE_CHECKING:
    from onnxq.training.fine_tuning import Tuned
    from onnxq.training.history import History


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What was trained.

    Attributes:
        source: the float model.
        output: where the trained model is.
        start: what training started from: 'static' or a path.
        start_result: of static mode; None for a given start.
        baseline: likeness of what static mode makes of the given samples, or of the given start.
        begun: of what training starts from; another where it was tuned on synthetic samples, too.
        reached: of the result.
        synthetic: how many samples the float model made up.
        tuned: the training.
        kept: whether the result is the trained model; otherwise it is the start.
        float_size_bytes: of the float model.
        size_bytes: of the result.
        verification: of the result.
        notes: what a user should know.
    """

    source: Path
    output: Path
    start: str
    start_result: QuantizationResult | None
    baseline: Likeness
    begun: Likeness
    reached: Likeness
    synthetic: int
    tuned: Tuned
    kept: bool
    float_size_bytes: int
    size_bytes: int
    verification: Verification
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def history(self) -> History:
        """The learning curve."""
        return self.tuned.history

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything above."""
        started = self.start_result
        return {
            "schema_version": 1,
            "mode": "qat",
            "source": str(self.source),
            "output": str(self.output),
            "start": self.start,
            "start_sqnr_db": self.baseline.held_back_db,
            "retuned_sqnr_db": self.begun.held_back_db,
            "sqnr_db": self.reached.held_back_db,
            "start_variants_sqnr_db": self.baseline.variants_db,
            "retuned_variants_sqnr_db": self.begun.variants_db,
            "variants_sqnr_db": self.reached.variants_db,
            "synthetic_samples": self.synthetic,
            "kept": self.kept,
            "float_size_bytes": self.float_size_bytes,
            "size_bytes": self.size_bytes,
            "training": self.tuned.to_json(),
            "notes": list(self.notes),
            "verification": self.verification.to_json(),
            "static": None if started is None else started.to_json(),
        }
