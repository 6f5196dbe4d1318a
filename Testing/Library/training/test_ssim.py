"""Structural similarity is that of scikit-image."""

from __future__ import annotations

import numpy as np
import pytest

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.training.ssim import ssim


def test_ssim_equals_scikit_image(rng: np.random.Generator) -> None:
    structural = pytest.importorskip("skimage.metrics").structural_similarity
    k, j, i = np.mgrid[:6, :40, :33]
    reference = 500 + 600 * np.sin(j / 5) * np.cos(i / 7) + 20 * k
    image = reference + rng.normal(0, 80, reference.shape)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    slices = zip(reference, image, strict=True)
    expected = np.mean([structural(a, b, data_range=2000.0, **settings) for a, b in slices])
    assert ssim(reference, image, 2000.0) == pytest.approx(expected, abs=1e-4)
    assert ssim(reference, reference) == pytest.approx(1, abs=1e-6)
    inside = np.zeros(reference.shape, bool)
    inside[2] = True
    assert ssim(reference, image, 2000.0, mask=inside) == pytest.approx(
        structural(reference[2], image[2], data_range=2000.0, **settings), abs=1e-4
    )


def test_what_cannot_be_measured_is_refused() -> None:
    flat = np.ones((2, 16, 16))
    with pytest.raises(InputError, match="shape"):
        ssim(flat[:, :8], flat[:, :8], 1.0)
    with pytest.raises(InputError, match="mask is empty"):
        ssim(flat, flat, 1.0, mask=np.zeros(flat.shape, bool))
