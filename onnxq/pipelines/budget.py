"""How accurate a mix of integers and floats has to be, and what was tried to get there."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxq.comparison.labels import Labels, find_labels
from onnxq.errors import DataError, UsageError
from onnxq.pipelines.trials import Score


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a result has to reach on the samples held back; None for no such limit.

    Attributes:
        min_sqnr_db: of all float outputs together, probabilities as logits.
        min_agreement: share of places with the same largest score, 0 to 1.
        max_accuracy_drop: of top-1, in points; without labels, places that disagree, in percent.
        labels: file with the classes of samples; None to look beside them.
        time_limit_s: after which the search ends; None for never.
    """

    min_sqnr_db: float | None = None
    min_agreement: float | None = None
    max_accuracy_drop: float | None = None
    labels: Path | None = None
    time_limit_s: float | None = None

    @classmethod
    def parse(
        cls,
        min_sqnr_db: float | None = None,
        min_agreement_percent: float | None = None,
        max_accuracy_drop: float | None = None,
        labels: str | os.PathLike[str] | None = None,
        time_limit_s: float | None = None,
    ) -> Budget:
        """A budget as users write it.

        Raises:
            UsageError: a limit has no meaning.
        """
        if min_agreement_percent is not None and not 0.0 < min_agreement_percent <= 100.0:
            raise UsageError(
                f"--min-agreement {min_agreement_percent:g} is no share in percent: 0 to 100"
            )
        if min_sqnr_db is not None and not math.isfinite(min_sqnr_db):
            raise UsageError(f"--min-sqnr {min_sqnr_db} is no number of dB")
        if time_limit_s is not None and not time_limit_s > 0.0:
            raise UsageError(f"--time-limit {time_limit_s:g} is no time in seconds: more than 0")
        if max_accuracy_drop is not None and not max_accuracy_drop >= 0.0:
            raise UsageError(
                f"--max-accuracy-drop {max_accuracy_drop:g} is no number of points: 0 or more"
            )
        if labels is not None and max_accuracy_drop is None:
            raise UsageError("--labels has no meaning without --max-accuracy-drop: leave it out")
        limits = (min_sqnr_db, min_agreement_percent, max_accuracy_drop)
        if time_limit_s is not None and all(limit is None for limit in limits):
            raise UsageError(
                "--time-limit is for the search that --min-sqnr, --min-agreement or "
                "--max-accuracy-drop start: leave it out"
            )
        share = None if min_agreement_percent is None else min_agreement_percent / 100.0
        return cls(
            min_sqnr_db=min_sqnr_db,
            min_agreement=share,
            max_accuracy_drop=max_accuracy_drop,
            labels=None if labels is None else Path(labels),
            time_limit_s=time_limit_s,
        )

    @property
    def is_set(self) -> bool:
        """Whether there is a limit to reach."""
        limits = (self.min_sqnr_db, self.min_agreement, self.max_accuracy_drop)
        return any(limit is not None for limit in limits)

    def find_labels(self, folder: Path | None) -> Labels | None:
        """The classes of samples, where they are asked for.

        Raises:
            DataError: they cannot be read, or have no names.
        """
        if self.max_accuracy_drop is None:
            return None
        labels = find_labels(folder, self.labels)
        if labels is not None and labels.sequence is not None:
            raise DataError(
                f"{labels.source}: labels without names do not tell which samples are held back; "
                "give .json or .csv"
            )
        return labels

    def is_met(self, score: Score) -> bool:
        """Whether a score is good enough."""
        if self.min_sqnr_db is not None and not score.sqnr_db >= self.min_sqnr_db:
            return False
        if self.min_agreement is not None and (score.agreement or 0.0) < self.min_agreement:
            return False
        if self.max_accuracy_drop is None:
            return True
        return score.accuracy_drop is not None and score.accuracy_drop <= self.max_accuracy_drop

    def find_unmeasured(self, score: Score) -> str:
        """Which limit nothing in the outputs of the model can be held to; empty where all can."""
        if self.min_sqnr_db is not None and math.isnan(score.sqnr_db):
            return "no output holds floats, so --min-sqnr has nothing to measure: leave it out"
        has_failed = score.sqnr_db == -math.inf
        if self.min_agreement is not None and score.agreement is None and not has_failed:
            return "no output holds scores, so --min-agreement has nothing to measure: leave it out"
        if self.max_accuracy_drop is not None and score.accuracy_drop is None and not has_failed:
            return (
                "no output holds scores, so --max-accuracy-drop has nothing to measure: leave it "
                "out"
            )
        return ""

    @property
    def allowed_noise(self) -> float:
        """Error of the outputs as a share of their power; infinite where SQNR is no limit."""
        return math.inf if self.min_sqnr_db is None else float(10 ** (-self.min_sqnr_db / 10))

    def describe(self, score: Score) -> str:
        """What was reached, beside what is asked."""
        parts = []
        if self.min_sqnr_db is not None:
            parts.append(f"{score.sqnr_db:.2f} dB of {self.min_sqnr_db:g} dB")
        if self.min_agreement is not None:
            reached = "no scores" if score.agreement is None else f"{100 * score.agreement:.2f} %"
            parts.append(f"agreement {reached} of {100 * self.min_agreement:g} %")
        if self.max_accuracy_drop is not None:
            drop = "no scores" if score.accuracy_drop is None else f"{score.accuracy_drop:.2f}"
            parts.append(f"accuracy drop {drop} of {self.max_accuracy_drop:g} points")
        return ", ".join(parts)


@dataclass(frozen=True)
class TradeOff:
    """One point of the curve.

    Attributes:
        kept_float: names of the blocks in float.
        sqnr_db: on the samples held back; None where the model failed.
        agreement: likewise; None without scores.
        accuracy_drop: in points; None where it is not known.
        kept_gain: share of what integers save that is kept, as the target estimates it.
        is_met: whether the budget is.
        wide: names of the blocks in 16 bits.
    """

    kept_float: tuple[str, ...]
    sqnr_db: float | None
    agreement: float | None
    accuracy_drop: float | None
    kept_gain: float
    is_met: bool
    wide: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "kept_float": list(self.kept_float), "wide": list(self.wide)}
