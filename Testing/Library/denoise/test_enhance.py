"""Enhancing a volume: grid, units and type kept; the odd and the hostile answered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from Library.conftest import WarningRecorder

from MedEnhanceLib import native
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.denoise.denoisers import BlockMatching
from MedEnhanceLib.errors import DependencyError, InputError


def test_grid_type_and_meaning_stay(head: Volume) -> None:
    result = enhance(head)
    assert result.volume.geometry == head.geometry
    assert result.volume.dtype == head.dtype
    assert result.volume.shape == head.shape
    assert (result.volume.modality, result.volume.units) == (head.modality, head.units)
    assert not np.array_equal(result.volume.voxels, head.voxels)
    assert result.volume.history[-1].startswith("DERIVED")


def test_a_constant_volume_is_refused_by_name() -> None:
    flat = Volume(np.full((3, 32, 32), 7, np.int16), modality="MR", source="flat.nii")
    with pytest.raises(InputError, match=r"flat\.nii"):
        enhance(flat)


@pytest.mark.parametrize(
    ("modality", "says"), [("OT", "the modality is unknown"), ("PT", "this is PT")]
)
def test_noise_of_an_unknown_kind_is_filtered_on_request_alone(
    head: Volume, modality: str, says: str
) -> None:
    other = replace(head, modality=modality)
    with pytest.raises(InputError, match=says) as caught:
        enhance(other)
    assert "--modality MR" in caught.value.hint or "--denoiser block-matching" in caught.value.hint
    assert enhance(other, EnhanceConfig(denoiser="block-matching")).volume.modality == modality


def test_a_device_that_removes_no_noise_is_announced(
    head: Volume, recorder: WarningRecorder
) -> None:
    enhance(head, EnhanceConfig(device="cuda"), monitor=recorder.monitor)
    assert any("runs on cpu, not on cuda" in each for each in recorder.warnings)


@pytest.mark.parametrize(
    ("state", "hint"),
    [("not compiled. Run: X", "It is not compiled. Run: X"), ("a.so is damaged. Run: X",) * 2],
)
def test_without_the_compiled_library_an_error_names_the_remedy(
    head: Volume, monkeypatch: pytest.MonkeyPatch, state: str, hint: str
) -> None:
    monkeypatch.setattr(native, "_find_or_build", lambda *_, **__: (None, state))
    with pytest.raises(DependencyError, match="Removing noise needs the compiled library") as error:
        enhance(head)
    assert error.value.hint == hint


def test_a_sequence_of_constant_frames_is_refused_before_any_is_enhanced(
    head: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_be_called(*_: object) -> None:
        raise AssertionError("enhanced a frame")

    monkeypatch.setattr(BlockMatching, "denoise", must_not_be_called)
    voxels = np.stack([np.zeros_like(head.voxels), np.full_like(head.voxels, 7)])
    with pytest.raises(InputError, match="constant in frame 0"):
        enhance(replace(head, voxels=voxels))
