"""The set network: what it leaves alone, what a guide may change, and that slabs do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import network_stage
from MedEnhanceLib.denoise.bundle import SetWeights
from MedEnhanceLib.denoise.config import NetworkConfig
from MedEnhanceLib.denoise.groups import GuidedNetwork
from MedEnhanceLib.denoise.network import Groups
from MedEnhanceLib.denoise.network_stage import SetNetwork
from MedEnhanceLib.denoise.removal import Removal, denoise
from MedEnhanceLib.filters import block_matching, block_matching_run
from MedEnhanceLib.filters.block_matching import Engine
from MedEnhanceLib.filters.native_engine import NativeEngine
from MedEnhanceLib.filters.torch_engine import TorchEngine
from MedEnhanceLib.learning import precision
from MedEnhanceLib.noise.estimate import NoiseEstimate, measure_noise

SMALL = NetworkConfig(width=24, hidden=24, layers=1, guide_layers=1, blocks=8)


def scene(shape: tuple[int, int, int] = (20, 44, 40)) -> Floats:
    """Bars and spheres between .2 and 1."""
    k, j, i = np.ogrid[tuple(slice(0, side) for side in shape)]
    image = 0.4 + 0.3 * (((j // 9) + (k // 7)) % 2) + 0.0 * i
    image = image + 0.25 * ((i - 20) ** 2 + (j - 20) ** 2 + (k - 9) ** 2 < 80)
    return image.astype(np.float32)


def noisy_volume(modality: str = "MR", shape: tuple[int, int, int] = (20, 44, 40)) -> Volume:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.08, shape).astype(np.float32)
    top = 1000 if modality == "CT" else 1
    return Volume((scene(shape) + noise) * np.float32(top), Geometry(), modality)


def noise_of(volume: Volume) -> NoiseEstimate:
    measured = measure_noise(volume.voxels, modality=volume.modality, spacing=(1, 1, 1))
    return replace(measured, rician=False)


def network(*, seed: int | None, config: NetworkConfig = SMALL) -> GuidedNetwork:
    """Untrained; with a seed it changes something."""
    torch.manual_seed(0 if seed is None else seed)
    made = GuidedNetwork(config).eval().requires_grad_(False)
    if seed is not None:
        for layer in (made.network.out, made.correction.out):
            torch.nn.init.normal_(layer.weight, std=0.02)
    return made


def method_of(made: GuidedNetwork, engine: Engine | None = None) -> SetNetwork:
    arrays = {name: each.numpy() for name, each in made.state_dict().items()}
    return SetNetwork(engine, weights=SetWeights(made.config, arrays))


def run(
    made: GuidedNetwork,
    volume: Volume,
    guides: Sequence[Floats] = (),
    method: SetNetwork | None = None,
    **frames: slice,
) -> block_matching_run.Slab:
    top = 1000.0 if volume.modality == "CT" else 1.0
    network, removal = method or method_of(made), Removal(noise_of(volume))
    return denoise(volume, removal, network, tops={0: top}, guides=guides, **frames)


def test_without_the_compiled_library_the_result_is_the_same(
    native_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "computes_in_half", lambda _: False)
    volume = noisy_volume("CT", (12, 24, 28))
    removal, made = Removal(noise_of(volume)), network(seed=1)
    in_single = NativeEngine(native.Library(native_path, "plain"))
    whole, other = (
        denoise(volume, removal, method_of(made, engine), tops={0: 1000.0}).voxels
        for engine in (TorchEngine(), in_single)
    )
    far = np.abs(whole - other) / removal.noise.level
    # Of equally similar blocks the two may take different ones.
    assert np.quantile(far, 0.9) < 1e-4 and far.max() < 0.1
    some = denoise(
        volume, removal, method_of(made, TorchEngine()),
        slices=slice(5, 6), tops={0: 1000.0},
    ).voxels  # fmt: skip
    assert np.array_equal(some, whole[5:6])


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_untrained_it_returns_the_filters_estimate(modality: str) -> None:
    volume = noisy_volume(modality)
    noise = noise_of(volume)
    rounds = (
        block_matching.CT_ROUNDS
        if modality == "CT"
        else (*block_matching.MR_ROUNDS, block_matching.MR_ROUNDS[-1])
    )
    estimate = block_matching.BlockMatchingFilter(
        volume.voxels, noise, noise.spectrum.reshape(-1), rounds=rounds
    ).denoised()
    result = run(network(seed=None), volume).voxels
    assert np.array_equal(result, estimate)


def test_low_frequencies_stay_as_the_filter_leaves_them() -> None:
    made = network(seed=1, config=replace(SMALL, least_order=2))
    blocks = torch.randn(3, 5, SMALL.blocks, 64)
    groups = Groups(*blocks, distance=torch.rand(5, SMALL.blocks), level=torch.full((5,), 0.1))
    changed = made(groups, []).unguided.abs().amax((0, 1)) > 0
    # The constant, and one half wave along one axis.
    assert (~changed).nonzero().flatten().tolist() == [0, 1, 4, 16]


@pytest.mark.parametrize(
    ("modality", "config"),
    [
        ("MR", NetworkConfig(width=20, hidden=40, layers=2, guide_layers=1, blocks=5)),
        ("CT", NetworkConfig(least_order=2.5)),
        ("MR", NetworkConfig(width=40, hidden=24, layers=1, guide_layers=1, blocks=64)),
    ],
)
def test_c_and_pytorch_agree(
    modality: str, config: NetworkConfig, native_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, made = noisy_volume(modality, (10, 23, 29)), network(seed=1, config=config)
    monkeypatch.setattr(precision, "computes_in_half", lambda _device: False)
    with monkeypatch.context() as of_the_filter_alone:
        of_the_filter_alone.setattr(network_stage, "NativeEngine", TorchEngine)
        expected = run(made, volume).voxels
    sigma = noise_of(volume).level
    estimate = run(network(seed=None, config=config), volume).voxels
    assert np.abs(expected - estimate).max() > sigma / 10
    for width in native.Library(native_path).widths:
        engine = NativeEngine(native.Library(native_path, width))
        result = run(made, volume, method=method_of(made, engine)).voxels
        far = np.abs(result - expected) / sigma
        is_rounded = width in native.BFLOAT_WIDTHS
        assert far.max() < (0.1 if is_rounded else 1e-3)
        assert far.mean() < (0.01 if is_rounded else 1e-5)


def test_a_guide_acts_where_it_shows_something_alone() -> None:
    volume, made = noisy_volume(), network(seed=1)
    without = run(made, volume).voxels
    guide, flat = 1 - scene(), np.full(volume.shape, 0.5, np.float32)
    for empty in (flat, np.full_like(flat, np.nan)):
        result = run(made, volume, [empty])
        assert np.array_equal(result.voxels, without)
        assert result.use == 0
    together = run(made, volume, [guide, flat]).voxels
    assert np.abs(together - run(made, volume, [guide]).voxels).max() < 1e-4
    guide[:, :, 24:] = np.nan
    result = run(made, volume, [guide])
    changed = np.abs(result.voxels - without)
    assert changed[:, :, :16].max() > 1e-3
    assert changed[:, :, 34:].max() == 0
    assert result.change is not None and result.change[:, :, 34:].max() == 0
    assert 0 < result.use < 1
