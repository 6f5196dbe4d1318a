"""A head from label maps alone: command, job and Python train it, and it segments."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from Library.label_maps import STRUCTURES, fields, label_map, write_label_maps

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.training.gradprom.config import TrainFromLabelsConfig, TrainHeadConfig


@pytest.fixture(scope="session")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_label_maps(tmp_path_factory.mktemp("maps"))


@pytest.mark.slow
def test_a_head_is_trained_on_label_maps_and_segments(maps: Path, tmp_path: Path) -> None:
    config = tmp_path / "toy.json"
    config.write_text(json.dumps(fields()), encoding="utf-8")
    command = ["train", "head", "--from-labels", str(maps), "--config", str(config)]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    folder = tmp_path / "run/toy"
    card = (folder / "docs/README.md").read_text(encoding="utf-8")
    assert "painted from one of 3 label maps" in card
    labels = label_map(9)
    gray = np.select([labels.voxels == 3, labels.voxels == 165, labels.voxels > 0], [500, 90, 800])
    volume = Volume(gray.astype(np.int16), labels.geometry, modality="MR")
    found = me.segment(volume, model=str(folder), force_segmenter=True)
    assert [row["label"] for row in found.table] == [entry["name"] for entry in STRUCTURES]
    assert found.volume.geometry == volume.geometry
    assert set(np.unique(found.volume.voxels)) <= {0, *(entry["value"] for entry in STRUCTURES)}
    assert found.uncertainty is not None and found.uncertainty.shape == volume.shape


def test_each_door_starts_the_training_that_it_is_asked_for(
    maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, type]] = []

    def stop(method: str, config: object, *_: object, **__: object) -> Path:
        calls.append((method, type(config)))
        raise ConfigError("stopped", "Here.")

    for place in ("training.jobs.train.train_method", "training.training_api.train_method"):
        monkeypatch.setattr(f"MedEnhanceLib.{place}", stop)
    of_images = {"labels": ["*"], "structures": STRUCTURES}
    params = {"method": "head", "data": str(maps), "out": str(tmp_path / "run")}
    with_labels = {**params, "from_labels": True, "config": fields()}
    runs: tuple[Callable[[], object], ...] = (
        lambda: run_job(JobSpec("train", with_labels)),
        lambda: me.train("head", "smoke", maps, tmp_path, from_labels=True),
        lambda: me.train("head", TrainFromLabelsConfig(), maps, tmp_path, from_labels=True),
        lambda: run_job(JobSpec("train", {**params, "config": of_images})),
        lambda: me.train("head", of_images, maps, tmp_path),
    )
    for run in runs:
        with pytest.raises(ConfigError, match="stopped"):
            run()
    assert [kind for _, kind in calls] == [TrainFromLabelsConfig] * 3 + [TrainHeadConfig] * 2


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("hqg", "--from-labels", "maps"), "hqg does not learn from label maps"),
        (("head", "--from-labels", "maps", "--data", "images"), "needs no images"),
        (("head", "--from-labels", "maps", "--enhancer", "mr"), "enhancer"),
        (("head", "--from-labels", "nowhere"), "no label map for training matches"),
    ],
)
def test_what_does_not_go_with_label_maps_is_refused(
    command: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *command, "--out", str(tmp_path / "run")]) in (2, 3)
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists() or not [*(tmp_path / "run").rglob("*.safetensors")]
