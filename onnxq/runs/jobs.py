"""A pipeline as plain values: what is to be done with each model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from onnxq.pipelines import Budget, RangeOptions
from onnxq.pipelines.compare import CompareOptions
from onnxq.plan import DynamicOptions, StaticOptions
from onnxq.samples import SampleOptions, Samples, open_samples


@dataclass(frozen=True, kw_only=True)
class SampleChoice:
    """Which samples.

    Attributes:
        folder: of them; None with ``reader``.
        reader: 'module:function'; None with ``folder``.
        options: how many, and how images become inputs.
    """

    folder: Path | None = None
    reader: str | None = None
    options: SampleOptions = field(default_factory=SampleOptions)

    def open(self) -> Samples:
        """The samples.

        Raises:
            UsageError, DataError: see ``open_samples``.
        """
        return open_samples(self.folder, reader=self.reader, options=self.options)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A comparison with the float model.

    Attributes:
        samples: to compare on.
        options: what to measure, and the limits.
        reports: files to write.
    """

    samples: SampleChoice
    options: CompareOptions
    reports: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Where ranges of activations come from, or how 4-bit weights of a dynamic model are rounded.

    Attributes:
        samples: None with ``load`` only; all that a dynamic model has.
        options: how ranges are chosen.
        accuracy: level of techniques; None for the default.
        budget: that the result has to meet.
        load: a file of ranges; None to calibrate.
        save: a file to write them to; None for none.
    """

    samples: SampleChoice | None
    options: RangeOptions
    accuracy: str | None = None
    budget: Budget = field(default_factory=Budget)
    load: Path | None = None
    save: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    """One model. Paths are relative to the folder of the pipeline file, as they are given.

    Attributes:
        name: how messages call it.
        source: the float model.
        output: the quantized model.
        target: name of a target.
        options: of the mode; their class says which mode.
        keep_metadata: keep the texts that exporters leave at nodes.
        calibration: None for dynamic without samples.
        evaluation: None for the verification of the mode only.
    """

    name: str
    source: Path
    output: Path
    target: str
    options: DynamicOptions | StaticOptions
    keep_metadata: bool = False
    calibration: Calibration | None = None
    evaluation: Evaluation | None = None

    @property
    def key(self) -> str:
        """What the lock calls it: no two models have the same output."""
        return self.output.as_posix()

    @property
    def mode(self) -> str:
        """'dynamic' or 'static'."""
        return "dynamic" if isinstance(self.options, DynamicOptions) else "static"


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file, read and found right.

    Attributes:
        path: of the file.
        jobs: in its order.
    """

    path: Path
    jobs: tuple[ModelJob, ...]

    @property
    def folder(self) -> Path:
        """What paths in it are relative to."""
        return self.path.resolve().parent

    @property
    def lock_path(self) -> Path:
        """'onnxq.lock' beside 'onnxq.toml'."""
        return self.path.with_suffix(".lock")
