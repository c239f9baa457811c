"""The targets there are. To add one is to add a value; `docs/targets.md` says what each means."""

from __future__ import annotations

from dataclasses import replace

from onnxq.errors import UsageError
from onnxq.schemes import ActivationType, WeightType
from onnxq.targets.base import Target

ORT_CPU = Target(
    name="ort-cpu",
    description="onnxruntime on the CPU (x86-64 with VNNI, any operating system)",
    contrib_operators=True,
    # ConstantFolding skips a node whose output is larger (onnxruntime 1.32).
    fold_limit_bytes=2**30,
    # 64x64 runs at 0.95-1.01 of float speed, 10 output columns at 1.0 (docs/targets.md, table 1).
    integer_matrix_min_elements=64 * 64 + 1,
    integer_matrix_min_columns=11,
    # One step of one sequence: 96 -> 0.85, 128 -> 0.99, 256 -> 2.3 (docs/targets.md, table 2).
    integer_lstm_min_hidden=128,
    # 4 bits in blocks of 128 against 32, one row: 2.9 against 2.2 times float (table 1).
    default_block_size=128,
    # What the limits do to eleven real models: docs/decisions/0003.
    lowest_integer_sqnr_db=30.0,
    lowest_storage_sqnr_db=32.0,
    lowest_bulk_sqnr_db=20.0,
    filter_bank_min_taps=64,
    # No kernel for 16 bits; signed activations run at 0.3 of float speed (docs/targets.md).
    activation_types=(ActivationType.UINT8, ActivationType.UINT4),
    calibrated_weight_types=(WeightType.INT8, WeightType.UINT8, WeightType.INT4),
    folds_casts=True,
    convolves_zero_points=False,
    dynamic_matmul=True,
    # 1x1: 16 channels -> 0.99 of float speed, 20 -> 2.2. 3x3: depthwise -> 0.4-0.95, 4 channels a
    # group -> 0.39, 3 -> 0.57, 16 -> 2.1 (docs/targets.md).
    integer_conv_min_channels=20,
    integer_conv_min_reduction=100,
    # 1x1 convolutions between float nodes: 48 -> 0.93-0.99 of float speed, 64 -> 1.03-1.21 (x86-64
    # Sapphire Rapids; benchmarks/crossing.py).
    crossing_multiplications=55,
    # No kernel for 16 bits, see above.
    wide_gain=0.0,
)

ONNX = replace(
    ORT_CPU,
    name="onnx",
    description="any runtime: operators of the ONNX standard only",
    contrib_operators=False,
    activation_types=tuple(ActivationType),
    calibrated_weight_types=(
        WeightType.INT8,
        WeightType.UINT8,
        WeightType.INT4,
        WeightType.INT16,
    ),
    folds_casts=False,
    convolves_zero_points=True,
    # What a border costs other runtimes is not known.
    crossing_multiplications=0,
    # Not measured: an assumption about NPUs and DSPs that multiply 16 bits at half the rate of 8.
    wide_gain=0.5,
    dynamic_matmul=False,
)

TARGETS: tuple[Target, ...] = (ORT_CPU, ONNX)


def find_target(name: str) -> Target:
    """The target called ``name``.

    Raises:
        UsageError: there is none.

    >>> find_target("onnx").contrib_operators
    False
    """
    for target in TARGETS:
        if target.name == name:
            return target
    known = ", ".join(target.name for target in TARGETS)
    raise UsageError(f"no target is called '{name}'; known targets: {known}")
