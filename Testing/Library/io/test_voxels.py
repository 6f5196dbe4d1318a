"""Stored numbers become intensities without loss, in the smallest type that holds them."""

from __future__ import annotations

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
        (np.array([[0.5, 1.5]], np.float32), 2, 1, "float32"),
    ],
)
def test_type_is_the_smallest_that_holds_every_value(
    stored: np.ndarray, slope: float, intercept: float, kind: str
) -> None:
    result = rescale_slices(stored[None], [slope], [intercept])
    assert result.dtype == kind
    assert np.array_equal(result[0], stored.astype(np.float64) * slope + intercept)


def test_type_is_one_for_all_slices() -> None:
    stored = np.array([[1, 2]], np.int16)
    result = rescale_slices(np.stack([stored] * 2), [1.0, 0.5], [0.0, 0.0])
    assert result.dtype == np.float32
    assert result.tolist() == [[[1, 2]], [[0.5, 1]]]
