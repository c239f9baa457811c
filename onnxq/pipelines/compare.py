"""Comparing a float model with its quantized form."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from onnxq.comparison.accuracy import measure_accuracy
from onnxq.comparison.execution import describe_execution
from onnxq.comparison.footprint import measure_footprint, size_on_disk
from onnxq.comparison.gates import check_gates, check_limits
from onnxq.comparison.labels import find_labels
from onnxq.comparison.latency import measure_latency
from onnxq.comparison.layers import measure_layers
from onnxq.comparison.results import ComparisonReport, Footprint, Latency, LayerError
from onnxq.comparison.scoring import FunctionScorer, LabelScorer, Scorer
from onnxq.comparison.verdict import write_verdict
from onnxq.errors import (
    DataError,
    ExecutionError,
    InvalidModelError,
    OutputError,
    UnsupportedModelError,
    UsageError,
)
from onnxq.graph.files import load_model
from onnxq.graph.output import is_no_room
from onnxq.pipelines.calibrate import Progress
from onnxq.pipelines.common import pass_through
from onnxq.rules.quantized import find_quantization
from onnxq.runtime.memory import refuse_beyond_memory
from onnxq.runtime.session import Feeds, Session
from onnxq.samples import Sample, Samples
from onnxq.samples.user_code import load_function

FULL, NONE = "all", "none"
"""Levels of optimisation."""

LATENCY_SAMPLES = 4

MOST_THREADS = 1024
"""The runtime starts all of them: a million took 3 GB, and could not be interrupted."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What to measure, and what to insist on.

    Attributes:
        limits: by the name of their rule in ``GATE_RULES``.
        labels: a file of labels; None to look for one beside the data.
        metric: 'module:function' that rates outputs; None for none.
        layers: find which layers the error comes from.
        latency: measure times.
        threads: for one operator, while times are measured.
        rounds: of that measurement.
        footprint: measure load time and memory, in processes of their own.

    Raises:
        UsageError: a number that makes no sense.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    labels: Path | None = None
    metric: str | None = None
    layers: bool = False
    latency: bool = True
    threads: int = 1
    rounds: int = 15
    footprint: bool = True

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise UsageError(f"--threads {self.threads}: give 0 (all) or more")
        if self.threads > MOST_THREADS:
            raise UsageError(f"--threads {self.threads}: give at most {MOST_THREADS}, or 0 (all)")
        if self.rounds < 1:
            raise UsageError(f"--rounds {self.rounds}: give 1 or more")


def run_compare(
    float_path: Path,
    quantized_path: Path,
    *,
    samples: Samples,
    options: CompareOptions | None = None,
    progress: Progress | None = None,
) -> ComparisonReport:
    """Run both models over samples and measure what differs.

    Raises:
        ExecutionError: a model does not load.
        DataError: samples, labels or the user's metric do not fit.
        VerificationError: the quantized model fails where the float model works.
        UsageError: a gate or function that does not exist.
    """
    options = options or CompareOptions()
    check_limits(options.limits)
    show = progress or (lambda _label: pass_through)
    with _make_temporary_folder() as folder:
        job = _Comparing(float_path, quantized_path, samples, options, show, folder)
        report = job.run()
    report = replace(report, gates=check_gates(report, options.limits))
    return replace(report, verdict=write_verdict(report))


@contextlib.contextmanager
def _make_temporary_folder() -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="onnxq-") as folder:
            yield Path(folder)
    except OSError as error:
        if not is_no_room(error):
            raise
        raise OutputError(
            f"{tempfile.gettempdir()}: no room left for temporary files; free some, or set TMPDIR "
            "to another folder"
        ) from error


@dataclass(frozen=True)
class _Comparing:
    """One comparison, with everything that its steps share."""

    float_path: Path
    quantized_path: Path
    samples: Samples
    options: CompareOptions
    progress: Progress
    folder: Path

    def run(self) -> ComparisonReport:
        """Accuracy, task metrics, layers, times, sizes, and what the runtime makes of it."""
        self._refuse_harmful_models()
        reference = Session(self.float_path)
        sessions, notes = self._open_quantized()
        self._refuse_stranger(reference, sessions[FULL])
        scorers = self._make_scorers(notes)
        found = measure_accuracy(reference, sessions, self._read(reference, "comparing"), scorers)
        feeds = [
            sample.feeds for sample in islice(self.samples.read(reference.inputs), LATENCY_SAMPLES)
        ]
        first = feeds[0] if feeds else None
        notes += self._find_notes()
        return ComparisonReport(
            float_path=self.float_path,
            quantized_path=self.quantized_path,
            data=self.samples.label,
            samples=found.samples,
            outputs=found.outputs[FULL],
            metrics=found.metrics,
            latency=self._measure_latency(feeds),
            float_footprint=self._measure_footprint(self.float_path, first),
            quantized_footprint=self._measure_footprint(self.quantized_path, first),
            executions=tuple(
                describe_execution(
                    self.quantized_path, level=level, outputs=outputs, folder=self.folder
                )
                for level, outputs in found.outputs.items()
            ),
            layers=self._measure_layers(reference),
            notes=(*self.samples.notes, *notes),
        )

    def _refuse_harmful_models(self) -> None:
        """Weights outside the folder of a model, or more than memory can hold."""
        sizes = []
        for path in (self.float_path, self.quantized_path):
            # onnxruntime runs some models that onnxq does not take, and says what is wrong
            # with the others.
            with contextlib.suppress(InvalidModelError, UnsupportedModelError):
                sizes.append(load_model(path).size_bytes)
        refuse_beyond_memory(
            self.float_path, sum(sizes), advice="free some, or compare on a larger machine"
        )

    def _refuse_stranger(self, reference: Session, quantized: Session) -> None:
        own, wanted = (sorted(one.name for one in two.inputs) for two in (quantized, reference))
        if own != wanted:
            raise InvalidModelError(
                f"{self.quantized_path}: takes {', '.join(own)}, and {self.float_path} takes "
                f"{', '.join(wanted)}: they are no two forms of one model; name such"
            )

    def _open_quantized(self) -> tuple[dict[str, Session], list[str]]:
        sessions = {FULL: Session(self.quantized_path)}
        try:
            sessions[NONE] = Session(self.quantized_path, optimization=NONE)
        except ExecutionError as error:
            return sessions, [f"does not load without optimisation: {error.reason}"]
        return sessions, []

    def _read(self, reference: Session, label: str) -> Iterable[Sample]:
        return self.progress(label)(self.samples.read(reference.inputs), self.samples.count)

    def _make_scorers(self, notes: list[str]) -> list[Scorer]:
        scorers: list[Scorer] = []
        try:
            labels = find_labels(self.samples.folder, self.options.labels)
        except DataError as error:
            if self.options.labels is not None:
                raise
            labels = None
            notes.append(f"no labels are used: {error}")
        if labels is not None:
            scorers.append(LabelScorer(labels))
        if self.options.metric is not None:
            found = load_function("--metric", self.options.metric)
            scorers.insert(0, FunctionScorer(found))
        return scorers

    def _find_notes(self) -> Iterator[str]:
        skipped = len(self.samples.skipped)
        if skipped:
            yield f"{skipped} bad sample{'' if skipped == 1 else 's'} left out"
        evidence = find_quantization(load_model(self.float_path).model)
        if evidence is not None:
            yield f"{self.float_path} is quantized itself: {evidence}"

    def _measure_latency(self, feeds: list[Feeds]) -> Latency | None:
        if not self.options.latency:
            return None
        return measure_latency(
            self.float_path,
            self.quantized_path,
            feeds,
            threads=self.options.threads,
            rounds=self.options.rounds,
        )

    def _measure_footprint(self, path: Path, feeds: Feeds | None) -> Footprint:
        if not self.options.footprint:
            return Footprint(size_bytes=size_on_disk(path))
        return measure_footprint(path, feeds)

    def _measure_layers(self, reference: Session) -> tuple[LayerError, ...]:
        if not self.options.layers:
            return ()
        samples = self._read(reference, "comparing layers")
        return measure_layers(self.float_path, self.quantized_path, samples, folder=self.folder)
