"""What a target is."""

from __future__ import annotations

from dataclasses import dataclass

from onnxq.schemes import ActivationType, WeightType


@dataclass(frozen=True, kw_only=True)
class Target:
    """Facts about one runtime that decide how a weight is stored and computed with.

    Attributes:
        name: what ``--target`` takes.
        description: one line for ``--help`` and the documentation.
        contrib_operators: whether com.microsoft operators may be written.
        fold_limit_bytes: largest tensor that the runtime dequantizes once, at load; a larger one
            would be dequantized at every run.
        integer_matrix_min_elements: a matrix of fewer elements gains nothing from integer kernels.
        integer_matrix_min_columns: nor does one with fewer output columns.
        integer_lstm_min_hidden: nor does an LSTM with a smaller hidden state.
        default_block_size: elements that share a scale in 4-bit weights.
        lowest_integer_sqnr_db: an 8-bit weight under this is spoiled, also for integer kernels.
        lowest_storage_sqnr_db: an 8-bit weight under this is stored as fp16 where that costs no
            speed.
        lowest_bulk_sqnr_db: the same for what is left of a weight without the largest element of
            each channel, which alone can make a spoiled weight look good.
        filter_bank_min_taps: a convolution of one input channel with a kernel this long is a
            filter bank of a signal-processing front end.
        activation_types: types of calibrated activations that the runtime has kernels for.
        calibrated_weight_types: types of weights beside calibrated activations, likewise.
        folds_casts: whether the runtime widens constant 4-bit weights at load, and subtracts their
            zero points.
        convolves_zero_points: whether convolutions stay fast where 8-bit weights have a zero point
            for each channel.
        dynamic_matmul: whether a matrix product between float tensors is as fast with its
            activation quantized at run time as with a calibrated one.
        integer_conv_min_channels: a convolution of fewer input channels a group gains nothing from
            integers by itself; beside others it saves leaving them.
        wide_gain: share of what integers of 8 bits save that those of 16 bits save, which some
            layers have for accuracy; 0 where there are no kernels for them.
        adds_products_exactly: whether sums of uint8 activations times int8 weights are exact; where
            they are not, such weights have 7 bits by default.
        crossing_multiplications: that integers have to save for each element that is narrowed
            before a region or widened behind it.
        integer_conv_min_reduction: nor does one with fewer inputs to one output, unless it has
            that many channels.
    """

    name: str
    description: str
    contrib_operators: bool
    fold_limit_bytes: int
    integer_matrix_min_elements: int
    integer_matrix_min_columns: int
    integer_lstm_min_hidden: int
    default_block_size: int
    lowest_integer_sqnr_db: float
    lowest_storage_sqnr_db: float
    lowest_bulk_sqnr_db: float
    filter_bank_min_taps: int
    activation_types: tuple[ActivationType, ...]
    calibrated_weight_types: tuple[WeightType, ...]
    folds_casts: bool
    convolves_zero_points: bool
    dynamic_matmul: bool
    integer_conv_min_channels: int
    integer_conv_min_reduction: int
    crossing_multiplications: int
    wide_gain: float
    adds_products_exactly: bool = True
