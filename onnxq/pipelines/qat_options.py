"""What a user can ask of fine-tuning: where it starts, and what it learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxq.errors import UsageError
from onnxq.plan import StaticOptions
from onnxq.schemes import ActivationScheme, ActivationType, WeightType
from onnxq.targets import Target
from onnxq.training.options import DEFAULT_STEPS, STEPS_AT_FEW_LEVELS

WEIGHT_TYPES = {8: WeightType.INT8, 4: WeightType.INT4, 3: WeightType.INT4, 2: WeightType.INT4}
ACTIVATION_TYPES = {8: ActivationType.UINT8, 4: ActivationType.UINT4}


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """Where training starts.

    Attributes:
        init: a quantized model; None for the best result of static mode.
        bits_weights: 8, 4, 3 or 2.
        bits_activations: 8 or 4.
        accuracy: level of static mode.
        target: to quantize for.
        synthetic: samples that the float model makes up; None for as many as pay where bits are
            few.

    Raises:
        UsageError: bits that there are not, or with a model that has its own.
    """

    init: Path | None = None
    bits_weights: int | None = None
    bits_activations: int | None = None
    accuracy: str = "best"
    target: Target
    synthetic: int | None = None

    def __post_init__(self) -> None:
        if self.synthetic is not None and self.synthetic < 0:
            raise UsageError(f"--synthetic {self.synthetic}: give 0, for none, or more")
        for option, bits, known in (
            ("--bits-weights", self.bits_weights, tuple(WEIGHT_TYPES)),
            ("--bits-activations", self.bits_activations, tuple(ACTIVATION_TYPES)),
        ):
            if bits is None:
                continue
            if bits not in known:
                raise UsageError(f"{option} {bits}: choose from {', '.join(map(str, known))}")
            if self.init is not None:
                raise UsageError(f"{option}: --init FILE has its own bits: leave it out")

    @property
    def has_few_bits(self) -> bool:
        """Whether what is rounded away is so much that the given samples are soon fitted."""
        return min(self.bits_weights or 8, self.bits_activations or 8) <= 4

    @property
    def steps(self) -> int:
        """Of a training whose length nobody has set."""
        return STEPS_AT_FEW_LEVELS if (self.bits_activations or 8) <= 4 else DEFAULT_STEPS

    @property
    def static(self) -> StaticOptions:
        """What static mode has to do for it."""
        return StaticOptions(
            weights=WEIGHT_TYPES[self.bits_weights or 8],
            activations=ActivationScheme(type=ACTIVATION_TYPES[self.bits_activations or 8]),
        )


@dataclass(frozen=True, kw_only=True)
class LessonOptions:
    """What is learned.

    Attributes:
        labels: file with classes; None to learn from the float model alone.
        loss: 'module:function'; None for the losses of onnxq.
        layers: tensors inside that are compared, too.
        checkpoint: file to write while training; None for none.
        resume: whether to go on from it.
        blockwise: block after block instead of the whole model at once.
        keeps_integers: scales, biases and floats only; the integers of weights stay.

    Raises:
        UsageError: options that contradict each other.
    """

    labels: Path | None = None
    loss: str | None = None
    layers: tuple[str, ...] = ()
    checkpoint: Path | None = None
    resume: bool = False
    blockwise: bool = False
    keeps_integers: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            raise UsageError("--resume goes on from a checkpoint: name it with --checkpoint FILE")
        if self.loss is not None and (self.labels is not None or self.layers):
            raise UsageError("--loss is the whole loss: leave out --labels and --distill-layers")
        if self.blockwise and (self.loss or self.labels or self.layers or self.checkpoint):
            raise UsageError(
                "--blockwise compares blocks with those of the float model: leave out --loss, "
                "--labels, --distill-layers and --checkpoint"
            )
