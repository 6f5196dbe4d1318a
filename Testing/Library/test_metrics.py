"""The figures of merit agree with scikit-image, and say so when they cannot be taken."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from MedEnhanceLib.core import metrics
from MedEnhanceLib.errors import InputError

Image = npt.NDArray[np.float64]


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[Image, Image]:
    """A smooth image and a noisy copy, [K, J, I], about −500 to 1500."""
    k, j, i = np.mgrid[:24, :40, :33]
    reference = 500 + 600 * np.sin(j / 5) * np.cos(i / 7) + 20 * k
    return reference, reference + rng.normal(0, 80, reference.shape)


def test_psnr_equals_scikit_image(pair: tuple[Image, Image]) -> None:
    peak = pytest.importorskip("skimage.metrics").peak_signal_noise_ratio
    assert metrics.psnr(*pair, 2000.0) == pytest.approx(peak(*pair, data_range=2000.0), abs=1e-9)
    assert metrics.psnr(pair[0], pair[0]) == math.inf
    span = float(np.ptp(pair[0]))
    assert metrics.psnr(*pair) == pytest.approx(peak(*pair, data_range=span), abs=1e-9)


def test_unsigned_integers_do_not_wrap_round() -> None:
    low, high = np.zeros((1, 4, 4), np.uint16), np.full((1, 4, 4), 65535, np.uint16)
    assert metrics.psnr(high, low, 65535) == metrics.psnr(low, high, 65535) == 0


def test_a_voxel_that_is_no_number_is_not_overlooked(pair: tuple[Image, Image]) -> None:
    damaged = pair[1].copy()
    damaged[3, 5, 7] = np.nan
    assert math.isnan(metrics.psnr(pair[0], damaged))


def test_dice_counts_voxels_of_one_label() -> None:
    a, b = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    a[0, :2], b[0, 1:3], b[1, 0, 0] = 3, 3, 2
    assert metrics.dice(a, b, 3) == pytest.approx(2 * 4 / 16)
    assert metrics.dice(a, b, 2) == 0
    assert metrics.dice(a, b, 9) == 1


def test_what_cannot_be_measured_is_refused(pair: tuple[Image, Image]) -> None:
    flat = np.ones((2, 16, 16))
    with pytest.raises(InputError, match="range"):
        metrics.psnr(flat, flat)
    with pytest.raises(InputError, match="mask is empty"):
        metrics.psnr(*pair, mask=np.zeros(pair[0].shape, bool))
    with pytest.raises(InputError, match="shape") as caught:
        metrics.psnr(pair[0], pair[1][1:])
    assert caught.value.hint
