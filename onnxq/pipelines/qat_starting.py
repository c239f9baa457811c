"""The quantized model that training starts from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from onnxq.graph.files import load_model
from onnxq.graph.output import Output, write_model
from onnxq.pipelines.calibrate import Progress
from onnxq.pipelines.common import QuantizationResult, prepare_model
from onnxq.pipelines.qat_options import StartOptions
from onnxq.pipelines.qat_start import refuse_stranger
from onnxq.pipelines.static import run_static
from onnxq.plan import DynamicOptions
from onnxq.runtime.session import Session
from onnxq.samples import Part, SampleOptions, Samples, calibration_part, open_samples
from onnxq.training.options import TrainingOptions
from onnxq.verification.comparison import Comparison

SYNTHETIC_LABEL = "synthetic samples"


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where training starts.

    Attributes:
        path: of the model.
        result: of static mode; None for a given start.
        baseline_db: SQNR on the samples held back of what static mode makes of the given samples,
            or of the given start.
        sqnr_db: of the model itself.
        synthetic: samples that the float model made up; None for none.
    """

    path: Path
    result: QuantizationResult | None
    baseline_db: float | None
    sqnr_db: float | None
    synthetic: Part | None = None

    @property
    def synthetic_count(self) -> int:
        """How many synthetic samples there are."""
        return 0 if self.synthetic is None else self.synthetic.count or 0


@dataclass(frozen=True, kw_only=True)
class Starter:
    """Makes it.

    Attributes:
        source: the float model.
        samples: to learn from.
        held_back: to choose by.
        start: what the user asks for.
        training: device and seed.
        keep_metadata: as in the other modes.
        progress: shows it.
        work: folder for everything.
    """

    source: Path
    samples: Samples
    held_back: Part
    start: StartOptions
    training: TrainingOptions
    keep_metadata: bool
    progress: Progress
    work: Path

    def make(self) -> Start:
        """A start; of two by static mode the better one.

        Raises:
            OnnxqError: as in static mode, or the given start is no form of the float model.
        """
        if self.start.init is not None:
            return self._take(self.start.init)
        synthetic = self._synthesize()
        result, path = self._quantize("start", None)
        baseline_db = self._measure(path)
        plain = Start(
            path=path,
            result=result,
            baseline_db=baseline_db,
            sqnr_db=baseline_db,
            synthetic=synthetic,
        )
        if synthetic is None:
            return plain
        result, path = self._quantize("start-synthetic", synthetic)
        found = self._measure(path)
        if baseline_db is None or found is None or found <= baseline_db:
            return plain
        return replace(plain, path=path, result=result, sqnr_db=found)

    def _take(self, path: Path) -> Start:
        """A model of the user, if it is a form of the float model."""
        refuse_stranger(load_model(path).model, path, self.simplify(), self.source)
        found = self._measure(path)
        return Start(
            path=path,
            result=None,
            baseline_db=found,
            sqnr_db=found,
            synthetic=self._synthesize(),
        )

    def simplify(self) -> ir.Model:
        """The float model with its weights as static mode quantizes them."""
        model = load_model(self.source).model
        prepare_model(model, DynamicOptions(), keep_metadata=self.keep_metadata)
        return model

    def _synthesize(self) -> Part | None:
        wanted = self.start.synthetic
        if wanted == 0 or (wanted is None and not self.start.has_few_bits):
            return None
        from onnxq.training.synthetic_samples import write_synthetic_samples

        folder = self.work / "synthetic"
        folder.mkdir()
        count = write_synthetic_samples(
            self.simplify(),
            self.source,
            calibration_part(self.samples),
            folder,
            options=self.training,
            wanted=wanted,
            track=self.progress("making synthetic samples"),
        )
        if not count:
            return None
        return Part(open_samples(folder, options=SampleOptions()), None, SYNTHETIC_LABEL)

    def _quantize(self, name: str, extra: Part | None) -> tuple[QuantizationResult, Path]:
        path = self.work / f"{name}.onnx"
        result = run_static(
            self.source,
            path,
            target=self.start.target,
            options=self.start.static,
            samples=self.samples,
            accuracy=self.start.accuracy,
            keep_metadata=self.keep_metadata,
            progress=self.progress,
            extra=extra,
        )
        return result, self._narrow(path)

    def _narrow(self, path: Path) -> Path:
        """The same with weights of fewer than 4 bits, where those are wanted."""
        bits = self.start.bits_weights or 8
        if bits >= 4:
            return path
        from onnxq.training.masters import find_masters
        from onnxq.training.narrowing import narrow_weights

        file = load_model(path)
        narrow_weights(file.model, bits, find_masters(file.model, self.simplify()))
        folder = self.work / f"narrow-{path.stem}"
        folder.mkdir()
        narrowed = Output(path, folder / path.name)
        write_model(file, narrowed, force=True)
        return narrowed.staged_path

    def _measure(self, path: Path) -> float | None:
        return measure_sqnr_db(self.source, path, self.held_back, self.progress)


def measure_sqnr_db(source: Path, path: Path, held_back: Part, progress: Progress) -> float | None:
    """The mean SQNR of the float outputs of a model as onnxruntime runs it.

    Args:
        source: the float model.
        path: of the other one.
        held_back: samples.
        progress: shows it.

    Returns:
        None where there is no such output, or all are identical.
    """
    reference = Session(source, lean=True)
    comparison = Comparison(reference, Session(path, lean=True))
    track = progress("comparing")
    for feeds in track(held_back.read(reference.inputs), held_back.count):
        comparison.add(feeds, reference.run(feeds))
    found = [one.sqnr_db for one in comparison.results() if one.sqnr_db is not None]
    finite = [one for one in found if math.isfinite(one)]
    return sum(finite) / len(finite) if finite else None
