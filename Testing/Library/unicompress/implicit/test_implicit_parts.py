"""The wavelet is undone exactly, codebooks refine each other, cells know nothing of their block."""

from __future__ import annotations

import pytest
import torch

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.unicompress.implicit.config import ImplicitConfig, TokenConfig
from MedEnhanceLib.unicompress.implicit.distill import teacher_weight
from MedEnhanceLib.unicompress.implicit.losses import cube_voxels, draw_cubes, pick
from MedEnhanceLib.unicompress.implicit.model import Networks, Tokeniser
from MedEnhanceLib.unicompress.implicit.prior import haar, inverse_haar
from MedEnhanceLib.unicompress.implicit.quantiser import ResidualQuantiser
from MedEnhanceLib.unicompress.implicit.siren import count_weights

SMALL = TokenConfig(width=8, latent=16, code_size=4, codes=16)


@pytest.mark.parametrize("thick", [False, True])
def test_the_wavelet_is_undone(thick: bool) -> None:
    block = torch.randint(-1000, 1000, (2, 1, 8, 12, 10)).double()
    low, high = haar(block, thick=thick)
    assert (low.shape[1], high.shape[1]) == (1, 3 if thick else 7)
    torch.testing.assert_close(inverse_haar(low, high, thick=thick), block, atol=1e-9, rtol=0)
    assert torch.sum(low**2) + torch.sum(high**2) == pytest.approx(float(torch.sum(block**2)))


def test_a_constant_has_no_details() -> None:
    _, high = haar(torch.full((1, 1, 4, 4, 4), 7.0))
    assert high.abs().max() < 1e-6


def test_each_layer_of_codes_comes_nearer() -> None:
    torch.manual_seed(0)
    quantiser = ResidualQuantiser(SMALL, 3)
    latents = torch.randn(400, 16)
    quantiser.start(latents)
    quantiser.requires_grad_(False)
    errors = [
        float(torch.mean((quantiser(latents, torch.full((400,), used)).latents - latents) ** 2))
        for used in range(4)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[0]


def test_codebooks_learn_and_dead_codes_come_back() -> None:
    torch.manual_seed(0)
    quantiser = ResidualQuantiser(SMALL, 3)
    latents = torch.randn(300, 16)
    quantiser.start(latents)
    with torch.no_grad():
        quantiser.codebooks[0, :8] = 1e6  # nothing is near them
        quantiser.sums[0, :8] = 0
        quantiser.uses[0, :8] = 0
    for _ in range(20):
        quantiser(latents, torch.full((300,), 3), learn=True)
    assert float(quantiser.codebooks[0].abs().max()) < 100


def test_random_codes_stay_as_they_are() -> None:
    torch.manual_seed(0)
    quantiser = ResidualQuantiser(TokenConfig(latent=16, codes=16, codebook="random"), 4)
    latents = torch.randn(200, 16)
    quantiser.start(latents)
    before = quantiser.codebooks.clone()
    quantiser(latents, torch.full((200,), 4), learn=True)
    assert torch.equal(before, quantiser.codebooks)


def test_gradients_pass_the_quantiser() -> None:
    quantiser = ResidualQuantiser(SMALL, 3)
    latents = torch.randn(10, 16, requires_grad=True)
    quantiser(latents, torch.full((10,), 3)).latents.sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0


def test_to_bytes_twice_changes_nothing() -> None:
    quantiser = ResidualQuantiser(SMALL, 3)
    quantiser.to_bytes()
    before = {n: t.clone() for n, t in quantiser.state_dict().items()}
    quantiser.to_bytes()
    assert all(torch.equal(before[n], t) for n, t in quantiser.state_dict().items())


@pytest.mark.parametrize("thick", [False, True])
def test_latents_have_the_published_shape(thick: bool) -> None:
    tokeniser = Tokeniser(TokenConfig())
    block = torch.zeros(1, 1, 16 if thick else 32, 64, 64)
    tokens = tokeniser(block, torch.tensor([8]), thick=thick)
    assert tokens.low.shape == tokens.high.shape == (1, 64, 4, 8, 8)
    assert tokens.codes.shape == (1, 8, 4, 8, 8)


def test_without_the_high_band_details_change_nothing() -> None:
    tokeniser = Tokeniser(TokenConfig(width=8, high_band=False))
    block = torch.randn(1, 1, 8, 16, 16)
    _, high = tokeniser.encoders(block, thick=False)
    _, other = tokeniser.encoders(torch.randn_like(block), thick=False)
    assert torch.equal(high, other)


def test_sizes_are_those_of_the_design() -> None:
    config = ImplicitConfig.preset("cpu")
    networks = Networks(config.token, config.teacher, config.student)
    weights = [count_weights(one) for one in (networks.teacher, networks.student)]
    assert weights[0] > 8 * weights[1]
    assert weights[1] < 100_000


def test_cubes_prefer_what_is_steep() -> None:
    torch.manual_seed(0)
    blocks = torch.zeros(1, 1, 8, 8, 8)
    blocks[..., 4:] = 1
    voxels = cube_voxels(draw_cubes(blocks, 400, 1.0), (8, 8, 8))
    assert voxels.shape == (1, 3200, 3)
    assert set(voxels[0, :, 2].tolist()) == {2, 3}
    assert torch.equal(pick(blocks, voxels), (voxels[..., 2] >= 4).float())


def test_the_teacher_counts_less_and_less() -> None:
    weights = [teacher_weight(share, 0.2) for share in (0.0, 0.2, 0.6, 1.0)]
    assert weights == pytest.approx([1.0, 1.0, 0.55, 0.1])


def test_configurations_name_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="codebook is 'of'"):
        ImplicitConfig.from_json({"preset": "smoke", "token": {"codebook": "of"}})
    with pytest.raises(ConfigError, match="no option 'sizes'"):
        ImplicitConfig.from_json({"preset": "smoke", "sizes": 3})
    given = ImplicitConfig.from_json({"preset": "smoke", "student": {"hidden": 8}})
    assert given.student.hidden == 8
    assert given.student.depth == ImplicitConfig.preset("smoke").student.depth
