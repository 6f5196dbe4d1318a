"""How much of what distilling changed is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig, KeepingConfig
from MedEnhanceLib.spg.keeping import SHARES, _least, share_to_keep, with_share
from MedEnhanceLib.spg.slices import Floats


@pytest.fixture
def config() -> DistillConfig:
    keeping = KeepingConfig(seeds=2, steps=40, patch=16)
    return replace(DistillConfig.preset("smoke"), keeping=keeping)


def rings(count: int, level: float, seed: int) -> Floats:
    """[count, 32, 32]: something to be restored, of about the brightness `level`."""
    rng = np.random.default_rng(seed)
    row = np.linspace(-1, 1, 32)
    distance = np.hypot(*np.meshgrid(row, row))
    waves = [np.sin(distance * rng.uniform(6, 14) + rng.uniform(0, 6)) for _ in range(count)]
    return np.float32(level + 0.1 * np.stack(waves)).astype(np.float32)


def test_shares_lie_between_the_prior_and_the_images() -> None:
    prior, images = rings(2, 0.5, 0), rings(4, 0.6, 1)
    assert with_share(images, prior, 1.0) is images
    half = with_share(images, prior, 0.5)
    assert np.allclose(half, (images + np.tile(prior, (2, 1, 1))) / 2, atol=1e-6)
    assert half.dtype == np.float32


def test_a_change_that_spoils_the_images_for_others_is_left_out(config: DistillConfig) -> None:
    raw = {name: rings(6, 0.5, seed) for seed, name in enumerate("abcd")}
    prior = rings(2, 0.5, 9)
    noise = np.random.default_rng(0).normal(0, 0.3, (4, *prior.shape)).astype(np.float32)
    spoiled = list(np.clip(prior + noise, 0, 1))
    kept = share_to_keep(spoiled, prior, raw, "MR", config)
    assert kept.share == SHARES[0]
    assert list(kept.psnr_db) == list(SHARES)
    assert kept.psnr_db[0.25] > kept.psnr_db[1.0]
    assert kept == share_to_keep(spoiled, prior, raw, "MR", config)


def test_a_change_that_helps_others_is_kept(config: DistillConfig) -> None:
    """A prior of which nothing can be learned, and images as they should be."""
    raw = {name: rings(6, 0.5, seed) for seed, name in enumerate("abcd")}
    prior = np.random.default_rng(0).uniform(0, 1, (2, 32, 32)).astype(np.float32)
    good = [rings(2, 0.5, seed) for seed in range(4)]
    longer = replace(config, keeping=replace(config.keeping, steps=100))
    assert share_to_keep(good, prior, raw, "MR", longer).share == 1.0


def test_with_one_patient_all_is_kept_and_nothing_is_trained(config: DistillConfig) -> None:
    alone = share_to_keep(
        [rings(2, 0.5, 0)], rings(2, 0.5, 1), {"a": rings(3, 0.5, 2)}, "MR", config
    )
    assert alone.share == 1.0
    assert not alone.psnr_db


def test_the_least_share_is_taken_of_those_that_cannot_be_told_apart() -> None:
    assert _least(np.array([[20.0, 22.2, 21.0], [20.1, 21.9, 21.1], [20.2, 22.0, 21.2]])) == 0
    assert _least(np.array([[20.0, 22.0, 21.0], [21.0, 23.0, 22.1], [21.1, 23.0, 22.0]])) == 1


def test_it_can_be_cancelled(config: DistillConfig) -> None:
    images = [rings(2, 0.5, seed) for seed in range(2)]
    with pytest.raises(Cancelled):
        share_to_keep(
            images,
            rings(2, 0.5, 5),
            {"a": images[0], "b": images[1]},
            "MR",
            config,
            monitor=Monitor(cancel=lambda: True),
        )
