"""A preview of some slices is the whole run's, bit for bit, and costs its slices alone."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.origin import DicomOrigin, Instance, Lossy
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.hqg import EnhanceConfig, VolumeCache, enhance, predict
from MedEnhanceLib.hqg.bundle import open_enhancer
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.nets.slices import Plan, SliceStacks, Window
from MedEnhanceLib.runtime.progress import Monitor


@pytest.fixture
def config(model: str) -> EnhanceConfig:
    return EnhanceConfig(model=model, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("slices", [(0, 1), (4, 7), (11, 12), (0, 12)])
def test_slices_equal_those_of_the_whole_run(
    head: Volume, config: EnhanceConfig, slices: tuple[int, int], batch: int | None
) -> None:
    # Floats show every bit, and slices of unlike brightness that all of them were measured.
    fading = head.voxels * np.linspace(0.3, 1.5, len(head.voxels), dtype=np.float32)[:, None, None]
    volume = replace(head, voxels=fading.astype(np.float32))
    config = replace(config, batch=batch, uncertainty=2)
    guide = replace(head, voxels=head.voxels[::-1].copy())
    whole = enhance(volume, config, guide=guide)
    part = enhance(volume, config, guide=guide, slices=slices)
    crop = slice(*slices)
    assert part.volume.voxels.tobytes() == whole.volume.voxels[crop].tobytes()
    assert part.uncertainty is not None
    assert whole.uncertainty is not None
    assert part.uncertainty.voxels.tobytes() == whole.uncertainty.voxels[crop].tobytes()
    assert (
        part.volume.geometry
        == part.uncertainty.geometry
        == head.geometry.cropped((crop.start, 0, 0))
    )
    assert part.volume.history == whole.volume.history


def test_slices_remember_the_images_behind_them_and_no_others(
    head: Volume, config: EnhanceConfig
) -> None:
    images = tuple(
        tuple(Instance(f"{t}-{k}.dcm", "1.2.840", f"1.2.{t}.{k}") for k in range(len(head.voxels)))
        for t in range(2)
    )
    sequence = replace(
        head,
        voxels=np.stack([head.voxels] * 2),
        origin=DicomOrigin("1.2.8", "1.2.9", images),
        lossy=(Lossy("ISO_10918_1", 8.0),),
    )
    part = enhance(sequence, config, slices=(2, 4)).volume
    assert part.origin is not None
    assert part.origin.instances == tuple(frame[2:4] for frame in images)
    assert part.frame(1).origin == DicomOrigin("1.2.8", "1.2.9", (images[1][2:4],))
    assert part.lossy == sequence.lossy


def test_slices_of_a_sequence_are_those_of_each_frame(head: Volume, config: EnhanceConfig) -> None:
    sequence = replace(head, voxels=np.stack([head.voxels, head.voxels // 2]))
    part = enhance(sequence, config, slices=(2, 4)).volume
    assert np.array_equal(part.voxels, enhance(sequence, config).volume.voxels[:, 2:4])


@pytest.mark.parametrize("slices", [(-1, 2), (3, 3), (4, 2), (0, 13), (12, 13)])
def test_slices_that_are_not_there_are_refused(
    head: Volume, config: EnhanceConfig, slices: tuple[int, int]
) -> None:
    with pytest.raises(ConfigError, match="of a volume that has 12"):
        enhance(head, config, slices=slices)


def test_n4_of_some_slices_is_refused(head: Volume, config: EnhanceConfig) -> None:
    with pytest.raises(ConfigError, match="whole volume"):
        enhance(head, replace(config, bias_correction="n4"), slices=(0, 1))


def test_what_a_cache_holds_is_not_measured_again(
    head: Volume, config: EnhanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, guide = replace(head), replace(head, voxels=head.voxels[::-1].copy())
    caches = {"cache": VolumeCache(), "guide_cache": VolumeCache()}
    first = enhance(volume, config, guide=guide, slices=(3, 5), **caches).volume

    def must_not_be_called(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(predict, "volume_content", must_not_be_called)
    monkeypatch.setattr("MedEnhanceLib.hqg.infer.scaling_for", must_not_be_called)
    monkeypatch.setattr("MedEnhanceLib.hqg.infer._cue_mean", must_not_be_called)
    assert enhance(volume, config, guide=guide, slices=(3, 5), **caches).volume.is_equal(first)
    with pytest.raises(AssertionError, match="measured again"):
        enhance(replace(volume), config, slices=(3, 5))


@pytest.mark.parametrize("low", [0.0, 20.0, -30.0])
def test_an_mr_never_falls_below_nothing_or_its_own_lowest(
    head: Volume, config: EnhanceConfig, low: float
) -> None:
    volume = replace(head, voxels=np.abs(head.voxels).astype(np.float32) + np.float32(low))
    for strength in (1.0, 1.5):
        better = enhance(volume, replace(config, strength=strength)).volume.voxels
        assert better.min() >= min(0.0, low)
        assert not np.array_equal(better, volume.voxels)


def test_edges_are_mirrored_so_that_noise_stays_noise(rng: np.random.Generator) -> None:
    """Streaks of repeated pixels have no noise to be found: what lies beside them kept its own."""
    noise = rng.normal(0, 1, (2, 41, 50)).astype(np.float32)
    padded = SliceStacks(noise, Scaling(0.0, 1.0), 0).planes(slice(0, 2))
    assert padded.shape == (2, 64, 64)
    for axis, beyond in ((1, padded[:, 41:]), (2, padded[..., 50:])):
        assert float(beyond.diff(dim=axis).std()) > 1
    thin = SliceStacks(noise[:, :1, :3], Scaling(0.0, 1.0), 0).planes(slice(0, 2))
    assert thin.shape == (2, 32, 32)


@pytest.mark.slow
def test_nothing_of_a_run_waits_for_the_garbage_collector(
    head: Volume, config: EnhanceConfig
) -> None:
    def tensors() -> int:
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    enhance(head, config)
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        enhance(head, config)
        assert tensors() <= before
    finally:
        gc.enable()


def test_a_preview_that_exaggerates_has_the_floor_of_the_whole(
    head: Volume, config: EnhanceConfig, rng: np.random.Generator
) -> None:
    noise = rng.normal(0, 60, head.voxels.shape).astype(np.float32)
    voxels = np.abs(head.voxels + noise)
    voxels[0, 0, 0] = -500  # outside of the preview
    volume, config = replace(head, voxels=voxels), replace(config, strength=1.5)
    whole = enhance(volume, config).volume.voxels[4:7]
    assert whole.min() < 0
    assert np.array_equal(enhance(volume, config, slices=(4, 7)).volume.voxels, whole)


def test_the_content_is_measured_where_most_is_shown() -> None:
    plane = torch.zeros(1, 512, 512)
    plane[:, 320:448, 64:192] = 0.3
    plane[:, :40, 400:440] = 9.0  # bright, but little
    assert predict._fullest([plane, plane], 0.1) == Window(slice(320, 448), slice(64, 192))
    in_ct = plane - 1  # air at −1000 HU, tissue at −700
    assert predict._fullest([in_ct], -0.9) == Window(slice(320, 448), slice(64, 192))
    assert predict._fullest([torch.ones(1, 64, 96)], 0.1) == Window(slice(0, 64), slice(0, 96))


def test_a_part_starts_from_all_that_it_depends_on(model: str) -> None:
    opened = open_enhancer(read_bundle(Path(model)))
    voxels = np.random.default_rng(0).random((20, 32, 40), np.float32)
    stacks = SliceStacks(voxels, Scaling(0.0, 1.0), opened.config.context)
    plan, cue = Plan.make("cpu", batch=4, tile=256, overlap=0.25), opened.bank.mean[None]
    with torch.inference_mode():
        part, whole = (
            predict.shrunk(predict.SliceRun(opened, stacks, cue, plan, only), Monitor())
            for only in (slice(9, 13), slice(0, 20))
        )
    assert part is not None
    assert whole is not None
    assert opened.config.context == 1
    # Its neighbors, and the rest of their chunks.
    assert np.flatnonzero(part.voxels.any(axis=(1, 2))).tolist() == [*range(8, 16)]
    assert np.array_equal(part.voxels[8:16], whole.voxels[8:16])
