"""Enhancing a volume: grid, units and type kept; the odd and the hostile answered."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import (
    Cancelled,
    ConfigError,
    InputError,
    ModelError,
)
from MedEnhanceLib.hqg import EnhanceConfig, check_look, enhance
from MedEnhanceLib.nets.intensity import scaling_for
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


def test_strength_blends_without_changing_the_rest(head: Volume, config: EnhanceConfig) -> None:
    none = enhance(head, replace(config, strength=0.0)).volume
    half = enhance(head, replace(config, strength=0.5)).volume
    full = enhance(head, config).volume
    assert np.array_equal(none.voxels, head.voxels)
    middle = (head.voxels.astype(float) + full.voxels) / 2
    above = full.voxels > head.voxels.min()  # below, the undershoot was cut
    assert above.mean() > 0.6
    assert np.abs(half.voxels - middle)[above].max() <= 1.01


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
    sequence = replace(head, voxels=np.stack([head.voxels, head.voxels]))
    result = enhance(sequence, config).volume
    assert result.shape == sequence.shape
    alone = enhance(head, config).volume.voxels
    assert all(np.array_equal(voxels, alone) for voxels in result.voxels)


@pytest.mark.parametrize("role", ["guide", "look"])
def test_a_volume_of_another_modality_is_refused(
    head: Volume, config: EnhanceConfig, role: str
) -> None:
    with pytest.raises(InputError, match=f"{role} is CT"):
        enhance(head, config, **{role: replace(head, modality="CT")})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "says"), [(0, "constant, every voxel is 0"), (5, "is CT, the volume MR")]
)
@pytest.mark.parametrize("role", ["guide", "look"])
def test_a_wrong_volume_is_refused_before_any_model_is_looked_for(
    head: Volume, value: int, says: str, role: str
) -> None:
    """An empty one for that reason, not for the modality that a file of zeros seems to have."""
    voxels = np.where(head.voxels > 0, value, 0).astype(np.int16)
    given = replace(head, voxels=voxels, modality="CT" if value else "OT")
    with pytest.raises(InputError, match=says):
        enhance(head, EnhanceConfig(model="not-there"), **{role: given})  # type: ignore[arg-type]


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize(
    ("value", "says"),
    [(0, "constant"), (7, "constant"), (np.nan, r"NaN or infinite"), (np.inf, r"NaN or infinite")],
)
def test_a_look_that_shows_nothing_is_refused_by_name(
    modality: str, value: float, says: str
) -> None:
    voxels = np.full((3, 40, 40), value, np.float32)
    look = Volume(voxels, modality=modality, source="flat.nii")
    with pytest.raises(InputError, match=rf"flat\.nii.*{says}"):
        check_look(look, replace(look, voxels=np.ones_like(voxels)))


@pytest.mark.parametrize("role", ["guide", "look"])
def test_a_sequence_beside_the_volume_is_refused(
    head: Volume, config: EnhanceConfig, role: str
) -> None:
    sequence = replace(head, voxels=np.stack([head.voxels, head.voxels]))
    with pytest.raises(InputError, match=f"{role} is a sequence"):
        enhance(head, config, **{role: sequence})  # type: ignore[arg-type]


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


def test_cancelling_stops_it(head: Volume, config: EnhanceConfig) -> None:
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        enhance(head, config, monitor=Monitor(seen.append, lambda: len(seen) > 1))


def test_n4_flattens_shading(config: EnhanceConfig) -> None:
    k, j, i = np.mgrid[-1:1:24j, -1:1:48j, -1:1:48j]
    ball = (k**2 + j**2 + i**2 < 0.9) * 500.0
    shaded = (ball * (1 + 0.4 * i)).astype(np.float32) + 1
    volume = Volume(shaded, Geometry((2.0, 2.0, 2.0)), modality="MR")
    inside = k**2 + j**2 + i**2 < 0.7
    before = enhance(volume, replace(config, bias_correction="none")).volume.voxels[inside]
    after = enhance(volume, replace(config, bias_correction="n4")).volume.voxels[inside]
    assert after.std() / after.mean() < 0.6 * before.std() / before.mean()
    assert after.mean() == pytest.approx(before.mean(), rel=0.1)


@pytest.mark.parametrize(
    "fields",
    [{"strength": 2.0}, {"uncertainty": 8}, {"bias_correction": "n5"}, {"strength": float("nan")}],
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
