"""Users are warned where the measured noise is not what the filter takes it for, and only there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from Library.hqg.conftest import brain

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation import Rician
from MedEnhanceLib.hqg.noise_check import noise_warning
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.nets.noise import measure_noise
from MedEnhanceLib.runtime.progress import Event


def volume(voxels: npt.NDArray[np.generic], modality: str = "MR") -> Volume:
    return Volume(np.ascontiguousarray(voxels), Geometry((1.0, 1.0, 1.0)), modality=modality)


def code_of(data: Volume, *, is_full: bool = False) -> str:
    noise = measure_noise(data.voxels, modality=data.modality)
    warning = noise_warning(data, noise, is_full=is_full)
    return warning.code if warning else ""


@pytest.mark.parametrize("kind", ["rayleigh", "grained CT", "one slice"])
def test_nothing_but_noise_is_a_serious_warning(kind: str, rng: np.random.Generator) -> None:
    white = rng.normal(0, 30, (12, 64, 64))
    # Pixels like their neighbors, as after a smooth kernel.
    grained = sum(np.roll(white, (j, i), (1, 2)) for j in (-1, 0, 1) for i in (-1, 0, 1)) / 3
    data = {
        "rayleigh": volume(rng.rayleigh(100, white.shape).astype(np.float32)),
        "grained CT": volume(grained.astype(np.int16), "CT"),
        "one slice": volume((200 + rng.normal(0, 30, (1, 128, 128))).astype(np.float32)),
    }[kind]
    assert code_of(data) == "no-structure"


def test_noise_that_is_not_the_filters_is_named(rng: np.random.Generator) -> None:
    labels = (brain().voxels // 60).astype(np.uint8)
    mask = (brain().voxels > 50).astype(np.uint8)
    small = Rician(0.05, 1).apply(volume(brain().voxels[:, ::2, ::2])).voxels
    spectrum = np.fft.fftshift(np.fft.fft2(small), axes=(1, 2))
    padded = np.pad(spectrum, ((0, 0), (24, 24), (24, 24)))
    enlarged = np.abs(np.fft.ifft2(np.fft.ifftshift(padded, axes=(1, 2))))
    for data in (labels, mask, enlarged.astype(np.float32)):
        assert code_of(volume(data)) == "noise-model"


@pytest.mark.parametrize("level", [0.0, 0.02, 0.05, 0.15, 0.3])
def test_a_scan_is_no_reason_to_warn(level: float) -> None:
    data = Rician(level, 3).apply(brain()) if level else brain()
    assert code_of(data) == ""


def test_all_of_an_uncertain_correction_is_named() -> None:
    assert code_of(brain(), is_full=True) == "noise-model"
    assert code_of(Rician(0.1, 3).apply(brain()), is_full=True) == ""


def test_the_shipped_model_says_it_everywhere(tmp_path: Path) -> None:
    noise = np.random.default_rng(8).rayleigh(100, (8, 48, 56)).astype(np.float32)
    me.save(volume(noise), tmp_path / "noise.nii.gz")
    params = {
        "input": str(tmp_path / "noise.nii.gz"),
        "modality": "MR",
        "output": str(tmp_path / "out.nii.gz"),
        "config": {"device": "cpu"},
    }
    events: list[Event] = []
    run_job(JobSpec("enhance", params), events.append)
    said = [event.fields["message"] for event in events if event.kind == "warning"]
    assert any("no structure, only noise" in message for message in said)
    manifest = json.loads((tmp_path / "out.nii.gz.json").read_text())
    assert [row["code"] for row in manifest["results"]["doubts"]] == ["no-structure"]
    assert "no structure" in me.load(tmp_path / "out.nii.gz", modality="MR").history[-1]
