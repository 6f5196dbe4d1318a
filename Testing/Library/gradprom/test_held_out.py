"""Heads for what is rare and small, and the labels of heads in the words of DICOM and Slicer."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedEnhanceLib.bundles.store import read_bundle, verify_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError, ModelError
from MedEnhanceLib.gradprom import Label, SegmentConfig, open_head_for
from MedEnhanceLib.gradprom.config import HeadConfig
from MedEnhanceLib.gradprom.head import make_head
from MedEnhanceLib.gradprom.labeled import find_split
from MedEnhanceLib.gradprom.train import Example, draw_batch, train
from MedEnhanceLib.io import save
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

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
    geometry = Geometry((1.0, 1.0, 3.0))
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


def test_images_of_one_folder_are_of_one_patient(tmp_path: Path) -> None:
    """Else a head would be measured on the patient it learned from, one visit later."""
    for name in ("A/visit1.nrrd", "A/visit2.nrrd", "B/visit1.nrrd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = {"images": ["*/*.nrrd"], "labels": ["*/*.nrrd"], "held_out": ["A/visit2*"]}
    config = TrainHeadConfig.from_json(FIELDS | files)
    assert [len(part) for part in find_split(config, tmp_path)] == [1, 2]
    with pytest.raises(InputError, match="P9"):
        find_split(replace(config, held_out=("P9/*",)), tmp_path)
    with pytest.raises(InputError, match="all labeled images are held out"):
        find_split(replace(config, held_out=("*",)), tmp_path)


@pytest.mark.slow
def test_a_head_is_measured_on_patients_it_has_not_seen(data: Path, tmp_path: Path) -> None:
    """In the result of the job, in the card, and in the log; by numbers, not by names."""
    training = {"steps": 150, "batch": 4, "learning_rate": 0.01, "ema": 0.9, "damaged": 1}
    config = FIELDS | training | {"labeled_share": 0.7, "held_out": ["P1/*", "P3/*"]}
    params = {"method": "head", "config": config, "data": str(data), "out": str(tmp_path)}
    reported: list[str] = []
    result = run_job(
        JobSpec("train", json.loads(json.dumps(params))),
        progress=lambda event: reported.append(str(event.fields.get("message", ""))),
    )
    rows = result["held_out"]
    subjects = ["held-out patient 1", "held-out patient 2", "mean"]
    assert [row["subject"] for row in rows] == [who for who in subjects for _ in range(2)]
    assert [row["image"] for row in rows] == ["clean", "noisy"] * 3
    figures = [row["Lump (Dice)"] for row in rows if row["image"] == "clean"]
    assert all(row["psnr_db"] > 0 for row in rows if row["image"] == "noisy")
    assert figures[2] == pytest.approx((figures[0] + figures[1]) / 2, abs=1e-3)
    assert min(figures) > 0.7
    folder = tmp_path / "lump"
    verify_bundle(read_bundle(folder))
    card = (folder / "docs/README.md").read_text(encoding="utf-8")
    assert "| held-out patient 2 | clean |" in card
    assert "None" not in card
    assert re.search(r"held out: 0\.\d\d on a noisy scan, 0\.\d\d on a clean scan\.", card)
    assert "P3" not in card.replace("P3/*", "")
    assert any("held-out patient 2: P3" in message for message in reported)


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 0.99, 1.0), (0.0, 0.0, 0.1)])
def test_patches_hold_what_is_rare_as_often_as_asked(
    share: float, least: float, most: float
) -> None:
    voxels = np.zeros((6, 60, 60), np.float16)
    labels = np.zeros(voxels.shape, np.uint8)
    labels[5, 55:59, 1:5] = 1
    config = replace(TrainHeadConfig.from_json(FIELDS), batch=200, labeled_share=share)
    example = Example((voxels,), labels, isotropic=False)
    _, drawn = draw_batch([example], config, np.random.default_rng(0))
    assert least <= float((drawn > 0).flatten(1).any(1).float().mean()) <= most


def test_a_window_separates_what_lies_within_it() -> None:
    torch.manual_seed(0)
    head = make_head(HeadConfig(context=0, widths=(4, 8, 8, 8), window=(-0.2, 0.3)), 1).eval()
    bone, metal, fat = (torch.full((1, 1, 32, 32), value) for value in (0.5, 3.0, -0.1))
    assert torch.equal(head(bone), head(metal))
    assert not torch.equal(head(bone), head(fat))


IMAGE, LABELS = patient(0)
MOVED = replace(LABELS, geometry=Geometry(LABELS.geometry.spacing, (200, 0, 0)))
EMPTY = LABELS.with_voxels(0 * LABELS.voxels)


@pytest.mark.parametrize(
    ("labels", "reported"),
    [
        (IMAGE, r"lump\.nrrd: an image, not labels"),
        (MOVED, r"lump\.nrrd has another shape, origin"),
        (EMPTY, r"lump\.nrrd: no voxel .* \(5, 9\); its values: 0"),
        (LABELS, r"'Stone' \(value 9\)"),
    ],
)
def test_labels_that_cannot_be_learned_from_are_named(
    labels: Volume, reported: str, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    save(IMAGE, tmp_path / "one" / "CT.nrrd")
    save(labels, tmp_path / "one" / "lump.nrrd")
    structures = (*STRUCTURES, {"value": 9, "name": "Stone", "color": "#00ff00"})
    config = replace(TrainHeadConfig.from_json(FIELDS), structures=structures)
    with pytest.raises(InputError, match=reported):
        train(config, tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        ({"images": "ct/*.nii"}, "images is .*Use a list"),
        ({"structures": ["Tumor"]}, r"structures is \('Tumor',\)"),
        ({"structures": [{"value": 1, "name": "Tumor"}]}, "Label lacks color"),
        ({"structures": [{"value": 0, "name": "T", "color": "#ffffff"}]}, "value is 0"),
        ({"structures": [{"value": 1, "name": "T", "color": "yellow"}]}, "'yellow'.*#rrggbb"),
        ({"network": {"window": [-160, 240]}}, "HU / 1000"),
        ({"structures": []}, "structures"),
        ({"labels": []}, "labels is empty"),
        (
            {"structures": [{"value": n, "name": "a", "color": "#f00000"} for n in (1, 2)]},
            "one name",
        ),
    ],
)
def test_what_is_wrong_in_a_configuration_is_said(fields: dict[str, Any], reported: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _ = TrainHeadConfig.from_json(FIELDS | fields).label_set
    assert re.search(reported, f"{caught.value} {caught.value.hint}")


_ROOT = Path(__file__).resolve().parents[3]


def labels_of(entries: list[dict[str, Any]]) -> list[Label]:
    return [config_from_json(Label, entry) for entry in entries]


def recipe(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_ROOT / f"docs/recipes/{name}.json").read_text("utf-8"))
    return found


def test_every_label_of_the_brain_has_its_terminology() -> None:
    labels = labels_of(recipe("brain")["structures"])
    types: dict[str, set[str]] = {}
    for label in labels:
        assert label.category is not None
        assert label.type is not None
        assert (label.category.value, label.category.scheme) == ("123037004", "SCT")
        assert label.type.scheme in ("SCT", "DCM")
        name = label.name.removeprefix("Left ").removeprefix("Right ")
        types.setdefault(label.type.value, set()).add(name)
    assert all(len(names) == 1 for names in types.values())
    assert (len(labels), len(types)) == (28, 16)


def test_the_tumor_head_is_coded_as_dicom_codes_lesions() -> None:
    """And like its recipe; it is for nobody who does not ask for it."""
    from pydicom.sr.codedict import codes

    bundle = read_bundle(_ROOT / "Resources/models/sarcoma-ct")
    verify_bundle(bundle)
    (label,) = labels_of(bundle.metadata["labels"])
    assert label.category is not None
    assert label.type is not None
    assert label.category.value == codes.cid7150.MorphologicallyAbnormalStructure.value
    kind = codes.cid7159.Neoplasm
    assert (label.type.value, label.type.scheme) == (kind.value, kind.scheme_designator)
    for stated in (recipe("sarcoma-ct"), recipe("sarcoma-mr")):
        assert labels_of(stated["structures"]) == [label]
        assert stated["on_request"]
    assert bundle.on_request
    ct = Volume(np.arange(2048, dtype=np.int16).reshape(2, 32, 32), modality="CT")
    with pytest.raises(ModelError, match="segments CT unless it is selected by name") as caught:
        open_head_for(ct, SegmentConfig())
    assert "sarcoma-ct" in caught.value.hint
    head, _ = open_head_for(ct, SegmentConfig(model="sarcoma-ct", force_segmenter=True))
    assert head.name == "sarcoma-ct"


@pytest.mark.parametrize(
    ("images", "labels", "wrong"),
    [
        (("a", "b"), ("a_drawn", "b_drawn"), ""),
        (("a", "b"), ("b", "c"), "without a partner: a, c"),
        (("a", "b"), ("b", "c", "d"), "without a partner: a, c, d"),
    ],
)
def test_labels_stand_beside_the_images_of_their_names(
    images: tuple[str, ...], labels: tuple[str, ...], wrong: str, tmp_path: Path
) -> None:
    for folder, names in (("images", images), ("labels", labels)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.nii.gz").touch()
    config = TrainHeadConfig.from_json({"labels": ["labels/*"], "structures": STRUCTURES})
    if wrong:
        with pytest.raises(InputError, match=wrong):
            find_split(config, tmp_path)
        return
    learned, _ = find_split(config, tmp_path)
    assert [path.name for path, _ in learned] == [f"{name}.nii.gz" for name in images]
