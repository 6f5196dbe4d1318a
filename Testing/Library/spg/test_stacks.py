"""The images of a distilled set as volumes that an enhancer learns from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib import io
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.spg.dataset import load_distilled
from MedEnhanceLib.spg.stacks import distilled_volumes

from .conftest import phantom, write_cohort


def test_each_matched_image_is_drawn_out_to_a_volume(whole: Path) -> None:
    distilled = load_distilled(whole)
    images, volumes = distilled.images, list(distilled_volumes(distilled))
    assert len(volumes) == len(images) == 8
    for volume, image in zip(volumes, images, strict=True):
        assert (volume.modality, volume.shape) == ("MR", (32, 32, 32))
        assert volume.geometry.spacing == (3.0, 3.0, 3.0)
        assert 0 <= volume.voxels.min() <= volume.voxels.max() <= 1
        assert np.abs(volume.voxels[16] - image).max() < 1e-4
        along, across = (np.abs(np.diff(volume.voxels, axis=axis)).mean() for axis in (0, 2))
        assert 0.2 < along / across < 2
    again, other = (list(distilled_volumes(distilled, seed=n)) for n in (0, 1))
    assert np.array_equal(again[3].voxels, volumes[3].voxels)
    assert not np.array_equal(other[3].voxels, volumes[3].voxels)


def test_images_of_ct_become_volumes_in_hu(tmp_path: Path) -> None:
    io.save(phantom(9, "CT"), tmp_path / "prior.nii.gz")
    people = write_cohort(tmp_path / "people", "CT")
    prior = str(tmp_path / "prior.nii.gz")
    me.distill(people, tmp_path / "out", config="smoke", prior=prior, device="cpu")
    distilled = load_distilled(tmp_path / "out")
    first = next(distilled_volumes(distilled))
    assert (first.modality, first.units) == ("CT", "HU")
    assert np.allclose(first.voxels[16], distilled.images[0] * 2000 - 1000, atol=0.5)


#: The least training there is.
TINY = {"preset": "smoke", "steps": 2, "device": "cpu"}


@pytest.mark.slow
def test_the_enhancer_learns_from_the_images_and_its_card_names_the_set(
    whole: Path, tmp_path: Path
) -> None:
    folder = me.train("hqg", TINY, whole, tmp_path)
    bundle = read_bundle(folder)
    assert (bundle.kind, bundle.modality, bundle.uses_guides) == ("enhancer", "MR", False)
    assert "8 images distilled from 4 patients" in bundle.metadata["data"][0]["subjects"]
    assert "training signal, not anatomy" in bundle.metadata["limits"][0]
    noisy = phantom(0)
    made = me.enhance(noisy, model=str(folder), device="cpu")
    assert made.volume.shape == noisy.shape
    with pytest.raises(ConfigError, match="distilled set of MR"):
        me.train("hqg", {**TINY, "modality": "CT"}, whole, tmp_path)


def test_what_is_no_finished_set_or_has_an_alarm_is_reported(whole: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "distilled"
    shutil.copytree(whole, unfinished)
    (unfinished / "manifest.json").unlink()
    (unfinished / "work").mkdir()
    (unfinished / "work" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="unfinished"):
        me.train("hqg", "smoke", unfinished, tmp_path / "out")
    alarmed = load_distilled(_with_manifest(whole, tmp_path / "alarmed", audit={"alarm": True}))
    assert "raised the alarm" in str(alarmed.alarm)
    assert any("raised the alarm" in limit for limit in alarmed.limits)
    strange = _with_manifest(whole, tmp_path / "strange", modality="PT")
    with pytest.raises(InputError, match="modality is 'PT'"):
        load_distilled(strange)


def _with_manifest(whole: Path, folder: Path, **fields: Any) -> Path:
    """A copy of a set whose manifest says something else."""
    shutil.copytree(whole, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | fields))
    return folder
