"""What stages and the search for a budget work with: samples, sweeps, trials."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import onnx_ir as ir

from onnxq.algorithms.recipe import Recipe
from onnxq.algorithms.sweep import sweep
from onnxq.algorithms.visits import Visit
from onnxq.calibration import add_probes, choose_ranges, observe, write_probed
from onnxq.pipelines.calibrate import Progress
from onnxq.pipelines.trials import Trials
from onnxq.plan.planner import StaticPlanner
from onnxq.runtime.session import Feeds, Session
from onnxq.runtime.signatures import read_signatures
from onnxq.samples import Part

MOST_SAMPLES = 32
"""A sweep looks at so many: what it learns of a layer hardly changes with more."""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What stages work with.

    Attributes:
        part: samples to learn from.
        method: that chooses ranges.
        percentile: for the method of that name, in percent.
        trials: measures recipes on other samples.
        folder: for temporary files.
        progress: shows it.
        extra: more samples to tune layers on, which no range is chosen by; None for none.
    """

    part: Part
    method: str
    percentile: float
    trials: Trials
    folder: Path
    progress: Progress
    extra: Part | None = None

    def read_feeds(self, recipe: Recipe) -> Iterable[Feeds]:
        """Some of the samples, from all over the part."""
        feeds = self.part.read(read_signatures(recipe.model))
        count = self.part.count or 0
        if count <= MOST_SAMPLES:
            return islice(feeds, MOST_SAMPLES)
        chosen = {place * count // MOST_SAMPLES for place in range(MOST_SAMPLES)}
        return (one for at, one in enumerate(feeds) if at in chosen)

    def sweep(
        self,
        recipe: Recipe,
        visits: Mapping[str, Visit],
        label: str,
        *,
        restarts: Collection[ir.Node] = (),
        uses_extra: bool = True,
    ) -> dict[str, Recipe]:
        """One sweep over the layers, with all visits at once."""
        extra = self._read_extra(recipe) if uses_extra else ()
        folder = self.folder / "sweep"
        folder.mkdir()
        results = Path(tempfile.mkdtemp(prefix="tuned-", dir=self.folder))
        try:
            return sweep(
                recipe,
                chain(self.read_feeds(recipe), extra),
                visits,
                folder=folder,
                results=results,
                track=self.progress(label),
                restarts=restarts,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _read_extra(self, recipe: Recipe) -> Iterable[Feeds]:
        return () if self.extra is None else self.extra.read(read_signatures(recipe.model))

    def observe(self, planner: StaticPlanner) -> Recipe:
        """A recipe for another float model, with ranges as it has them on the samples.

        Raises:
            ExecutionError: it cannot be loaded.
            DataError: an activation is NaN.
        """
        plan = planner.plan()
        activations = plan.decisions.activations
        if not activations:
            return Recipe(planner=planner, plan=plan, ranges={})
        probed = add_probes(planner.model, activations, sampled=self.method != "minmax")
        folder = self.folder / "probed"
        folder.mkdir(exist_ok=True)
        session = Session(write_probed(probed, folder), lean=True)
        samples = self.progress("calibrating")(
            self.part.read_samples(session.inputs), self.part.count
        )
        seen = observe(session, probed.probes, samples).by_value
        ranges = choose_ranges(activations, seen, self.method, percentile=self.percentile)
        return Recipe(planner=planner, plan=plan, ranges=ranges)
