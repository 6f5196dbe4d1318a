"""A head from label maps: command, job and Python train it, and it segments."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.label_maps import (
    LEFT_HORN,
    RIGHT_HORN,
    SKULL,
    STRUCTURES,
    fields,
    label_map,
    write_label_maps,
)

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib import io
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.learning.training import Learner
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig


@pytest.fixture(scope="session")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_label_maps(tmp_path_factory.mktemp("maps"))


@pytest.mark.slow
def test_a_head_is_trained_on_label_maps_and_segments(
    maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "toy.json"
    stated = fields(held_out=["2.nii.gz"])
    config.write_text(json.dumps(stated), encoding="utf-8")
    command = ["train", "head", "--from-labels", str(maps), "--config", str(config)]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    folder = tmp_path / "run/toy"
    card = (folder / "docs/README.md").read_text(encoding="utf-8")
    assert "painted from one of 2 label maps" in card
    metadata = read_bundle(folder).metadata
    monkeypatch.setattr(Learner, "step", lambda *_: pytest.fail("it is trained already"))
    measured = {"measured": [{"structure": "core", "Dice": 0.5}]}
    sized = lambda model, *_: (replace(model, sizes={"core": 0.25}), measured)  # noqa: E731
    monkeypatch.setattr("MedEnhanceLib.training.gradprom.heads.measure", sized)
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    again = read_bundle(folder).metadata
    assert again["network"]["sizes"] == {"core": 0.25} and again["measured"] == measured["measured"]
    weights = "models/model.safetensors"
    assert again["files"][weights] == metadata["files"][weights]
    labels = label_map(9)
    gray = np.select([labels.voxels == 3, labels.voxels == 165, labels.voxels > 0], [500, 90, 800])
    volume = Volume(gray.astype(np.int16), labels.geometry, modality="MR")
    found = me.segment(volume, model=str(folder), force_segmenter=True)
    assert [row["label"] for row in found.table] == [entry["name"] for entry in STRUCTURES]
    assert found.volume.geometry == volume.geometry
    assert set(np.unique(found.volume.voxels)) <= {0, *(entry["value"] for entry in STRUCTURES)}
    assert found.uncertainty is not None and found.uncertainty.shape == volume.shape


def _write_images(folder: Path, labels: Volume, names: tuple[str, ...]) -> Path:
    """Save a label map without its skull, and images, of the names given."""
    folder.mkdir()
    gray = np.where(labels.voxels == 3, 700, np.where(labels.voxels > 0, 300, 20)).astype(np.int16)
    inner = np.where(labels.voxels == SKULL, 0, labels.voxels)
    for name in names:
        voxels, modality = (inner, "SEG") if name.endswith("dseg") else (gray, "MR")
        io.save(Volume(voxels, labels.geometry, modality=modality), folder / f"{name}.nii.gz")
    return folder


@pytest.mark.slow
def test_a_head_learns_from_images_with_labels_beside_the_maps(maps: Path, tmp_path: Path) -> None:
    names = ("sub-1_T1w", "sub-1_T2w", "sub-1_dseg")
    images = _write_images(tmp_path / "images", label_map(7), names)
    given = fields(image_share=0.5)
    folder = me.train("head", given, from_labels=maps, images=images, out=tmp_path / "run")
    metadata = read_bundle(folder).metadata
    assert "50% showing one of 2 labeled images instead" in metadata["training"]["summary"]
    assert not any("not on images" in limit for limit in metadata["limits"])
    assert str(images) not in json.dumps(metadata)


@pytest.mark.parametrize(
    ("names", "change", "says"),
    [
        (("sub-1_T1w",), {}, r"sub-1_T1w\.nii\.gz: no label map beside it.*sub-1_dseg"),
        (("sub-1_dseg",), {}, "no images.*NAME_T1w"),
        (("sub-1_T1w", "sub-1_dseg"), {"horn": 0}, "sub-1_dseg.nii.gz labels no horn"),
    ],
)
def test_images_and_labels_that_do_not_belong_together_are_refused(
    names: tuple[str, ...], change: dict[str, int], says: str, maps: Path, tmp_path: Path
) -> None:
    labels = label_map(7)
    if change:
        voxels = np.where(np.isin(labels.voxels, [LEFT_HORN, RIGHT_HORN]), 3, labels.voxels)
        labels = replace(labels, voxels=voxels)
    images = _write_images(tmp_path / "images", labels, names)
    with pytest.raises(InputError) as caught:
        me.train("head", fields(), maps, tmp_path / "run", images=str(images))
    assert re.search(says, f"{caught.value} {caught.value.hint}")
    assert not (tmp_path / "run").exists()


def test_an_image_on_another_grid_is_refused(maps: Path, tmp_path: Path) -> None:
    labels = label_map(7)
    images = _write_images(tmp_path / "images", labels, ("sub-1_dseg",))
    moved = replace(labels.geometry, origin=(9.0, 0.0, 0.0))
    io.save(Volume(labels.voxels * 1.0, moved, modality="MR"), images / "sub-1_T1w.nii.gz")
    with pytest.raises(InputError, match=r"T1w.*: not on the grid of its label map"):
        me.train("head", fields(), maps, tmp_path / "run", images=images)


def test_each_door_starts_the_training(
    maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(me.train), "imported before what it imports is replaced"
    calls: list[tuple[str, type, Path]] = []

    def stop(method: str, config: object, data: Path, *_: object, **__: object) -> Path:
        calls.append((method, type(config), data))
        raise ConfigError("stopped", "Here.")

    for place in ("jobs.train.train_method", "training_api.train_method"):
        monkeypatch.setattr(f"MedEnhanceLib.training.{place}", stop)
    params = {"method": "head", "data": str(maps), "out": str(tmp_path / "run")}
    runs: tuple[Callable[[], object], ...] = (
        lambda: run_job(JobSpec("train", params | {"config": fields()})),
        lambda: me.train("head", "smoke", maps, tmp_path),
        lambda: me.train("head", TrainHeadConfig(), from_labels=maps, out=tmp_path),
    )
    for run in runs:
        with pytest.raises(ConfigError, match="stopped"):
            run()
    assert calls == [("head", TrainHeadConfig, maps)] * 3


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("hqg", "--from-labels", "maps"), "hqg does not learn from label maps"),
        (("head", "--from-labels", "maps", "--data", "images"), "trained on label maps"),
        (("head", "--data", "images"), "trained on label maps"),
        (("head", "--from-labels", "nowhere"), "no label map for training matches"),
    ],
)
def test_what_does_not_go_with_label_maps_is_refused(
    command: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *command, "--out", str(tmp_path / "run")]) in (2, 3, 4)
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists() or not [*(tmp_path / "run").rglob("*.safetensors")]


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        ({"maps": "maps/*.nii"}, "maps is .*Use a list"),
        ({"structures": ["Tumor"]}, r"structures is \('Tumor',\)"),
        ({"structures": [{"value": 1, "name": "Tumor"}]}, "Label lacks color"),
        ({"structures": [{"value": 0, "name": "T", "color": "#ffffff"}]}, "value is 0"),
        ({"structures": [{"value": 1, "name": "T", "color": "yellow"}]}, "'yellow'.*#rrggbb"),
        (
            {"structures": [{"value": n, "name": "a", "color": "#f00000"} for n in (1, 2)]},
            "one name",
        ),
    ],
)
def test_what_is_wrong_in_a_configuration_is_said(wrong: dict[str, Any], reported: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _ = TrainHeadConfig.from_json(fields(**wrong)).label_set
    assert re.search(reported, f"{caught.value} {caught.value.hint}")
