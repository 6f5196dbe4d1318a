"""Enhancing a volume: grid, units and type kept; the odd and the hostile answered."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import (
    Cancelled,
    ConfigError,
    DeviceMemoryError,
    InputError,
    ModelError,
)
from MedEnhanceLib.hqg import EnhanceConfig, enhance, infer, predict
from MedEnhanceLib.hqg.bundle import EnhancerModel
from MedEnhanceLib.hqg.network import Enhancer
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.slices import Plan
from MedEnhanceLib.runtime.progress import Event, Monitor


@pytest.fixture
def config(model: str) -> EnhanceConfig:
    return EnhanceConfig(model=model, device="cpu")


def test_grid_type_and_meaning_stay(head: Volume, config: EnhanceConfig) -> None:
    result = enhance(head, config)
    assert result.volume.geometry == head.geometry
    assert result.volume.dtype == head.dtype
    assert result.volume.shape == head.shape
    assert (result.volume.modality, result.volume.units) == (head.modality, head.units)
    assert not np.array_equal(result.volume.voxels, head.voxels)
    assert result.volume.history[-1].startswith("DERIVED")


def test_the_same_input_gives_the_same_output(head: Volume, config: EnhanceConfig) -> None:
    first, second = (enhance(head, config).volume for _ in range(2))
    assert first.is_equal(second)


def test_batch_size_does_not_change_the_result(head: Volume, config: EnhanceConfig) -> None:
    few, many = (enhance(head, replace(config, batch=batch)).volume for batch in (2, 8))
    assert np.array_equal(few.voxels, many.voxels)


def test_strength_blends_without_changing_the_rest(head: Volume, config: EnhanceConfig) -> None:
    none = enhance(head, replace(config, strength=0.0)).volume
    half = enhance(head, replace(config, strength=0.5)).volume
    full = enhance(head, config).volume
    assert np.array_equal(none.voxels, head.voxels)
    middle = (head.voxels.astype(float) + full.voxels) / 2
    above = full.voxels > head.voxels.min()  # below, the undershoot was cut
    assert above.mean() > 0.6
    assert np.abs(half.voxels - middle)[above].max() <= 1.01


@pytest.mark.slow
def test_tiles_agree_with_the_whole_slice_where_one_tile_covers_it(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half precision turns a last bit that differs into a step of its own.
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    voxels = np.random.default_rng(0).normal(500, 100, (2, 64, 1792)).astype(np.float32)
    volume = Volume(voxels, modality="MR")
    whole, tiled = (
        enhance(volume, EnhanceConfig(model=model, device="cpu", tile=tile)).volume.voxels
        for tile in (1792, 1024)
    )
    difference = np.abs(whole - tiled) / np.percentile(voxels, 99.5)
    assert difference[..., :768].max() < 1e-4
    assert difference[..., 1024:].max() < 1e-4
    correction = np.abs(whole - voxels) / np.percentile(voxels, 99.5)
    assert difference[..., 768:1024].mean() < 0.2 * correction.mean()  # blended


def test_uncertainty_is_a_volume_in_the_units_of_the_input(
    head: Volume, config: EnhanceConfig
) -> None:
    result = enhance(head, replace(config, uncertainty=True))
    assert result.uncertainty is not None
    assert result.uncertainty.geometry == head.geometry
    assert result.uncertainty.dtype == np.float32
    assert result.uncertainty.voxels.min() >= 0
    assert result.uncertainty.voxels.max() > 0
    again = enhance(head, replace(config, uncertainty=True))
    assert again.uncertainty is not None
    assert np.array_equal(result.uncertainty.voxels, again.uncertainty.voxels)
    assert result.volume.is_equal(enhance(head, config).volume)


def test_intensities_scale_with_the_input(head: Volume, config: EnhanceConfig) -> None:
    double = replace(head, voxels=head.voxels.astype(np.float32) * 2)
    single = replace(head, voxels=head.voxels.astype(np.float32))
    one, two = (enhance(volume, config).volume.voxels for volume in (single, double))
    assert np.allclose(two, 2 * one, rtol=1e-3, atol=0.5)


@pytest.mark.parametrize("shape", [(1, 40, 40), (2, 33, 57), (5, 7, 9), (3, 1, 1)])
def test_thin_and_small_volumes_come_back_whole(
    shape: tuple[int, int, int], config: EnhanceConfig
) -> None:
    voxels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1
    assert enhance(Volume(voxels, modality="MR"), config).volume.shape == shape


def test_every_frame_of_a_sequence_is_enhanced(head: Volume, config: EnhanceConfig) -> None:
    sequence = replace(head, voxels=np.stack([head.voxels, head.voxels // 2]))
    result = enhance(sequence, config).volume
    assert result.shape == sequence.shape
    assert np.array_equal(result.voxels[0], enhance(head, config).volume.voxels)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("uncertainty", [False, True])
def test_what_is_no_number_is_counted_and_named(
    head: Volume, config: EnhanceConfig, value: float, uncertainty: bool
) -> None:
    voxels = head.voxels.astype(np.float32)
    voxels[4, 10, 10:13] = value
    volume = replace(head, voxels=voxels, source="scan.nii")
    with pytest.raises(InputError, match=r"scan\.nii: 3 voxels are NaN or infinite.*slice 4"):
        enhance(volume, replace(config, uncertainty=uncertainty))


@pytest.mark.slow
def test_slices_of_2000_pixels_go_through_in_tiles(model: str) -> None:
    j, i = np.mgrid[0:2000, 0:2000]
    plane = (500 + 300 * np.sin(j / 40) * np.cos(i / 60)).astype(np.int16)
    volume = Volume(np.stack([plane, plane]), modality="MR")
    result = enhance(volume, EnhanceConfig(model=model, device="cpu", tile=512)).volume
    assert result.shape == volume.shape
    assert result.dtype == np.int16


def test_a_constant_volume_is_refused_by_name(config: EnhanceConfig) -> None:
    flat = Volume(np.full((3, 32, 32), 7, np.int16), modality="MR", source="flat.nii")
    with pytest.raises(InputError, match=r"flat\.nii"):
        enhance(flat, config)


def test_a_model_for_another_modality_is_refused_with_what_fits(
    head: Volume, config: EnhanceConfig
) -> None:
    with pytest.raises(ModelError, match="for MR, the volume is CT"):
        enhance(replace(head, modality="CT"), config)


def test_a_damaged_model_is_named(head: Volume, model: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    weights = copy / "models/model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(ModelError, match="damaged"):
        enhance(head, EnhanceConfig(model=str(copy), device="cpu"))


def test_a_missing_model_lists_what_is_there(head: Volume) -> None:
    with pytest.raises(ModelError, match="no model 'nothing'"):
        enhance(head, EnhanceConfig(model="nothing"))


def test_weights_that_do_not_fit_are_refused(head: Volume, model: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    path = copy / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    metadata["network"]["widths"] = [8, 8, 12, 24]
    path.write_text(json.dumps(metadata))
    with pytest.raises(ModelError, match="do not fit"):
        enhance(head, EnhanceConfig(model=str(copy), device="cpu"))


def test_cancelling_stops_between_batches(head: Volume, config: EnhanceConfig) -> None:
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        enhance(head, replace(config, batch=1), monitor=Monitor(seen.append, lambda: len(seen) > 4))


def test_memory_running_out_shrinks_the_work_and_says_so(
    head: Volume, config: EnhanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, batch=8)
    expected = enhance(head, config).volume
    real = Enhancer.begin

    def tight(self: Enhancer, slabs: torch.Tensor, *others: Any) -> torch.Tensor:
        if slabs.shape[1] > 4:  # two slices with one on either side
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, slabs, *others)

    monkeypatch.setattr(Enhancer, "begin", tight)
    warnings: list[Event] = []
    result = enhance(
        head, config, monitor=Monitor(lambda e: warnings.append(e) if e.kind == "warning" else None)
    )
    reported = [event for event in warnings if "memory ran out" in event.fields["message"]]
    assert len(reported) == 2  # from 8 slices to 4, from 4 to 2
    assert np.array_equal(result.volume.voxels, expected.voxels)


def test_memory_running_out_at_the_smallest_tile_is_an_error(
    head: Volume, config: EnhanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(Enhancer, "begin", never)
    with pytest.raises(DeviceMemoryError, match="smallest tile"):
        enhance(head, config)


def test_the_ladder_ends_on_the_cpu() -> None:
    plan: Plan | None = Plan("cuda", 4, 1024, 0.25)
    rungs = []
    while plan is not None:
        rungs.append((plan.device, plan.batch, plan.tile))
        plan = plan.smaller()
    assert rungs[:5] == [
        ("cuda", 4, 1024), ("cuda", 2, 1024), ("cuda", 1, 1024), ("cuda", 1, 512), ("cuda", 1, 256),
    ]  # fmt: skip
    assert rungs[-1] == ("cpu", 1, 256)


def test_n4_flattens_shading(tiny_model: Path) -> None:
    k, j, i = np.mgrid[-1:1:24j, -1:1:48j, -1:1:48j]
    ball = (k**2 + j**2 + i**2 < 0.9) * 500.0
    shaded = (ball * (1 + 0.4 * i)).astype(np.float32) + 1
    volume = Volume(shaded, Geometry((2.0, 2.0, 2.0)), modality="MR")
    inside = k**2 + j**2 + i**2 < 0.7
    config = EnhanceConfig(model=str(tiny_model), device="cpu")  # changes next to nothing itself
    before = enhance(volume, config).volume.voxels[inside]
    after = enhance(volume, replace(config, bias_correction="n4")).volume.voxels[inside]
    assert after.std() / after.mean() < 0.6 * before.std() / before.mean()
    assert after.mean() == pytest.approx(before.mean(), rel=0.1)


@pytest.mark.parametrize(
    "fields",
    [{"strength": 2.0}, {"uncertainty": 8}, {"overlap": 1.0}, {"tile": 100}, {"batch": 0},
     {"bias_correction": "n5"}, {"strength": float("nan")}],
)  # fmt: skip
def test_impossible_options_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        EnhanceConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(head: Volume, config: EnhanceConfig) -> None:
    floating = replace(head, voxels=head.voxels.astype(np.float32))
    cpu, cuda = (
        enhance(floating, replace(config, device=device)).volume.voxels
        for device in ("cpu", "cuda")
    )
    assert np.abs(cpu - cuda).max() < 1e-3 * np.ptp(head.voxels)


def test_memory_that_runs_out_midway_leaves_the_result_as_it_is(
    head: Volume, config: EnhanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some slices are done, and in the midst of the samples of the uncertainty."""
    # In half precision chunks of another size are rounded otherwise, which is not the matter here.
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    config = replace(config, batch=4, uncertainty=True)
    expected = enhance(head, config)
    calls, real = [], Enhancer.begin

    def tight(self: Enhancer, slabs: torch.Tensor, *others: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) in (3, 9):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, slabs, *others)

    monkeypatch.setattr(Enhancer, "begin", tight)
    warnings: list[Event] = []
    monitor = Monitor(lambda event: warnings.append(event) if event.kind == "warning" else None)
    result = enhance(head, config, monitor=monitor)
    assert len([event for event in warnings if "memory" in event.fields["message"]]) == 2
    # Chunks of another size can show in the last bits, which rounding to integers turns into one.
    assert np.abs(result.volume.voxels.astype(int) - expected.volume.voxels).max() <= 1
    assert result.uncertainty is not None
    assert expected.uncertainty is not None
    assert np.allclose(result.uncertainty.voxels, expected.uncertainty.voxels, rtol=1e-3)


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("value", [0, 7, -1000])
def test_a_constant_volume_has_no_scale(modality: str, value: int) -> None:
    flat = Volume(np.full((3, 40, 40), value, np.int16), modality=modality, source="flat.nii")
    with pytest.raises(InputError, match=r"flat\.nii: intensities are constant"):
        scaling_for(flat)


def test_a_frame_that_shows_nothing_is_named_before_any_is_enhanced(
    head: Volume, config: EnhanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_be_called(*_: object) -> None:
        raise AssertionError("enhanced a frame")

    monkeypatch.setattr("MedEnhanceLib.hqg.infer._Steps.run", must_not_be_called)
    voxels = np.stack([head.voxels, head.voxels, np.zeros_like(head.voxels)])
    with pytest.raises(InputError, match="constant in frame 2"):
        enhance(replace(head, voxels=voxels), config)


def test_jobs_in_two_threads_never_share_a_network(
    head: Volume, config: EnhanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them may move it to another device while the other is within it."""
    moved: list[object] = []
    met = threading.Barrier(2)

    def move(network: torch.nn.Module, device: str) -> torch.nn.Module:
        met.wait(60)  # each is within its own run, on its way to a device
        moved.append(network)
        return real(network, device)

    real = predict.move
    enhance(head, config)  # the networks are kept now
    kept = open_kept(config.model)
    monkeypatch.setattr(predict, "move", move)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: enhance(head, config).volume, range(2))
    assert first.is_equal(second)
    assert len({id(network) for network in moved}) == 2
    assert not any(network is kept.enhancer for network in moved)


def open_kept(model: str) -> EnhancerModel:
    bundle = read_bundle(Path(model))
    described = json.dumps(bundle.metadata, sort_keys=True, default=str)
    return infer._warm_enhancer(bundle.folder, bundle.sha256, described)


@pytest.mark.parametrize("model", ["mr-brain", "ct-lowdose"])
def test_a_network_that_does_not_run_is_not_opened(
    head: Volume, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_be_called(*_: object, **__: object) -> None:
        raise AssertionError("opened the network")

    monkeypatch.setattr(infer, "open_enhancer", must_not_be_called)
    infer._warm_enhancer.cache_clear()
    volume = head if model == "mr-brain" else replace(head, modality="CT")
    result = enhance(volume, EnhanceConfig(model=model, device="cpu", task="noise"))
    assert result.volume.shape == head.shape
