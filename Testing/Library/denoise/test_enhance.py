"""Enhancing a volume: grid, units and type kept; the odd and the hostile answered."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.denoise.denoisers import Denoised, Frames
from MedEnhanceLib.denoise.network_stage import SetNetwork
from MedEnhanceLib.errors import InputError, ModelError


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


def test_a_constant_volume_is_refused_by_name(config: EnhanceConfig) -> None:
    flat = Volume(np.full((3, 32, 32), 7, np.int16), modality="MR", source="flat.nii")
    with pytest.raises(InputError, match=r"flat\.nii"):
        enhance(flat, config)


def test_a_model_for_another_modality_is_refused_with_what_fits(
    head: Volume, config: EnhanceConfig
) -> None:
    with pytest.raises(ModelError, match="for MR, the volume is CT"):
        enhance(replace(head, modality="CT"), config)


def test_an_unusable_guide_is_refused_before_torch_is_imported() -> None:
    script = """
import sys
import numpy as np
import MedEnhanceLib as me
from MedEnhanceLib.core.volume import Volume
volume = Volume(np.arange(4800, dtype=np.float32).reshape(3, 40, 40), modality="MR")
try:
    me.enhance(volume, guide=volume)
except me.InputError:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.stdout.split() == [b"False"], done.stderr


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(head: Volume, config: EnhanceConfig) -> None:
    floating = replace(head, voxels=head.voxels.astype(np.float32))
    cpu, cuda = (
        enhance(floating, replace(config, device=device)).volume.voxels
        for device in ("cpu", "cuda")
    )
    assert np.abs(cpu - cuda).max() < 1e-3 * np.ptp(head.voxels)


def test_filter_and_network_compute_without_tf32(
    head: Volume, config: EnhanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which cuDNN allows in convolutions by default."""
    allowed: list[bool] = []

    original = SetNetwork.denoise

    def watched(network: SetNetwork, frames: Frames) -> Denoised:
        allowed.append(torch.backends.cudnn.allow_tf32)
        return original(network, frames)

    monkeypatch.setattr(SetNetwork, "denoise", watched)
    enhance(head, config)
    assert allowed == [False] and torch.backends.cudnn.allow_tf32


def test_a_sequence_of_constant_frames_is_refused_before_any_is_enhanced(
    head: Volume, config: EnhanceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_be_called(*_: object) -> None:
        raise AssertionError("enhanced a frame")

    monkeypatch.setattr(SetNetwork, "denoise", must_not_be_called)
    voxels = np.stack([np.zeros_like(head.voxels), np.full_like(head.voxels, 7)])
    with pytest.raises(InputError, match="constant in frame 0"):
        enhance(replace(head, voxels=voxels), config)
