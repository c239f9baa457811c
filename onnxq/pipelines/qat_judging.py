"""How like the float model a quantized one is, on samples that nothing was tuned on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from onnxq.errors import VerificationError
from onnxq.pipelines.calibrate import Progress
from onnxq.pipelines.reference import Reference
from onnxq.runtime.session import Session
from onnxq.samples import Part, SampleOptions, open_samples
from onnxq.verification.comparison import Comparison

VARIANTS = 64
"""Of the samples held back, which are few: the eight of EfficientNet-Lite0 rank two starts wrongly
(docs/decisions/0042)."""

WORST_DB = -200.0
"""Where a model gives no numbers on a variant that the float model takes."""

VARIANTS_LABEL = "variants of the samples held back"


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """The mean SQNR of the float outputs, as onnxruntime runs the model.

    Attributes:
        held_back_db: on the samples held back; None where there is no such output, or all are
            identical.
        variants_db: on variants of them, likewise; None also where there are none.
    """

    held_back_db: float | None
    variants_db: float | None = None

    @property
    def mean_db(self) -> float | None:
        """Of the two, what decides; None if there is neither.

        >>> Likeness(held_back_db=14.0, variants_db=9.0).mean_db
        11.5
        """
        found = [one for one in (self.held_back_db, self.variants_db) if one is not None]
        return sum(found) / len(found) if found else None

    def is_better_than(self, other: Likeness) -> bool:
        """Whether more of the float model is left; not where one of the two is not known.

        >>> other = Likeness(held_back_db=14.0, variants_db=9.0)
        >>> Likeness(held_back_db=13.5, variants_db=10.0).is_better_than(other)
        True
        """
        own, others = self.mean_db, other.mean_db
        return own is not None and others is not None and own > others


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Measures it.

    Attributes:
        reference: the float model, which runs each sample once for all that are measured.
        held_back: samples.
        variants: of them; None for none.
        progress: shows it.
    """

    reference: Reference
    held_back: Part
    variants: Part | None
    progress: Progress

    @classmethod
    def prepare(
        cls, source: Path, held_back: Part, folder: Path, *, seed: int, progress: Progress
    ) -> Judge:
        """A judge with variants of the samples.

        Args:
            source: the float model.
            held_back: samples.
            folder: for the variants; it is there.
            seed: of the variants.
            progress: shows it.

        Raises:
            DataError: a sample is bad, or the float model cannot run on it.
        """
        from onnxq.training.synthetic_samples import write_variants

        count = write_variants(source, held_back, folder, count=VARIANTS, seed=seed)
        variants = None
        if count:
            variants = Part(open_samples(folder, options=SampleOptions()), None, VARIANTS_LABEL)
        reference = Reference(source)
        return cls(reference=reference, held_back=held_back, variants=variants, progress=progress)

    def measure(self, path: Path) -> Likeness:
        """How like the float model the one at ``path`` is.

        Raises:
            VerificationError: it cannot run on a sample held back, or gives NaN or infinity there.
        """
        held_back_db = self._measure_on(self.held_back, path)
        if self.variants is None:
            return Likeness(held_back_db=held_back_db)
        try:
            variants_db = self._measure_on(self.variants, path)
        except VerificationError:
            # Nobody gave these samples, so nobody could mend them.
            variants_db = WORST_DB
        return Likeness(held_back_db=held_back_db, variants_db=variants_db)

    def _measure_on(self, part: Part, path: Path) -> float | None:
        comparison = Comparison(self.reference, Session(path, lean=True))
        track = self.progress("comparing")
        for sample, expected in track(self.reference.read(part), part.count):
            comparison.add(sample.feeds, expected)
        found = [one.sqnr_db for one in comparison.results() if one.sqnr_db is not None]
        finite = [one for one in found if math.isfinite(one)]
        return sum(finite) / len(finite) if finite else None
