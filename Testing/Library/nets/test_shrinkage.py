"""The shrinkage of blocks removes noise and learns its spectrum; the Rician bias is undone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.hqg.network import noise_level
from MedEnhanceLib.nets.shrinkage import BLOCK, BlockShrinkage, gather, without_bias

SIGMA = 0.1


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _level(slabs: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.full((*slabs.shape[:2], *(side // 2 for side in slabs.shape[2:])), sigma)


@pytest.fixture
def shrinkage() -> BlockShrinkage:
    return BlockShrinkage().requires_grad_(False)


def test_the_transform_is_the_orthonormal_cosine_transform(shrinkage: BlockShrinkage) -> None:
    block = np.random.default_rng(1).random((BLOCK,) * 3)
    ours = torch.einsum("nijk,ijk->n", shrinkage.atoms.double(), torch.from_numpy(block))
    assert np.allclose(ours.numpy(), dctn(block, norm="ortho").ravel(), atol=1e-6)


def test_where_there_is_no_noise_everything_stays(shrinkage: BlockShrinkage) -> None:
    slabs = _noise(2, 9, 32, 48)
    assert torch.allclose(shrinkage(slabs, _level(slabs, 0.0)), slabs, atol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 12])
def test_a_constant_volume_stays_as_it_is(shrinkage: BlockShrinkage, depth: int) -> None:
    slabs = torch.full((1, depth, 32, 32), 0.7)
    assert torch.allclose(shrinkage(slabs, _level(slabs, 0.1)), slabs, atol=1e-5)


@pytest.mark.parametrize(("depth", "left"), [(1, 0.6), (2, 0.5), (3, 0.4), (12, 0.25)])
def test_of_noise_little_is_left_also_in_few_slices(
    shrinkage: BlockShrinkage, depth: int, left: float
) -> None:
    slabs = 1 + 0.05 * _noise(1, depth, 64, 64)
    shrunk = shrinkage(slabs, _level(slabs, 0.05))
    assert (shrunk - 1).std() < left * 0.05
    assert abs(float(shrunk.mean()) - float(slabs.mean())) < 1e-3


def test_an_edge_stays_where_and_what_it_was(shrinkage: BlockShrinkage) -> None:
    clean = torch.zeros(1, 12, 64, 64)
    clean[..., 33:] = 1.0
    shrunk = shrinkage(clean + 0.05 * _noise(*clean.shape), _level(clean, 0.05))
    step = shrunk[..., 33:36].mean() - shrunk[..., 30:33].mean()
    assert abs(float(step) - 1) < 0.02
    assert (shrunk - clean).square().mean() < 0.2 * 0.05**2


def test_it_is_the_same_along_all_axes_but_for_the_grid(shrinkage: BlockShrinkage) -> None:
    """Blocks are even: no direction of the volume is smoothed more than another."""
    slabs = _noise(1, 32, 32, 32)
    shrunk = shrinkage(slabs, _level(slabs, 1.0))[0, 6:-6, 6:-6, 6:-6]
    rough = [float(shrunk.diff(dim=axis).abs().mean()) for axis in range(3)]
    assert max(rough) < 1.35 * min(rough)


def test_slices_without_any_layer_are_not_invented() -> None:
    """One layer over four slices: each slice is that layer's, none is divided by more."""
    layers = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 1, 4, 2, 2)
    assert gather([layers], 0, 4)[0, :, 0, 0].tolist() == [0, 1, 2, 3]


def test_layers_in_parts_give_what_they_give_together() -> None:
    layers = _noise(1, 7, BLOCK, 2, 2)
    parts = list(layers.split([2, 1, 4], dim=1))
    assert torch.equal(gather(parts, 1, 8), gather([layers], 1, 8))


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("size", [(17, 509), (16, 30), (1, 1)])
def test_blocks_are_summed_as_by_a_transposed_convolution(
    shrinkage: BlockShrinkage, step: int, size: tuple[int, int]
) -> None:
    coefficients = _noise(2, BLOCK**3, *size)
    expected = F.conv_transpose2d(coefficients, shrinkage.atoms, stride=step)
    assert torch.allclose(shrinkage.sum_of_blocks(coefficients, step), expected, atol=1e-4)


@pytest.mark.slow
def test_it_learns_the_spectrum_of_the_noise() -> None:
    """Noise that is smooth in plane, as in CT: what is expected of low frequencies grows."""
    torch.manual_seed(0)
    shrinkage = BlockShrinkage()
    optimizer = torch.optim.Adam(shrinkage.parameters(), lr=0.01)
    kernel = torch.full((1, 1, 3, 3), 1 / 3)
    for step in range(30):
        white = _noise(8, 1, 66, 66, seed=step)
        noise = 0.05 * torch.nn.functional.conv2d(white, kernel).transpose(0, 1)
        loss = shrinkage(noise, _level(noise, 0.05)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = shrinkage.noise.detach().view(BLOCK, BLOCK, BLOCK)
    assert learned[:, 0, 1:2].mean() > learned[:, 3, 3].mean() + 0.01
    assert torch.isfinite(learned).all()


def magnitudes(amplitude: float, sigma: float = SIGMA) -> Tensor:
    """Noisy magnitudes of an even object, [1, 6, 64, 64]."""
    rng = np.random.default_rng(0)
    real, imaginary = sigma * rng.standard_normal((2, 1, 6, 64, 64))
    return torch.from_numpy(np.hypot(amplitude + real, imaginary).astype(np.float32))


@pytest.mark.parametrize("amplitude", [0.2, 0.3, 0.6, 1.0, 3.0])
def test_the_mean_of_tissue_is_the_truth(amplitude: float) -> None:
    noisy = magnitudes(amplitude)
    mean = noisy.mean().expand_as(noisy)
    truth = without_bias(mean, noise_level(noisy, reach=0))
    biased = float(noisy.mean()) - amplitude
    assert abs(float(truth.mean()) - amplitude) < max(0.25 * biased, 0.002)


def test_air_is_nothing() -> None:
    noisy = magnitudes(0.0)
    mean = noisy.mean().expand_as(noisy)
    assert float(mean.mean()) > 1.2 * SIGMA
    assert float(without_bias(mean, noise_level(noisy, reach=0)).mean()) < 0.3 * SIGMA


def test_what_has_no_noise_stays() -> None:
    clean = torch.linspace(0, 2, 6 * 64 * 64).reshape(1, 6, 64, 64)
    assert torch.allclose(without_bias(clean, torch.zeros(1, 6, 32, 32)), clean, atol=1e-5)


def test_negative_values_stay() -> None:
    values = torch.full((1, 4, 32, 32), -0.3)
    assert torch.equal(without_bias(values, torch.full((1, 4, 16, 16), SIGMA)), values)


def test_what_is_no_number_stays_none() -> None:
    values = torch.full((1, 4, 32, 32), 0.5)
    values[0, 1, 2, 3] = torch.nan
    freed = without_bias(values, torch.full((1, 4, 16, 16), SIGMA))
    assert torch.isnan(freed[0, 1, 2, 3])
    assert torch.isfinite(freed[0, 3]).all()


def test_it_can_be_learned_through() -> None:
    mean = torch.linspace(-0.1, 2, 4 * 32 * 32).reshape(1, 4, 32, 32).requires_grad_()
    without_bias(mean, torch.full((1, 4, 16, 16), SIGMA)).sum().backward()
    assert mean.grad is not None
    assert torch.isfinite(mean.grad).all()
    assert float(mean.grad[mean.detach() > 0.3].min()) > 0.9
