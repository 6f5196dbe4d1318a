"""A brain has one segmentation, however its voxel axes are ordered and directed in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.storages import SOME, STORAGES, Storage, restored, stored
from Library.tissue_head import STRUCTURES, sample

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.bundles.suitability import compare_likeness
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.labels import Segmentation
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.labeled import read_labeled
from MedEnhanceLib.gradprom.slice_segmenter import SliceSegmenter
from MedEnhanceLib.io import load, save
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

ORIGIN = (3, 5, -7)
pytestmark = pytest.mark.usefixtures("default_head")


@pytest.fixture(scope="module")
def brain() -> Volume:
    return sample(4, ORIGIN)


def segmented(volume: Volume) -> Segmentation:
    return me.segment(volume, device="cpu", force_segmenter=True)


def assert_same_labels(first: Segmentation, volume: Volume, storage: Storage) -> None:
    """In another storage, labels and table are the same bit for bit, and geometry stays."""
    other = stored(volume, storage)
    result = segmented(other)
    assert result.volume.geometry == other.geometry
    assert np.array_equal(restored(result.volume.voxels, storage), first.volume.voxels)
    assert result.table == first.table


def test_labels_and_table_are_those_of_any_other_storage(brain: Volume) -> None:
    first = segmented(brain)
    assert len(np.unique(first.volume.voxels)) == 1 + len(STRUCTURES)
    for storage in SOME:
        assert_same_labels(first, brain, storage)


@pytest.mark.parametrize("thick", [0, 1, 2])
def test_thick_slices_are_segmented_as_slices(brain: Volume, thick: int) -> None:
    spacing = [4.0, 4.0, 4.0]
    spacing[2 - thick] = 12.0
    voxels = np.moveaxis(np.moveaxis(brain.voxels, thick, 0)[::3], 0, thick)
    volume = replace(brain, voxels=voxels, geometry=Geometry(tuple(spacing)))  # type: ignore[arg-type]
    assert volume.geometry.turn.axes[0] == thick
    assert_same_labels(segmented(volume), volume, SOME[3])


def test_the_command_labels_all_storages_alike(brain: Volume, tmp_path: Path) -> None:
    first = segmented(brain).volume.voxels
    storage = STORAGES[45]
    save(stored(brain, storage), tmp_path / "T1.nii.gz")
    labels = tmp_path / "labels.nii.gz"
    options = ["--modality", "MR", "--device", "cpu", "--force-segmenter"]
    assert main(["segment", str(tmp_path / "T1.nii.gz"), str(labels), *options]) == 0
    assert np.array_equal(restored(load(labels).voxels, storage), first)


def test_likeness_to_training_images_does_not_depend_on_the_storage(
    brain: Volume, default_head: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[dict[str, float]] = []

    def compare(likeness: dict[str, Any], numbers: dict[str, float]) -> tuple[float, str]:
        described.append(numbers)
        return compare_likeness(likeness, numbers)

    monkeypatch.setattr("MedEnhanceLib.gradprom.slice_segmenter.compare_likeness", compare)
    head = SliceSegmenter(default_head)
    reasons = {head.find_unlike(stored(brain, each).canonical()) for each in SOME[::2]}
    assert len(reasons) == 1
    assert len(described[0]) > 5
    assert all(each == described[0] for each in described)


def test_heads_learn_in_the_order_in_which_they_are_used(brain: Volume, tmp_path: Path) -> None:
    drawn = replace(brain.with_voxels((brain.voxels > 100).astype(np.uint8)), modality="SEG")
    structures = [{"value": 1, "name": "Brain", "color": "#ff0000"}]
    fields = {"preset": "smoke", "structures": structures, "labels": ["labels.nrrd"]}
    config = TrainHeadConfig.from_json(fields)
    for storage in SOME[::3]:
        files = tmp_path / "image.nrrd", tmp_path / "labels.nrrd"
        for volume, path in zip((brain, drawn), files, strict=True):
            save(stored(volume, storage), path, overwrite=True)
        labeled = read_labeled(config, files, Monitor())
        assert np.array_equal(labeled.image.voxels, brain.voxels)
        assert np.array_equal(labeled.indices, drawn.voxels)
