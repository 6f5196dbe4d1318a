"""A trained head that teaches the enhancer through the gate, by the door of the training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from Library.training.gradprom.pair import OpenGate
from torch import Tensor

from MedEnhanceLib.bundles.export import load_tensors
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, ModelError
from MedEnhanceLib.gradprom.head import Enhancer, export_head, make_head
from MedEnhanceLib.gradprom.labeled import LabeledImage, read_labeled
from MedEnhanceLib.gradprom.task import SegmentationTask
from MedEnhanceLib.hqg.groups import GuidedNetwork
from MedEnhanceLib.io import load, save
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.gate import GradientGate
from MedEnhanceLib.training.hqg import losses
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.crops import CropMaker
from MedEnhanceLib.training.hqg.enhancer_export import export_enhancer
from MedEnhanceLib.training.hqg.run import train
from MedEnhanceLib.training.hqg.targets import load_data
from MedEnhanceLib.training.jobs.segmenter import teachers
from MedEnhanceLib.training.jobs.train import train_method, training_config

SHAPE = (16, 32, 32)
STRUCTURES = ({"value": 1, "name": "core", "color": "#ff0000"},)
FILES = {"images": ["hq/*.nii.gz"], "labels": ["labels/*.nii.gz"], "held_out": ["hq/2*"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three balls with a brighter core, which is labeled."""
    folder = tmp_path_factory.mktemp("labeled")
    for name in ("hq", "labels"):
        (folder / name).mkdir()
    k, j, i = np.mgrid[tuple(map(slice, SHAPE))].astype(np.float32)
    for number in range(3):
        radius = np.hypot(np.hypot(j - 16, i - 16), k - 8) + 2 * np.sin(j / 3 + number)
        image = np.select([radius < 5, radius < 14], [0.9, 0.5], 0.02)
        volume = Volume((1000 * image).astype(np.float32), Geometry(), "MR")
        core = Volume((radius < 5).astype(np.uint8), Geometry(), "SEG")
        save(volume, folder / "hq" / f"{number}.nii.gz")
        save(core, folder / "labels" / f"{number}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def enhancer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundle of an enhancer that nothing was learned by; it takes guides."""
    torch.manual_seed(0)
    config = TrainConfig.from_json({"preset": "smoke", "name": "plain", "anatomy": "balls"})
    folder = tmp_path_factory.mktemp("enhancer") / "plain"
    network = GuidedNetwork(config.network)
    export_enhancer(folder, config, network, seconds=0.0, is_guided=True, gains={})
    return str(folder)


def new_head(folder: Path, made: Enhancer | None = None, **fields: Any) -> str:
    """The bundle of a head that nothing was learned by; made: the enhancer on record."""
    torch.manual_seed(0)
    stated = {"preset": "smoke", "structures": STRUCTURES, "name": "core", **FILES, **fields}
    config = TrainHeadConfig.from_json(stated)
    return str(export_head(folder, config, make_head(config.network, 1), 0.0, made).folder)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory, enhancer: str) -> str:
    return new_head(tmp_path_factory.mktemp("segmenter") / "core", enhancer=enhancer)


def config(**task: Any) -> TrainConfig:
    config = training_config("hqg", {"device": "cpu", "task": {"steps": 2, **task}, **SMALL})
    assert isinstance(config, TrainConfig)
    return config


SMALL: dict[str, Any] = {"crops": 2, "validated": 1, "name": "taught"}


def weights(folder: Path | str) -> dict[str, Tensor]:
    return load_tensors(read_bundle(Path(folder)))


def changed(one: Path | str, other: Path | str) -> bool:
    before, after = weights(one), weights(other)
    assert before.keys() == after.keys()
    return any(not torch.equal(after[name], tensor) for name, tensor in before.items())


class Multiple:
    """A task whose loss is a multiple of the enhancer's own, and whose Dice is given.

    air: medians of what it saw of air.
    """

    air: ClassVar[list[float]] = []

    def __init__(
        self, data: Path, factor: float, main: list[Tensor], dice: float, psnr: float
    ) -> None:
        self._data, self._factor, self._main = data, factor, main
        self._gain = {"taught": (0.5 + dice, 30.0 + psnr)}

    def identity(self) -> dict[str, str]:
        return {"name": "stand-in", "sha256": "0"}

    def held_out(self) -> list[Path]:
        return []

    def subjects(self, monitor: Monitor) -> Iterator[tuple[Path, Volume, np.ndarray]]:
        for path in sorted(self._data.glob("hq/*")):
            yield path, load(path, modality="MR"), np.ones(SHAPE, np.uint8)

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        assert image.shape == labels.shape
        self.air.append(float(image.detach()[:, :3, :3].median()))
        return self._factor * self._main[-1]

    def measure(self, enhancers: Mapping[str, Any], monitor: Monitor) -> list[dict[str, Any]]:
        return [
            {"subject": str(number), "image": name, "dice": dice, "psnr_db": psnr}
            for number in range(2)
            for name in ("clean", "noisy", *enhancers)
            for dice, psnr in [self._gain.get(name, (0.5, 30.0))]
        ]


@pytest.fixture
def taught(
    data: Path, tmp_path: Path, segmenter: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Trains with a multiple of the enhancer's own loss as the task's."""
    main: list[Tensor] = []

    def recorded(own: Callable[..., Tensor], *args: Any) -> Tensor:
        main.append(own(*args))
        return main[-1]

    monkeypatch.setattr(losses, "squared_error", partial(recorded, losses.squared_error))

    def run(factor: float, dice: float = 0.1, psnr: float = 0.0) -> Path:
        gate = GradientGate(ema=0.0, relative=True)
        task = (Multiple(data, factor, main, dice, psnr), gate)
        out = tmp_path / f"{factor} {dice} {psnr}"
        return train(config(segmenter=segmenter), data, out, make_task=lambda _: task)

    return run


def record(folder: Path) -> dict[str, Any]:
    stated: dict[str, Any] = read_bundle(folder).metadata["gradprom"]
    return stated


@pytest.mark.slow
def test_a_task_that_opposes_changes_no_bit_and_one_that_agrees_is_let_in(taught: Any) -> None:
    Multiple.air.clear()
    alone = taught(0.0)
    assert max(Multiple.air) < 0.08  # without the bias of magnitudes
    opposed, helped = taught(-3.0), taught(3.0)
    assert not changed(alone, opposed)
    assert (record(opposed)["open_fraction"], record(opposed)["mean_cosine"]) == (0, -1)
    assert changed(alone, helped)
    assert (record(helped)["open_fraction"], record(helped)["mean_cosine"]) == (1, 1)


@pytest.mark.parametrize(
    ("dice", "psnr", "accepted"),
    [(0.001, -0.05, True), (0.0, 0.0, False), (-0.1, 1.0, False), (0.1, -0.06, False)],
)
def test_taught_weights_are_kept_only_if_the_head_gains(
    dice: float, psnr: float, accepted: bool, taught: Any, enhancer: str
) -> None:
    folder = taught(1.0, dice, psnr)
    assert changed(enhancer, folder) == accepted
    assert record(folder)["accepted"] == accepted
    assert record(folder)["dice"]["taught"] == pytest.approx(0.5 + dice)
    card = (folder / "docs/README.md").read_text(encoding="utf-8")
    assert ("not accepted" in card) != accepted
    assert f"{30 + psnr:.2f} dB" in card
    assert not (folder.parent / "candidates").exists()


def learned(data: Path, out: Path, monitor: Monitor | None = None, **task: Any) -> Path:
    return train_method("hqg", config(**task), data, out, monitor or Monitor())


@pytest.mark.slow
def test_a_head_teaches_and_stays_as_it_is(
    data: Path, tmp_path: Path, segmenter: str, enhancer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress never falls, though labels may be propagated to each image before the steps."""
    before, shares = weights(segmenter), [0.0]

    def read(config: Any, files: Any, monitor: Monitor) -> LabeledImage:
        labeled = read_labeled(config, files, monitor)
        monitor.progress(0.8, "propagating labels")
        return labeled

    def listen(event: Event) -> None:
        shares.append(event.fields.get("fraction", shares[-1]))

    monkeypatch.setattr("MedEnhanceLib.gradprom.task.read_labeled", read)
    monkeypatch.setattr(GradientGate, "admits", OpenGate.admits)
    folder = learned(data, tmp_path, Monitor(listen), segmenter=segmenter, gate="binary", steps=2)
    assert shares == sorted(shares)
    assert record(folder)["segmenter"]["name"] == "core"
    metadata = (folder / "configs" / "metadata.json").read_text()
    assert not any(str(Path(model).parent) in metadata for model in (segmenter, enhancer))
    assert record(folder)["open_fraction"] == 1
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert {"task", "gate open", "gate cosine"} <= {json.loads(row)["name"] for row in rows}
    assert all(torch.equal(weights(segmenter)[name], tensor) for name, tensor in before.items())


@pytest.mark.slow
def test_a_taught_training_that_was_stopped_goes_on_bit_for_bit(
    data: Path, tmp_path: Path, segmenter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedEnhanceLib.training.hqg.verdict.MOST_LOST_DB", 99.0)
    monkeypatch.setattr("MedEnhanceLib.gradprom.task.dice", lambda *_: next(rising))
    rising = iter(np.linspace(0, 1, 100))
    task = {"segmenter": segmenter, "gate": "ema"}
    whole = learned(data, tmp_path / "whole", **task)
    assert record(whole)["accepted"]
    stops = False

    def listen(event: Event) -> None:
        nonlocal stops
        stops = stops or "step 1" in str(event.fields.get("stage", ""))

    with pytest.raises(Cancelled):
        learned(data, tmp_path / "parts", Monitor(listen, cancel=lambda: stops), **task)
    parts = learned(data, tmp_path / "parts", **task)
    assert not changed(whole, parts)
    assert {**record(parts), "dice": 0, "summary": 0} == {**record(whole), "dice": 0, "summary": 0}
    monkeypatch.setattr(GradientGate, "admits", OpenGate.admits)
    assert changed(whole, learned(data, tmp_path / "joint", segmenter=segmenter, gate="binary"))


def test_the_head_states_what_it_learned_from_and_the_enhancer_goes_on(
    data: Path, segmenter: str, enhancer: str
) -> None:
    complete = config(segmenter=segmenter)
    assert (complete.start, complete.anatomy, complete.steps) == (enhancer, "balls", 0)
    assert complete.network == TrainConfig.from_json({"preset": "smoke"}).network
    task = SegmentationTask(segmenter, data, "cpu", modality="MR")
    assert [path.name for path, _, _ in task.subjects(Monitor())] == ["0.nii.gz", "1.nii.gz"]
    measured = task.measure({"same": lambda volume: volume}, Monitor())
    assert [row["image"] for row in measured] == ["clean", "noisy", "same"]
    assert {row["subject"] for row in measured} == {"held-out patient 1"}
    assert measured[0]["psnr_db"] is None
    assert 15 < measured[1]["psnr_db"] == measured[2]["psnr_db"] < 25


def test_a_task_without_what_it_needs_is_refused(
    data: Path,
    tmp_path: Path,
    segmenter: str,
    enhancer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEDENHANCE_MODELS", str(Path(enhancer).parent))
    alone = new_head(tmp_path / "alone")
    made = Enhancer(lambda volume: volume, {"name": "plain", "sha256": "of before"})
    stale = new_head(tmp_path / "stale", made, enhancer=enhancer)
    metadata = (tmp_path / "stale" / "configs" / "metadata.json").read_text()
    assert enhancer not in metadata
    for task, said in (
        ({}, "no segmenter"),
        ({"segmenter": alone}, "did not learn from enhanced images"),
        ({"segmenter": stale}, "learned from other weights than those of plain now"),
        ({"segmenter": segmenter, "gate": "ajar"}, "gate"),
        ({"segmenter": segmenter, "images": ["hq/*"]}, "no option 'images'"),
    ):
        with pytest.raises(ConfigError, match=said):
            config(**task)
    with pytest.raises(ModelError, match="segments"):
        training_config("hqg", {"start": segmenter, "task": {"segmenter": segmenter}})
    nobody = new_head(tmp_path / "nobody", enhancer=enhancer, held_out=[])
    with pytest.raises(ConfigError, match="nobody is held out"):
        config(segmenter=nobody)
    task = TrainConfig.from_json({"preset": "smoke", "task": {"segmenter": nobody}})
    with pytest.raises(ConfigError, match="nobody is held out"):
        train_method("hqg", task, data, tmp_path / "out", Monitor())


def test_only_heads_that_can_teach_are_listed_and_the_others_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enhancer: str
) -> None:
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path))
    for name, fields in (("able", {}), ("nobody", {"held_out": []}), ("gone", {"enhancer": "a"})):
        new_head(tmp_path / name, **{"name": name, "enhancer": enhancer, **fields})
    able, faults = teachers("MR")
    assert "able" in [head.name for head in able]
    assert not {"nobody", "gone"}.intersection(head.name for head in able)
    said = "\n".join(str(fault) for fault in faults)
    assert "head nobody: nobody is held out" in said
    assert "head gone learned from the enhancer a: there is no model 'a'" in said
    with pytest.raises(ModelError) as refused:
        config(segmenter="gone")
    assert "Import that enhancer" in refused.value.hint


def test_a_head_sees_an_image_of_any_size(data: Path, tmp_path: Path) -> None:
    network = {"context": 1, "widths": [4, 4, 4, 4]}
    task = SegmentationTask(
        new_head(tmp_path / "head", network=network), data, "cpu", modality="MR"
    )
    labels = torch.zeros(4, 18, 21, dtype=torch.long)
    labels[:, 5:9, 5:9] = 1
    image = torch.rand(4, 18, 21).requires_grad_()
    loss = task.loss(image, labels)
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, [image])
    assert gradient.any()


@pytest.mark.slow
def test_what_the_noise_adds_to_magnitudes_is_known_of_labeled_crops(
    data: Path, segmenter: str
) -> None:
    """Else the head would see gray air, which it never learned from."""
    task = SegmentationTask(segmenter, data, "cpu", modality="MR")
    complete = config(segmenter=segmenter)
    subjects = task.subjects(Monitor())
    targets = load_data(complete, data, Monitor(), subjects=subjects)["labeled"]
    crops = [CropMaker(targets, "MR", 8, 0, "labeled").make(number)[0] for number in range(12)]
    biased = [crop for crop in crops if crop.bias is not None]
    assert 0 < len(biased) < len(crops)
    for crop in biased:
        assert crop.bias is not None
        before, after = crop.plain.target, crop.plain.target - crop.bias
        assert float(after[:, :4, :4].median()) < 0.06
        assert float(before[:, :4, :4].median()) > float(after[:, :4, :4].median())
