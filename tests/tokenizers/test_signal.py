"""Raw signals: maps to network space and back, and what the border refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

from fourm_jax.tokenizers import card
from fourm_jax.tokenizers.signal import Signal

RGB = Signal(dtype="uint8", num_channels=3, low=0.0, high=255.0, mean=127.5, std=127.5)
DEPTH = Signal(axes="hw", low=0.5, high=10.0, log=True)
EDGES = Signal(axes="hw", dtype="uint8", kind="binary", low=0.0, high=255.0)
CLASSES = Signal(axes="hw", dtype="uint8", kind="classes", num_classes=3)
VECTOR = Signal(axes="c", num_channels=2)


def test_uint8_images_map_to_minus_one_to_one_and_back():
    raw = jnp.array([[[[0, 51, 255]]]], jnp.uint8)
    value = RGB.normalize(raw)
    np.testing.assert_allclose(value[0, 0, 0], [-1, -0.6, 1], rtol=1e-6)
    np.testing.assert_array_equal(RGB.denormalize(value), raw)


def test_values_outside_the_range_are_clipped_when_decoded():
    assert RGB.denormalize(jnp.array([[[[-3.0, 0.0, 3.0]]]])).tolist() == [[[[0, 128, 255]]]]


def test_depth_is_metres_outside_and_logarithm_inside():
    np.testing.assert_allclose(DEPTH.normalize(jnp.array([[[np.e]]])), [[[[1.0]]]], rtol=1e-6)
    np.testing.assert_allclose(DEPTH.denormalize(jnp.array([[[[0.0], [9.0]]]])), [[[1.0, 10.0]]])


def test_normals_come_back_with_length_one():
    signal = Signal(num_channels=3, low=-1.0, high=1.0, unit=True)
    decoded = signal.denormalize(jnp.array([[[[0.0, 3.0, 4.0]]]]))
    np.testing.assert_allclose(decoded, [[[[0, 0.6, 0.8]]]], rtol=1e-6)


def test_binary_signals_take_the_sign_of_the_logit():
    assert EDGES.denormalize(jnp.array([[[[-0.1], [0.1]]]])).tolist() == [[[0, 255]]]
    assert EDGES.normalize(jnp.array([[[0, 255]]], jnp.uint8)).tolist() == [[[[0.0], [1.0]]]]


def test_a_binary_map_that_was_made_smaller_holds_shares_and_no_value_beyond():
    half = np.array([[[0, 51, 255]]], np.uint8)
    EDGES.check(half, "tokenizer 'edge'")
    np.testing.assert_allclose(EDGES.normalize(half)[0, 0, :, 0], [0.0, 0.2, 1.0], rtol=1e-6)
    mask = Signal(axes="hw", kind="binary", low=0.0, high=1.0)
    with pytest.raises(ValueError, match=r"float32 \[b, h, w\] in 0 … 1; got values in 0.0 … 2.0"):
        mask.check(np.array([[[0.0, 2.0]]], np.float32), "tokenizer 'mask'")


def test_classes_take_the_largest_logit():
    assert CLASSES.denormalize(jnp.array([[[[0.0, 2.0, 1.0]]]])).tolist() == [[[1]]]


def test_vectors_become_pictures_of_one_pixel():
    signal = Signal(axes="c", num_channels=2, mean=(1.0, 2.0), std=(1.0, 4.0))
    value = signal.normalize(jnp.array([[2.0, 6.0]]))
    assert value.tolist() == [[[[1.0, 1.0]]]]
    assert signal.denormalize(value).tolist() == [[2.0, 6.0]]


@pytest.mark.parametrize(
    ("signal", "raw", "message"),
    [
        (RGB, np.zeros((1, 4, 4, 3), np.float32), "expects uint8 .*got dtype float32; pass the im"),
        (RGB, np.zeros((4, 4, 3), np.uint8), r"\[b, h, w, 3\].*got shape \(4, 4, 3\)"),
        (RGB, np.zeros((1, 4, 4, 1), np.uint8), r"got shape \(1, 4, 4, 1\)"),
        (RGB, np.zeros((1, 6, 4, 3), np.uint8), r"sides divisible by 4; got \(1, 6, 4, 3\)"),
        (RGB, np.zeros((0, 4, 4, 3), np.uint8), "empty array"),
        (DEPTH, np.full((1, 4, 4), 0.1, np.float32), r"in 0.5 … 10; got values in 0.1"),
        (DEPTH, np.full((1, 4, 4), np.nan, np.float32), "got values in nan"),
        (VECTOR, np.array([[0, -np.inf]], np.float32), "got values in -inf"),
        (DEPTH, np.ones((1, 4, 4)), r"got dtype float64; convert with .astype\('float32'\)"),
        (CLASSES, np.zeros((1, 4, 4), np.float32), "class ids .*pass the class index of every"),
        (CLASSES, np.full((1, 4, 4), 3, np.uint8), r"class ids \[b, h, w\] in 0 … 2; got .*3"),
    ],
)
def test_wrong_input_names_what_is_expected_and_what_came(signal, raw, message):
    with pytest.raises(
        ValueError, match="tokenizer 'x' expects.*" + message.removeprefix("expects")
    ):
        signal.check(raw, "tokenizer 'x'", patch_size=4)


def test_class_ids_of_any_integer_type_are_accepted():
    for dtype in (np.uint8, np.int32, np.int64):
        assert CLASSES.check(np.full((1, 4, 4), 2, dtype), "tokenizer 'x'") is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "float16"}, "dtype 'float16', allowed"),
        ({"kind": "classes"}, "kind 'classes' with num_classes 0"),
        ({"log": True}, "log needs low > 0"),
        ({"low": 1.0, "high": 1.0}, "low 1.0 and high 1.0, allowed: low < high"),
        ({"kind": "binary"}, "kind 'binary' with low -inf and high inf, allowed: its two values"),
        ({"standardize": True, "low": 0.0, "high": 1.0}, "allowed: neither log nor bounds"),
        (
            {"kind": "classes", "num_classes": 300, "dtype": "uint8"},
            "num_classes 300, allowed in uint8: 256",
        ),
        ({"num_channels": 0}, "num_channels 0, allowed: at least 1"),
        ({"num_channels": 3, "mean": [1.0, 2.0]}, r"mean \(1.0, 2.0\), allowed: .* of 3 channels"),
        ({"mean": float("nan")}, "mean nan, allowed: a number"),
        ({"num_channels": 2, "std": (1.0, 0.0)}, r"std \(1.0, 0.0\), allowed: above 0"),
    ],
)
def test_impossible_signals_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Signal(**fields)


def test_standardised_depth_has_no_unit_and_forgets_its_extremes():
    signal = Signal(axes="hw", standardize=True)
    depth = np.array([0.0, *range(1, 9), 1000.0], np.float32).reshape(1, 2, 5)
    # the middle 1..8 has mean 4.5 and variance 5.25
    expected = (depth - 4.5) / np.sqrt(5.25)
    np.testing.assert_allclose(signal.normalize(depth)[..., 0], expected, rtol=1e-5)
    np.testing.assert_allclose(signal.normalize(7 * depth)[..., 0], expected, rtol=1e-4)
    stored = np.array([[[0, 65535]]], np.uint16)
    np.testing.assert_array_equal(signal.from_stored(stored), [[[0.0, 1.0]]])


def test_a_card_mentions_standardisation_only_where_there_is_some():
    assert "standardize" not in card.describe_signal(Signal())
    assert card.describe_signal(Signal(axes="hw", standardize=True))["standardize"] is True


def test_integers_where_floats_are_meant_are_not_sent_through_astype():
    with pytest.raises(ValueError, match="integers of a file have another range"):
        Signal(num_channels=3).check(np.zeros((1, 2, 2, 3), np.uint8), "tokenizer 'rgb'")
