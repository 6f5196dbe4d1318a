"""Bands of detail undo a blur, and nothing happens before anything is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedEnhanceLib.degrade import gaussian_blur
from MedEnhanceLib.nets.blocks import Sharpening


def test_at_first_nothing_is_added() -> None:
    sharpening = Sharpening(8)
    added = sharpening(torch.rand(2, 3, 32, 48), torch.rand(6, 8, 16, 24))
    assert added.shape == (2, 3, 32, 48)
    assert not added.any()


def test_a_constant_image_has_no_detail_to_strengthen() -> None:
    sharpening = Sharpening(8)
    torch.nn.init.constant_(sharpening.strength.weight, 0.01)
    added = sharpening(torch.full((1, 2, 32, 32), 0.7), torch.rand(2, 8, 16, 16))
    assert added.abs().max() < 1e-5


def test_slices_stay_apart() -> None:
    sharpening = Sharpening(4)
    torch.nn.init.normal_(sharpening.strength.weight)
    slabs, features = torch.rand(1, 3, 32, 32), torch.rand(3, 4, 16, 16)
    changed = slabs.clone()
    changed[0, 1] += torch.rand(32, 32)
    same = (sharpening(slabs, features) == sharpening(changed, features)).flatten(2).all(dim=2)
    assert same.tolist() == [[True, False, True]]


@pytest.mark.parametrize(("sigma", "left"), [(0.6, 0.25), (1.0, 0.4)])
def test_the_right_strengths_undo_a_blur(sigma: float, left: float) -> None:
    """The bias is one strength for each band: least squares finds those that fit best."""
    rng = np.random.default_rng(0)
    sharp = gaussian_blur(rng.normal(size=(4, 64, 64)), 1.2)
    blurred = torch.from_numpy(gaussian_blur(sharp, sigma))[None]
    missing = torch.from_numpy(sharp)[None] - blurred
    sharpening, features = Sharpening(1), torch.zeros(4, 1, 32, 32)
    bands = []
    for band in range(3):
        with torch.no_grad():
            sharpening.strength.bias.copy_(torch.eye(3)[band])
            bands.append(sharpening(blurred, features).flatten())
    strengths = torch.linalg.lstsq(torch.stack(bands, dim=1), missing.flatten()[:, None]).solution
    assert strengths.abs().max() < 12  # within reach of what a layer learns
    with torch.no_grad():
        sharpening.strength.bias.copy_(strengths[:, 0])
        rest = missing - sharpening(blurred, features)
    assert rest.std() < left * missing.std()
