"""The wavelet is undone exactly, codebooks refine each other, cells know nothing of their block."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.unicompress.codecs.implicit.codec import Scaling
from MedEnhanceLib.unicompress.codecs.implicit.config import (
    DecoderConfig,
    ImplicitConfig,
    TokenConfig,
)
from MedEnhanceLib.unicompress.codecs.implicit.decoder import (
    CORNERS,
    corner_signs,
    cosines,
    count_weights,
    positions_of,
)
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import (
    Networks,
    ResidualQuantizer,
    Tokenizer,
    haar,
    inverse_haar,
)
from MedEnhanceLib.unicompress.codecs.implicit.trainer import (
    cube_voxels,
    draw_cubes,
    pick,
    teacher_weight,
)

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
    quantizer = ResidualQuantizer(SMALL, 3)
    latents = torch.randn(400, 16)
    quantizer.start(latents)
    quantizer.requires_grad_(False)
    errors = [
        float(torch.mean((quantizer(latents, torch.full((400,), used)).latents - latents) ** 2))
        for used in range(4)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[0]


def test_codebooks_learn_and_dead_codes_come_back() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(SMALL, 3)
    latents = torch.randn(300, 16)
    quantizer.start(latents)
    with torch.no_grad():
        quantizer.codebooks[0, :8] = 1e6  # nothing is near them
        quantizer.sums[0, :8] = 0
        quantizer.uses[0, :8] = 0
    for _ in range(20):
        quantizer(latents, torch.full((300,), 3), learn=True)
    assert float(quantizer.codebooks[0].abs().max()) < 100


def test_random_codes_stay_as_they_are() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(TokenConfig(latent=16, codes=16, codebook="random"), 4)
    latents = torch.randn(200, 16)
    quantizer.start(latents)
    before = quantizer.codebooks.clone()
    quantizer(latents, torch.full((200,), 4), learn=True)
    assert torch.equal(before, quantizer.codebooks)


def test_gradients_pass_the_quantizer() -> None:
    quantizer = ResidualQuantizer(SMALL, 3)
    latents = torch.randn(10, 16, requires_grad=True)
    quantizer(latents, torch.full((10,), 3)).latents.sum().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0


def test_to_bytes_twice_changes_nothing() -> None:
    quantizer = ResidualQuantizer(SMALL, 3)
    quantizer.to_bytes()
    before = {n: t.clone() for n, t in quantizer.state_dict().items()}
    quantizer.to_bytes()
    assert all(torch.equal(before[n], t) for n, t in quantizer.state_dict().items())


@pytest.mark.parametrize("thick", [False, True])
def test_latents_have_the_published_shape(thick: bool) -> None:
    tokeniser = Tokenizer(TokenConfig())
    block = torch.zeros(1, 1, 16 if thick else 32, 64, 64)
    tokens = tokeniser(block, torch.tensor([8]), thick=thick)
    assert tokens.low.shape == tokens.high.shape == (1, 64, 4, 8, 8)
    assert tokens.codes.shape == (1, tokeniser.refinements, 4, 8, 8)


def test_without_the_high_band_details_change_nothing() -> None:
    tokeniser = Tokenizer(TokenConfig(width=8, high_band=False))
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


def test_networks_begin_as_a_linear_transform() -> None:
    """Before anything is learned, blocks of few cosines come back from their latents."""
    torch.manual_seed(0)
    config = DecoderConfig(hidden=8, depth=1, scaled=0)
    networks = Networks(TokenConfig(width=8), config, config)
    grid = torch.stack(torch.meshgrid(*map(torch.arange, (16, 16, 16)), indexing="ij"), dim=-1)
    amplitudes = torch.rand(6, 1, 1, 1, 1, 1)
    waves = torch.cos(torch.pi * (grid.flip(-1)[..., 0] + 0.5) / 8)
    blocks = amplitudes[..., 0] * waves
    encoders = networks.tokeniser.encoders
    encoders.start([(blocks, False)])
    networks.start_values()
    student = networks.student
    torch.nn.init.zeros_(student.out.weight)
    with torch.no_grad():
        for key in student.fusion.keys:
            assert isinstance(key, torch.nn.Linear)
            key.weight.zero_()
        low, high = encoders(blocks, thick=False)
        inside = grid[2:14:2, 5:12:3, 2:6].reshape(-1, 3)  # within cells, where none is blended
        values = student(low, high, positions_of(inside, thick=False).expand(6, -1, -1)).values
    wanted = blocks[:, 0][:, inside[:, 0], inside[:, 1], inside[:, 2]]
    assert torch.mean((values - wanted) ** 2) < 0.02 * torch.mean(wanted**2)


def test_corners_see_the_cosines_of_their_own_cell() -> None:
    """One cell on, a cosine of even order is the same, one of odd order the opposite."""
    places = torch.tensor([[0.3, 0.6, 0.1]])
    here = cosines(places, 64)
    for corner, signs in zip(CORNERS, corner_signs(64), strict=True):
        torch.testing.assert_close(cosines(places - corner, 64), signs * here, atol=1e-5, rtol=0)


def test_blocks_are_scaled_by_themselves() -> None:
    block = np.arange(4096).reshape(16, 16, 16).astype(np.int16)
    scaling = Scaling(0, 1024).of_block(block)
    assert np.abs(scaling.apply(block)).max() < 1.02
    even = Scaling(0, 1024).of_block(np.full((8, 8, 8), 40, np.int16))
    assert (even.offset, even.scale) == (40, 102)
