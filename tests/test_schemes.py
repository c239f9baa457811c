from __future__ import annotations

import pytest

from onnxq.schemes import ActivationScheme, ActivationType, Scheme, WeightType, signed_range

INTEGERS = [one for one in WeightType if not one.is_half]
STORED = {
    WeightType.INT16: (-32768, 32767),
    WeightType.INT8: (-128, 127),
    WeightType.UINT8: (0, 255),
    WeightType.INT4: (-8, 7),
    WeightType.UINT4: (0, 15),
}

integer_types = pytest.mark.parametrize("weight_type", INTEGERS, ids=lambda one: one.value)
symmetries = pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
widths = pytest.mark.parametrize("reduce_range", [False, True], ids=["full", "reduced"])


@pytest.mark.parametrize(
    ("weight_type", "bits", "is_half", "is_signed"),
    [
        pytest.param(WeightType.INT8, 8, False, True, id="int8"),
        pytest.param(WeightType.UINT8, 8, False, False, id="uint8"),
        pytest.param(WeightType.INT4, 4, False, True, id="int4"),
        pytest.param(WeightType.UINT4, 4, False, False, id="uint4"),
        pytest.param(WeightType.INT16, 16, False, True, id="int16"),
        pytest.param(WeightType.FP16, 16, True, False, id="fp16"),
        pytest.param(WeightType.BF16, 16, True, False, id="bf16"),
    ],
)
def test_weight_types(weight_type: WeightType, bits: int, is_half: bool, is_signed: bool) -> None:
    assert weight_type.bits == bits
    assert weight_type.is_half is is_half
    assert weight_type.is_signed is is_signed


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        pytest.param(Scheme(type=WeightType.INT8), (-127, 127), id="int8"),
        pytest.param(
            Scheme(type=WeightType.INT8, symmetric=False), (-128, 127), id="int8_asymmetric"
        ),
        pytest.param(Scheme(type=WeightType.UINT8), (1, 255), id="uint8"),
        pytest.param(
            Scheme(type=WeightType.UINT8, symmetric=False), (0, 255), id="uint8_asymmetric"
        ),
        pytest.param(Scheme(type=WeightType.INT8, reduce_range=True), (-63, 63), id="int8_7bit"),
        pytest.param(Scheme(type=WeightType.UINT8, reduce_range=True), (1, 127), id="uint8_7bit"),
        pytest.param(Scheme(type=WeightType.INT16), (-32767, 32767), id="int16"),
        pytest.param(Scheme(type=WeightType.INT4), (-8, 7), id="int4"),
        pytest.param(Scheme(type=WeightType.UINT4), (0, 15), id="uint4"),
    ],
)
def test_range(scheme: Scheme, expected: tuple[int, int]) -> None:
    assert scheme.range == expected


@integer_types
@symmetries
@widths
def test_range_fits_the_stored_type_and_contains_the_midpoint(
    weight_type: WeightType, symmetric: bool, reduce_range: bool
) -> None:
    scheme = Scheme(type=weight_type, symmetric=symmetric, reduce_range=reduce_range)
    low, high = scheme.range
    lowest, highest = STORED[weight_type]
    assert lowest <= low < scheme.midpoint < high <= highest


@pytest.mark.parametrize(
    "weight_type", [WeightType.INT8, WeightType.UINT8], ids=lambda one: one.value
)
@widths
def test_symmetric_eight_bit_ranges_have_their_midpoint_in_the_middle(
    weight_type: WeightType, reduce_range: bool
) -> None:
    scheme = Scheme(type=weight_type, reduce_range=reduce_range)
    low, high = scheme.range
    assert low + high == 2 * scheme.midpoint


@pytest.mark.parametrize(
    "weight_type", [WeightType.INT8, WeightType.UINT8], ids=lambda one: one.value
)
@symmetries
def test_a_reduced_range_cannot_overflow_16_bit_sums(
    weight_type: WeightType, symmetric: bool
) -> None:
    """vpmaddubsw adds two products of u8 and s8 in 16 bits, which saturate."""
    scheme = Scheme(type=weight_type, symmetric=symmetric, reduce_range=True)
    largest = max(abs(one - (0 if weight_type.is_signed else 64)) for one in scheme.range)
    assert 2 * 255 * largest <= 2**15 - 1
    full = Scheme(type=weight_type, symmetric=symmetric)
    largest = max(abs(one - (0 if weight_type.is_signed else 128)) for one in full.range)
    assert 2 * 255 * largest > 2**15 - 1


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        pytest.param(Scheme(type=WeightType.INT8), "int8 per tensor", id="per_tensor"),
        pytest.param(Scheme(type=WeightType.INT8, axes=(0, 1)), "int8 per channel", id="axes"),
        pytest.param(
            Scheme(type=WeightType.UINT8, axes=(1,), symmetric=False),
            "uint8 per channel asymmetric",
            id="asymmetric",
        ),
        pytest.param(
            Scheme(type=WeightType.INT4, axes=(1,), block_size=32), "int4 blocks of 32", id="blocks"
        ),
        pytest.param(
            Scheme(type=WeightType.INT8, reduce_range=True), "int8 per tensor 7-bit", id="7_bit"
        ),
        pytest.param(Scheme(type=WeightType.FP16), "fp16", id="fp16"),
        pytest.param(Scheme(type=WeightType.BF16, symmetric=False), "bf16", id="bf16"),
    ],
)
def test_text(scheme: Scheme, expected: str) -> None:
    assert str(scheme) == expected


def test_schemes_are_values() -> None:
    one, other = (Scheme(type=WeightType.INT8, axes=(0,)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(AttributeError):
        one.axes = ()  # type: ignore[misc]


activation_types = pytest.mark.parametrize(
    ("activation_type", "bits", "is_signed", "expected", "midpoint"),
    [
        pytest.param(ActivationType.UINT8, 8, False, (0, 255), 128, id="uint8"),
        pytest.param(ActivationType.INT8, 8, True, (-128, 127), 0, id="int8"),
        pytest.param(ActivationType.UINT16, 16, False, (0, 65535), 32768, id="uint16"),
        pytest.param(ActivationType.INT16, 16, True, (-32768, 32767), 0, id="int16"),
    ],
)


@activation_types
@symmetries
def test_activation_schemes(
    activation_type: ActivationType,
    bits: int,
    is_signed: bool,
    expected: tuple[int, int],
    midpoint: int,
    symmetric: bool,
) -> None:
    """Activations use every integer of their type, symmetric ones too."""
    scheme = ActivationScheme(type=activation_type, symmetric=symmetric)
    assert activation_type.bits == bits
    assert activation_type.is_signed is is_signed
    assert scheme.range == expected
    assert scheme.midpoint == midpoint
    assert str(scheme) == activation_type.value + (" symmetric" if symmetric else "")


def test_activation_schemes_are_values() -> None:
    one, other = ActivationScheme(), ActivationScheme(type=ActivationType.UINT8, symmetric=False)
    assert one == other
    assert hash(one) == hash(other)
    assert one != ActivationScheme(symmetric=True)
    with pytest.raises(AttributeError):
        one.symmetric = True  # type: ignore[misc]


@pytest.mark.parametrize("bits", [4, 7, 8, 16])
def test_signed_range(bits: int) -> None:
    low, high = signed_range(bits)
    assert (low, high - low + 1) == (-(2 ** (bits - 1)), 2**bits)
