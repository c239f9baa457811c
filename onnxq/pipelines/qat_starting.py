"""The quantized model that training starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from onnxq.graph.files import load_model
from onnxq.graph.output import Output, write_model
from onnxq.pipelines.calibrate import Progress
from onnxq.pipelines.common import QuantizationResult, prepare_model
from onnxq.pipelines.qat_judging import Judge, Likeness
from onnxq.pipelines.qat_options import StartOptions
from onnxq.pipelines.qat_start import refuse_stranger
from onnxq.pipelines.static import run_static
from onnxq.plan import DynamicOptions
from onnxq.samples import Part, SampleOptions, Samples, calibration_part, open_samples
from onnxq.training.options import TrainingOptions

SYNTHETIC_LABEL = "synthetic samples"


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where training starts.

    Attributes:
        path: of the model.
        result: of static mode; None for a given start.
        baseline: likeness of what static mode makes of the given samples, or of the given start.
        likeness: of the model itself.
        synthetic: samples that the float model made up; None for none.
    """

    path: Path
    result: QuantizationResult | None
    baseline: Likeness
    likeness: Likeness
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
        judge: says which start is better.
        start: what the user asks for.
        training: device and seed.
        keep_metadata: as in the other modes.
        progress: shows it.
        work: folder for everything.
    """

    source: Path
    samples: Samples
    judge: Judge
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
        baseline = self.judge.measure(path)
        plain = Start(
            path=path,
            result=result,
            baseline=baseline,
            likeness=baseline,
            synthetic=synthetic,
        )
        if synthetic is None:
            return plain
        result, path = self._quantize("start-synthetic", synthetic)
        found = self.judge.measure(path)
        if not found.is_better_than(baseline):
            return plain
        return replace(plain, path=path, result=result, likeness=found)

    def _take(self, path: Path) -> Start:
        """A model of the user, if it is a form of the float model."""
        refuse_stranger(load_model(path).model, path, self.simplify(), self.source)
        found = self.judge.measure(path)
        return Start(
            path=path,
            result=None,
            baseline=found,
            likeness=found,
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
