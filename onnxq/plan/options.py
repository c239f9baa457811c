"""What a user can ask of the planner."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from onnxq.errors import UsageError
from onnxq.schemes import (
    ActivationScheme,
    ActivationType,
    CalibratedFormat,
    Scheme,
    WeightType,
)
from onnxq.targets import Target


def parse_weight_type(name: str) -> WeightType:
    """The weight type called ``name``.

    Raises:
        UsageError: there is none.

    >>> parse_weight_type("int8")
    <WeightType.INT8: 'int8'>
    """
    try:
        return WeightType(name)
    except ValueError:
        known = ", ".join(one.value for one in WeightType)
        raise UsageError(f"no weight type is called '{name}'; known types: {known}") from None


def parse_activation_type(name: str) -> ActivationType:
    """The activation type called ``name``.

    Raises:
        UsageError: there is none.

    >>> parse_activation_type("uint8")
    <ActivationType.UINT8: 'uint8'>
    """
    try:
        return ActivationType(name)
    except ValueError:
        known = ", ".join(one.value for one in ActivationType)
        raise UsageError(f"no activation type is called '{name}'; known types: {known}") from None


def parse_calibrated_format(name: str) -> CalibratedFormat:
    """The format called ``name``.

    Raises:
        UsageError: there is none.

    >>> parse_calibrated_format("qdq")
    <CalibratedFormat.PAIRS: 'qdq'>
    """
    try:
        return CalibratedFormat(name)
    except ValueError:
        known = ", ".join(one.value for one in CalibratedFormat)
        raise UsageError(f"no format is called '{name}'; known formats: {known}") from None


@dataclass(frozen=True, kw_only=True)
class DynamicOptions:
    """Options of ``onnxq dynamic`` that change the result.

    Attributes:
        weights: type that weights are stored in.
        per_channel: one scale for each output channel; False for one a tensor.
        block_size: elements that share a scale in 4-bit weights; None for the target's default.
        symmetric: None for the default of the type (asymmetric for 4 bits and the unsigned ones).
        reduce_range: 7-bit weights for integer kernels that add pairs of products; None for the
            target's default.
        storage: also store weights small that no integer kernel reads.
        folds_constants: whether the runtime widens such weights at load; where it would do so at
            every run, they stay float.
        include: globs on node names; empty for all nodes.
        exclude: globs on node names to leave alone.
        op_types: operator types to quantize; empty for all.

    Raises:
        UsageError: options that contradict each other.
    """

    weights: WeightType = WeightType.INT8
    per_channel: bool = True
    block_size: int | None = None
    symmetric: bool | None = None
    reduce_range: bool | None = None
    storage: bool = True
    folds_constants: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.weights is WeightType.INT16:
            raise UsageError("int16 weights need calibrated activations; use onnxq static")
        four_bit = self.weights.bits == 4
        if self.block_size is not None and not four_bit:
            raise UsageError(
                f"--block-size is for 4-bit weights; {self.weights.value} has none: leave it out"
            )
        if self.block_size is not None and not (
            16 <= self.block_size <= 256 and self.block_size & (self.block_size - 1) == 0
        ):
            raise UsageError(
                f"--block-size {self.block_size}: the kernels take 16, 32, 64, 128 and 256"
            )
        if self.weights.is_half:
            self._refuse_for_half()

    @property
    def is_symmetric(self) -> bool:
        """Whether integers are symmetric around real 0. Blocks of 4 bits have zero points."""
        if self.symmetric is not None:
            return self.symmetric
        return self.weights.is_signed and self.weights.bits > 4

    def reduces_range(self, target: Target) -> bool:
        """Whether weights that an integer kernel reads have 7 bits. Kernels for uint8 are exact."""
        if self.reduce_range is not None:
            return self.reduce_range
        return self.weights is not WeightType.UINT8 and not target.adds_products_exactly

    def _refuse_for_half(self) -> None:
        for value, option in (
            (not self.per_channel, "--per-tensor"),
            (self.symmetric is not None, "--symmetric/--asymmetric"),
            (bool(self.reduce_range), "--reduce-range"),
            (not self.storage, "--no-storage"),
        ):
            if value:
                raise UsageError(
                    f"{option} has no meaning for {self.weights.value} weights: leave it out"
                )


CALIBRATED_WEIGHT_TYPES = (
    WeightType.INT8,
    WeightType.UINT8,
    WeightType.INT4,
    WeightType.INT16,
)


@dataclass(frozen=True, kw_only=True)
class StaticOptions:
    """Options of ``onnxq static`` that change the plan.

    Attributes:
        activations: integers that activations become.
        weights: type of the weights of calibrated layers.
        per_channel: one scale for each output channel of a weight; False for one a tensor.
        symmetric_weights: None for the default of the type: asymmetric for the unsigned one, and
            for int4 where the target subtracts zero points at load.
        reduce_range: 7-bit weights for integer kernels that add pairs of products; None for the
            target's default.
        dynamic_matmul: leave matrix products between float tensors to the dynamic form; None for
            the target's default.
        format: how calibrated integers are written down.
        storage: also store weights small that no integer kernel reads.
        include: globs on node names; empty for all nodes.
        exclude: globs on node names to leave alone.
        op_types: operator types to quantize; empty for all.

    Raises:
        UsageError: options that contradict each other.
    """

    activations: ActivationScheme = field(default_factory=ActivationScheme)
    weights: WeightType = WeightType.INT8
    per_channel: bool = True
    symmetric_weights: bool | None = None
    reduce_range: bool | None = None
    dynamic_matmul: bool | None = None
    format: CalibratedFormat = CalibratedFormat.PAIRS
    storage: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    op_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.weights not in CALIBRATED_WEIGHT_TYPES:
            known = ", ".join(one.value for one in CALIBRATED_WEIGHT_TYPES)
            raise UsageError(
                f"--weights {self.weights.value} cannot be calibrated; types that can: {known}"
            )
        if self.weights.bits != 8 and self.reduce_range:
            raise UsageError(
                f"--reduce-range is for 8-bit weights, not {self.weights.value}: leave it out"
            )
        if self.writes_operators:
            self._refuse_for_operators()

    @property
    def writes_operators(self) -> bool:
        """Whether calibrated nodes become operators that compute on integers by themselves."""
        return self.format is CalibratedFormat.OPERATORS

    def weight_scheme(self, target: Target) -> Scheme:
        """The scheme of calibrated weights, but for its axes."""
        symmetric = self.symmetric_weights
        if symmetric is None:
            # Zero points cost nothing where they are subtracted once, at load.
            symmetric = self.weights.is_signed and not (
                self.weights is WeightType.INT4 and target.folds_casts
            )
        reduces = self.reduce_range
        if reduces is None:
            both_8_bits = self.weights is WeightType.INT8 and self.activations.type.bits == 8
            reduces = both_8_bits and not target.adds_products_exactly
        return Scheme(type=self.weights, symmetric=symmetric, reduce_range=reduces)

    @property
    def uncalibrated(self) -> DynamicOptions:
        """What to do with weights that no calibrated layer reads."""
        if self.weights.bits == 16 or self.activations.type.bits == 16:
            # Who asks for 16 bits does not want 8 anywhere.
            return DynamicOptions(
                weights=WeightType.FP16,
                include=self.include,
                exclude=self.exclude,
                op_types=self.op_types,
            )
        return DynamicOptions(
            per_channel=self.per_channel,
            reduce_range=self.reduce_range,
            storage=self.storage,
            folds_constants=not self.writes_operators,
            include=self.include,
            exclude=self.exclude,
            op_types=self.op_types,
        )

    @property
    def wide_activations(self) -> ActivationScheme:
        """Activations of nodes that are computed in 16 bits for accuracy."""
        signed = self.activations.type.is_signed
        wide = ActivationType.INT16 if signed else ActivationType.UINT16
        return replace(self.activations, type=wide)

    def can_widen(self, target: Target) -> bool:
        """Whether some nodes can have 16 bits instead of the types asked for."""
        has_wide = max(self.activations.type.bits, self.weights.bits) > 8
        return target.wide_gain > 0.0 and not has_wide and not self.writes_operators

    def check_target(self, target: Target) -> None:
        """Refuse types that a target has no kernels for.

        Raises:
            UsageError: it would run slower than float.
        """
        for option, wanted, known in (
            ("--activations", self.activations.type, target.activation_types),
            ("--weights", self.weights, target.calibrated_weight_types),
        ):
            if wanted not in known:
                raise UsageError(
                    f"{option} {wanted.value}: target '{target.name}' has no fast kernel for it, "
                    f"it would run slower than float; types that it has: "
                    f"{', '.join(one.value for one in known)}; or use --target onnx"
                )

    def _refuse_for_operators(self) -> None:
        activations, weights = self.activations.type, self.weights
        for option, bits, value in (
            ("--activations", activations.bits, activations.value),
            ("--weights", weights.bits, weights.value),
        ):
            if bits != 8:
                raise UsageError(
                    f"--format qoperator {option} {value}: its operators take 8 bits only; "
                    "use --format qdq"
                )
        if activations is ActivationType.INT8 and weights is WeightType.UINT8:
            raise UsageError(
                "--format qoperator --activations int8 --weights uint8: no operator takes both; "
                "use --weights int8, or --format qdq"
            )
