"""Stored numbers become intensities without loss, in the smallest type that holds them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from MedEnhanceLib.io.voxels import rescale_slices


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "kind"),
    [
        (np.array([[0, 4095]], np.uint16), 1, -1024, "int16"),
        (np.array([[0, 40000]], np.uint16), 1, 0, "uint16"),
        (np.array([[0, 40000]], np.uint16), 1, 1, "uint16"),
        (np.array([[0, 65535]], np.uint16), 1, -1024, "int32"),
        (np.array([[-5, 5]], np.int8), -3, 2, "int16"),
        (np.array([[0, 2**31]], np.uint32), 1, 1, "uint32"),
        (np.array([[60000, 65535]], np.uint16), 1, -65000, "int16"),
        (np.array([[0, 65535]], np.uint16), -2, 2**17, "int32"),
        (np.array([[2**31, 2**31 + 9]], np.uint32), 3, -3 * 2**31, "int16"),
        (np.array([[0, 0]], np.uint8), 2**40, 7, "int16"),
        (np.array([[0, 2**32 - 1]], np.uint32), 1, 1, "int64"),
        (np.array([[0, 100]], np.int16), 0.5, 0, "float32"),
        (np.array([[0, 2**30 + 1]], np.int32), 0.5, 0, "float64"),
        (np.arange(999, dtype=np.uint16)[None], 0.01, 1e6, "float64"),
        (np.array([[0.5, 1.5]], np.float32), 2, 1, "float32"),
    ],
)
def test_type_is_the_smallest_that_holds_every_value(
    stored: np.ndarray, slope: float, intercept: float, kind: str
) -> None:
    result = rescale_slices(stored[None], [slope], [intercept])
    assert result.dtype == kind
    assert np.array_equal(result[0], stored.astype(np.float64) * slope + intercept)


INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", ">i2", ">u4")
SLOPES = (1, -1, 7, -65536, 2**31, -(2**40))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_are_exact(kind: str, overwrite: bool) -> None:
    low, high = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
    for ends, slope in itertools.product(((low, high), (high - 9, high), (0, 100)), SLOPES):
        for shift in (0, 1, -1024, 2**40, -ends[0] * slope, -ends[1] * slope):
            if abs(shift) > 2**61 or max(abs(end * slope + shift) for end in ends) > 2**62:
                continue  # such sums are floats
            shift = int(float(shift))  # as a header states it
            stored = np.array([[[*ends, ends[0]]], [[*ends, ends[1]]]], kind)
            exact = stored.astype(object) * np.array([[[slope]], [[1]]], object) + shift
            result = rescale_slices(
                stored, [float(slope), 1.0], [float(shift)] * 2, overwrite=overwrite
            )
            assert np.array_equal(result.astype(object), exact), (ends, slope, shift)


def test_type_is_one_for_all_slices() -> None:
    stored = np.array([[1, 2]], np.int16)
    result = rescale_slices(np.stack([stored] * 2), [1.0, 0.5], [0.0, 0.0])
    assert result.dtype == np.float32
    assert result.tolist() == [[[1, 2]], [[0.5, 1]]]
