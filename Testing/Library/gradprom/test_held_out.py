"""Heads for what is rare and small: patients held out, patches around labels, a window of CT."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.bundles.export import record_fields
from MedEnhanceLib.bundles.store import read_bundle, verify_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError, ModelError
from MedEnhanceLib.gradprom import SegmentConfig, TrainHeadConfig, open_head_for
from MedEnhanceLib.gradprom.config import HeadConfig
from MedEnhanceLib.gradprom.head import make_head
from MedEnhanceLib.gradprom.labeled import (
    check_structures,
    find_split,
    patients_of,
)
from MedEnhanceLib.gradprom.task import SegmentationTask
from MedEnhanceLib.gradprom.train import Example, draw_batch, segmentation_loss, train
from MedEnhanceLib.io import save
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime.progress import Monitor

STRUCTURES = ({"value": 5, "name": "Lump", "color": "#ff0000"},)
FIELDS: dict[str, Any] = {
    "preset": "smoke",
    "images": ["*/CT.nrrd"],
    "labels": ["*/lump.nrrd"],
    "structures": STRUCTURES,
    "modality": "CT",
    "name": "lump",
    "device": "cpu",
    "network": {"window": [-0.2, 0.3]},
}


def patient(number: int) -> tuple[Volume, Volume]:
    """Fat with a lump of muscle somewhere in it, in air, [8, 40, 40]."""
    rng = np.random.default_rng(number)
    k, j, i = np.mgrid[:8, :40, :40]
    body = (j - 20) ** 2 + (i - 20) ** 2 < 17**2
    row, column = rng.integers(15, 25, 2)
    lump = ((j - row) ** 2 + (i - column) ** 2 < 36) & (abs(k - 4) < 3)
    voxels = np.select([lump, body], [60.0, -90.0], -1000.0) + rng.normal(0, 10, body.shape)
    geometry = Geometry((1.0, 1.0, 3.0), (0.0, 0.0, 0.0))
    labels = Volume((lump * 5).astype(np.uint8), geometry, modality="SEG")
    return Volume(voxels.astype(np.int16), geometry, modality="CT"), labels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    for number in range(4):
        (folder / f"P{number}").mkdir()
        for name, volume in zip(("CT", "lump"), patient(number), strict=True):
            save(volume, folder / f"P{number}" / f"{name}.nrrd")
    return folder


def split(config: TrainHeadConfig, data: Path) -> list[list[str]]:
    return [[path.parent.name for path, _ in part] for part in find_split(config, data)]


def test_named_patients_are_held_out(data: Path) -> None:
    config = TrainHeadConfig.from_json(FIELDS | {"held_out": ["P1/*", "P3/*"]})
    assert split(config, data) == [["P0", "P2"], ["P1", "P3"]]
    with pytest.raises(InputError, match="P9"):
        split(replace(config, held_out=("P9/*",)), data)
    with pytest.raises(InputError, match="all labeled images are held out"):
        split(replace(config, held_out=("*",)), data)


def test_images_of_one_folder_are_of_one_patient(tmp_path: Path) -> None:
    """Else a head would be measured on the patient it learned from, one visit later."""
    for name in ("A/visit1.nrrd", "A/visit2.nrrd", "B/visit1.nrrd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = {"images": ["*/*.nrrd"], "labels": ["*/*.nrrd"], "held_out": ["A/visit2*"]}
    config = TrainHeadConfig.from_json(FIELDS | files)
    assert [len(part) for part in find_split(config, tmp_path)] == [1, 2]
    assert len(set(patients_of([Path("x/1.nii"), Path("x/2.nii")]))) == 2


def test_a_head_beside_an_enhancer_does_not_read_held_out_patients(data: Path) -> None:
    config = TrainHeadConfig.from_json(FIELDS | {"held_out": ["P1/*"]})
    task = SegmentationTask(config, data, "cpu")
    read = [path.parent.name for path, _, _ in task.subjects(Monitor())]
    assert read == ["P0", "P2", "P3"]


@pytest.mark.slow
def test_a_head_is_measured_on_patients_it_has_not_seen(data: Path, tmp_path: Path) -> None:
    """In the result, in the card, and reported as it goes; by numbers, not by names."""
    seen: list[str] = []

    def enhance(volume: Volume) -> Volume:
        seen.append(volume.source)
        return volume

    fields = {"labelled_share": 0.7, "held_out": ["P1/*", "P3/*"], "damaged": 1, "ema": 0.9}
    config = replace(
        TrainHeadConfig.from_json(FIELDS | fields), steps=150, batch=4, learning_rate=0.01
    )
    reported: list[str] = []
    monitor = Monitor(lambda event: reported.append(event.fields.get("message", "")))
    folder = train(config, data, tmp_path, monitor, enhance=enhance)
    bundle = read_bundle(folder)
    verify_bundle(bundle)
    rows = bundle.metadata["measured"]
    assert [(row["subject"], row["case"], row["input"]) for row in rows[-3:]] == [
        ("mean", "undamaged", "as it is"),
        ("mean", "5,000 photons", "as it is"),
        ("mean", "5,000 photons", "enhanced"),
    ]
    assert len(rows) == 2 * 3 + 3
    clean = [row["Lump (Dice)"] for row in rows if row["case"] == "undamaged"]
    assert clean[-1] == pytest.approx((clean[0] + clean[1]) / 2, abs=1e-3)
    assert min(clean) > 0.7
    card = (folder / "docs/README.md").read_text(encoding="utf-8")
    assert "| held-out patient 2 | undamaged | as it is |" in card
    assert "P3" not in card.replace("P3/*", "")
    assert any("held-out patient 2: P3" in message for message in reported)


def test_the_job_reports_what_was_measured(data: Path, tmp_path: Path) -> None:
    config = FIELDS | {"held_out": ["P1/*"], "steps": 1}
    params = {"method": "head", "config": config, "data": str(data), "out": str(tmp_path)}
    result = run_job(JobSpec("train", json.loads(json.dumps(params))))
    assert [row["subject"] for row in result["held_out"]] == ["held-out patient 1"] * 2 + [
        "mean"
    ] * 2


def examples() -> list[Example]:
    """A single labeled voxel far in a corner."""
    voxels = np.zeros((6, 60, 60), np.float32)
    labels = np.zeros(voxels.shape, np.uint8)
    labels[5, 58, 2] = 1
    return [Example((voxels,), labels, isotropic=False)]


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 0.99, 1.0), (0.0, 0.0, 0.1)])
def test_patches_hold_what_is_rare_as_often_as_asked(
    share: float, least: float, most: float
) -> None:
    config = replace(TrainHeadConfig.from_json(FIELDS), batch=200, labelled_share=share)
    # Zoomed out, nearest neighbors can step over a single voxel.
    big = [replace(one, labels=np.maximum(one.labels, 0)) for one in examples()]
    big[0].labels[5, 55:59, 1:5] = 1
    _, labels = draw_batch(big, config, np.random.default_rng(0))
    assert least <= float((labels > 0).flatten(1).any(1).float().mean()) <= most


def test_slices_that_are_thick_are_seen_in_their_own_plane_alone() -> None:
    voxels = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None, None], (6, 60, 60))
    labels = np.zeros(voxels.shape, np.uint8)
    config = replace(TrainHeadConfig.from_json(FIELDS), batch=40)
    for isotropic in (False, True):
        example = Example((np.ascontiguousarray(voxels),), labels, isotropic=isotropic)
        images, _ = draw_batch([example], config, np.random.default_rng(1))
        varies = images[:, 0, :4, :4].flatten(1).std(dim=1) > 0.1
        assert bool(varies.any()) == isotropic


def test_a_window_separates_what_lies_within_it() -> None:
    torch.manual_seed(0)
    head = make_head(HeadConfig(context=0, widths=(4, 8, 8, 8), window=(-0.2, 0.3)), 1).eval()
    bone, metal, fat = (torch.full((1, 1, 32, 32), value) for value in (0.5, 3.0, -0.1))
    assert torch.equal(head(bone), head(metal))
    assert not torch.equal(head(bone), head(fat))


def test_dice_over_the_batch_does_not_punish_patches_without_the_structure() -> None:
    labels = torch.zeros(4, 1, 16, 16)
    labels[0, :, 4:12, 4:12] = 1
    logits = torch.cat([-(labels * 8 - 4), labels * 8 - 4], dim=1)
    alone, together = segmentation_loss(), segmentation_loss(over_batch=True)
    assert together(logits, labels) < 0.2 < alone(logits, labels)
    empty = together(logits, torch.zeros_like(labels))
    assert torch.isfinite(empty)


def test_a_structure_that_nobody_has_is_named(data: Path, tmp_path: Path) -> None:
    config = TrainHeadConfig.from_json(FIELDS)
    more = (*STRUCTURES, {"value": 9, "name": "Stone", "color": "#00ff00"})
    with pytest.raises(InputError, match=r"'Stone' \(value 9\)"):
        check_structures(replace(config, structures=more), [np.array([0, 1], np.uint8)])
    with pytest.raises(InputError, match="Stone"):
        train(replace(config, structures=more), data, tmp_path)


def test_an_image_without_any_label_is_named(data: Path, tmp_path: Path) -> None:
    image, labels = patient(0)
    for name, volume in (("CT", image), ("lump", labels.with_voxels(0 * labels.voxels))):
        (tmp_path / "empty").mkdir(exist_ok=True)
        save(volume, tmp_path / "empty" / f"{name}.nrrd")
    with pytest.raises(InputError, match=r"empty.lump\.nrrd: no voxel .* \(5\); it holds 0"):
        train(TrainHeadConfig.from_json(FIELDS), tmp_path, tmp_path / "out")


def test_a_head_for_what_few_images_show_has_to_be_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TrainHeadConfig.from_json(FIELDS), steps=1, on_request=True)
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path))
    folder = train(config, data, tmp_path)
    record_fields(folder, {"modality": "EM"})
    volume = replace(patient(0)[0], modality="EM")
    with pytest.raises(ModelError, match="segments EM unless it is selected by name") as caught:
        open_head_for(volume, SegmentConfig())
    assert "--segment --head lump" in caught.value.hint
    assert open_head_for(volume, SegmentConfig(model="lump"))[0].name == "lump"
    record_fields(folder, {"on_request": False})
    assert open_bundle("auto", kind="head", modality="EM").name == "lump"


def labeled_by(volume: Volume, folder: Path) -> Path:
    """A folder with one image, and this volume as its labels."""
    image, _ = patient(0)
    (folder / "one").mkdir()
    save(image, folder / "one" / "CT.nrrd")
    save(volume, folder / "one" / "lump.nrrd")
    return folder


def test_an_image_in_place_of_labels_is_refused(tmp_path: Path) -> None:
    image, _ = patient(0)
    with pytest.raises(InputError, match=r"lump\.nrrd: these are no labels, but an image"):
        train(TrainHeadConfig.from_json(FIELDS), labeled_by(image, tmp_path), tmp_path / "out")


def test_labels_that_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    _, labels = patient(0)
    i, j, k = labels.geometry.origin
    moved = replace(labels, geometry=replace(labels.geometry, origin=(i + 200, j, k)))
    with pytest.raises(InputError, match=r"its labels lie elsewhere .*lump\.nrrd"):
        train(TrainHeadConfig.from_json(FIELDS), labeled_by(moved, tmp_path), tmp_path / "out")


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        ({"images": "ct/*.nii"}, 'images is .*\\["ct/'),
        ({"structures": ["Tumor"]}, r"structures is \('Tumor',\)"),
        ({"structures": [{"value": 1, "name": "Tumor"}]}, "Label lacks color"),
        ({"structures": [{"value": 0, "name": "T", "color": "#ffffff"}]}, "value of 'T' is 0"),
        ({"structures": [{"value": 1, "name": "T", "color": "yellow"}]}, "'yellow'.*#rrggbb"),
        ({"network": {"window": [-160, 240]}}, "HU / 1000"),
        ({"network": {"window": [0.3, -0.2]}}, "window"),
        ({"labelled_share": 1.5}, "labelled_share"),
        ({"structures": []}, "structures"),
        ({"labels": []}, "atlas"),
        ({"preset": "big"}, "big"),
        ({"step": 3}, "steps"),
    ],
)
def test_what_is_wrong_in_a_configuration_is_said(fields: dict[str, Any], reported: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _ = TrainHeadConfig.from_json(FIELDS | fields).label_set
    assert re.search(reported, f"{caught.value} {caught.value.hint}")
