"""Heads: training, segmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, InputError, ModelError
from MedEnhanceLib.gradprom import SegmentConfig, segment
from MedEnhanceLib.gradprom.head import Enhancer
from MedEnhanceLib.gradprom.labeled import find_split
from MedEnhanceLib.gradprom.train import (
    draw_batch,
    prepare_examples,
    train,
)
from MedEnhanceLib.io import save
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

STRUCTURES = [
    {"value": 1, "name": "Shell", "color": "#ff0000"},
    {"value": 5, "name": "Core", "color": "#00ff00"},
]


def phantom(shift_mm: float = 0.0, seed: int = 0) -> tuple[Volume, Volume]:
    """A ball of 500 with a core of 900, and its labels."""
    k, j, i = np.mgrid[-1:1:24j, -1:1:44j, -1:1:40j]
    radius = np.sqrt(k**2 + j**2 + i**2)
    labels = np.where(radius < 0.35, 5, np.where(radius < 0.7, 1, 0)).astype(np.uint8)
    noise = np.random.default_rng(seed).normal(0, 12, labels.shape)
    values = np.select([labels == 5, labels == 1], [900.0, 500.0]) + noise
    geometry = Geometry((2.0, 2.0, 3.0), (shift_mm, -shift_mm, 4.0))
    image = Volume(np.abs(values).astype(np.int16), geometry, modality="MR", source="phantom")
    return image, Volume(labels, geometry, modality="SEG")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("head data")
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for number in range(2):
        image, labels = phantom(seed=number)
        save(image, folder / f"images/{number}.nrrd")
        save(labels, folder / f"labels/{number}.nrrd")
    return folder


@pytest.fixture(scope="session")
def config() -> TrainHeadConfig:
    fields = {"preset": "smoke", "labels": ["labels/*"], "structures": STRUCTURES, "name": "toy"}
    training = {"steps": 200, "batch": 4, "device": "cpu", "learning_rate": 0.01, "ema": 0.9}
    return TrainHeadConfig.from_json(fields | training | {"anatomy": "ball"})


@pytest.fixture(scope="session")
def head_model(
    data: Path, config: TrainHeadConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return train(config, data, tmp_path_factory.mktemp("run"))


def test_a_trained_head_finds_the_structures(head_model: Path) -> None:
    image, labels = phantom(seed=9)
    reported: list[str] = []
    monitor = Monitor(lambda event: reported.append(event.fields.get("message", "")))
    options = SegmentConfig(model=str(head_model), device="cpu")
    result = segment(image, options, monitor=monitor)
    assert not any("unlike" in text or "not checked" in text for text in reported)
    assert set(np.unique(result.volume.voxels)) <= {0, 1, 5}
    assert dice(labels.voxels, result.volume.voxels, 5) > 0.8
    assert result.volume.geometry == image.geometry
    assert (result.volume.modality, result.volume.dtype) == ("SEG", np.uint8)
    row = result.table[1]
    assert row["label"] == "Core"
    assert row["volume_ml"] == pytest.approx((result.volume.voxels == 5).sum() * 0.012, abs=1e-3)


@pytest.mark.slow
def test_a_stopped_training_goes_on(data: Path, config: TrainHeadConfig, tmp_path: Path) -> None:
    short, steps = replace(config, steps=30), 0

    def listen(event: Event) -> None:
        nonlocal steps
        steps += event.kind == "progress" and "step" in event.fields["stage"]

    whole = train(short, data, tmp_path / "whole")
    with pytest.raises(Cancelled):
        train(short, data, tmp_path / "run", Monitor(listen, cancel=lambda: steps > 12))
    assert [*(tmp_path / "run").glob("checkpoint*")]
    again = train(short, data, tmp_path / "run")
    assert read_bundle(again).sha256 == read_bundle(whole).sha256


def test_a_head_learns_from_clean_noisy_and_enhanced_images(
    data: Path, config: TrainHeadConfig
) -> None:
    """The same degraded images as they are, and enhanced."""
    seen: list[Volume] = []

    def enhance(volume: Volume) -> Volume:
        seen.append(volume)
        ramp = np.arange(volume.voxels.size, dtype=np.float32)
        return volume.with_voxels(ramp.reshape(volume.shape), did="enhanced")

    enhancer = Enhancer(enhance, {"name": "stand-in", "sha256": "0"})
    two = replace(config, damaged=2)
    files, _ = find_split(two, data)
    examples = prepare_examples(two, data, files, Monitor(), enhancer)
    assert len(seen) == 2 * 2
    assert len({volume.voxels.tobytes() for volume in seen}) == len(seen)
    for example in examples:
        assert len(example.versions) == 1 + 2 * 2
        for number, version in enumerate(example.versions):
            is_enhanced = bool((np.diff(version.ravel()) >= 0).all())
            assert is_enhanced == (number in (1, 3))
    images, _ = draw_batch(examples, two, np.random.default_rng(0))
    assert images.shape == (two.batch, 2 * two.network.context + 1, two.patch, two.patch)


def test_degraded_versions_of_an_image_do_not_depend_on_the_other_images(
    data: Path, config: TrainHeadConfig
) -> None:
    """So that whoever is held out, an image is enhanced once."""
    files, _ = find_split(config, data)
    first, second = prepare_examples(config, data, files, Monitor(), None)
    (alone,) = prepare_examples(config, data, files[1:], Monitor(), None)
    assert all(map(np.array_equal, alone.versions, second.versions))
    noise = [np.subtract(*map(np.float32, example.versions)) for example in (first, second)]
    assert not np.array_equal(*noise)


def test_what_cannot_be_segmented_is_refused(head_model: Path) -> None:
    image, _ = phantom()
    options = SegmentConfig(model=str(head_model))
    sequence = replace(image, voxels=np.stack([image.voxels, image.voxels]))
    with pytest.raises(InputError, match="a sequence of 2 frames"):
        segment(sequence, options)
    with pytest.raises(ModelError, match="for MR"):
        segment(replace(image, modality="CT"), options)
