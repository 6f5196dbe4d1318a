"""A head from label maps that teaches a network on clean scans, by its own labels of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Library.scanner.test_scanner import (
    measured,
    measured_before,  # noqa: F401 - a fixture of each module that has it
)
from Library.training.gradprom.pair import OpenGate

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.bundles.export import load_tensors
from MedEnhanceLib.bundles.store import open_bundle, read_bundle
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, ModelError
from MedEnhanceLib.gradprom.structures import correcting, segmenting
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.locating import CoarseScan, Location
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.networks import Corrector, Locator
from MedEnhanceLib.gradprom.structures.space import Placement, Space
from MedEnhanceLib.io import load, save
from MedEnhanceLib.io.atomic import write_json
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.gate import GradientGate
from MedEnhanceLib.training.gradprom.head_export import export_structures
from MedEnhanceLib.training.gradprom.heads import class_loss
from MedEnhanceLib.training.gradprom.structure_task import StructuresTask
from MedEnhanceLib.training.hqg import run as training
from MedEnhanceLib.training.jobs.train import train_method, training_config

SHAPE, SPACING = (32, 48, 44), (1.6, 1.5, 2.4)
STRUCTURES = [
    {"value": 7, "name": "core", "color": "#ff0000"},
    {"value": 9, "name": "shell", "color": "#00ff00"},
]


def ball(number: int) -> Volume:
    """A bright core in a darker shell."""
    k, j, i = np.mgrid[tuple(map(slice, SHAPE))].astype(np.float32)
    radius = np.hypot(np.hypot((j - 24) * 1.5, (i - 22) * 1.6), (k - 16) * 2.4)
    image = np.select([radius < 14, radius < 28 + number], [0.9, 0.5], 0.02)
    texture = np.random.default_rng(number).uniform(0.95, 1.05, SHAPE)
    return Volume((1000 * image * texture).astype(np.float32), Geometry(SPACING), "MR")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    (folder / "hq").mkdir()
    for number in range(1, 3):
        save(ball(number), folder / "hq" / f"{number}.nii.gz")
    sagittal = Volume(np.moveaxis(ball(0).voxels, 0, 2), Geometry((2.4, 1.6, 1.5)), "MR")
    save(sagittal, folder / "hq/0.nii.gz")
    return folder


@pytest.fixture
def segmenter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A head whose corrector learned nothing; the center of a scan is that of its space."""
    torch.manual_seed(0)
    labels = tuple(Label(**entry) for entry in STRUCTURES)
    anatomy = Anatomy.of(labels, [], {}, [7, 9])
    places = torch.stack(torch.meshgrid(*[torch.arange(-10, 11) * 4.0] * 3, indexing="ij"))
    radius = places.square().sum(0).sqrt()
    shown = torch.stack([radius > 28, radius < 14, (radius >= 14) & (radius <= 28)]).float() + 0.05
    space = Space(shown / shown.sum(0), (-40.0, -40.0, -40.0))
    corrector = Corrector(3, (4, 4))
    torch.nn.init.normal_(corrector.out.weight, std=0.3)
    model = StructureModel("toy", anatomy, space, Locator((4, 4)), corrector, {}, {})
    fields = {"preset": "smoke", "name": "toy", "structures": STRUCTURES, "modality": "MR"}
    sizes = {"widths": [4, 4], "locator_widths": [4, 4]}
    config = TrainHeadConfig.from_json({**fields, **sizes})
    folder = export_structures(tmp_path / "toy", config, model, (3, 0, 0), 0.0).folder

    def locate(grid: CoarseScan, *_: object) -> Location:
        center = torch.tensor(grid.image.shape[::-1]) * grid.step_mm / 2
        affine = torch.cat([torch.eye(3), -center[:, None]], 1)
        box = tuple((0, side) for side in grid.image.shape)
        return Location(Placement.linear(affine), box, 1.0, (1.0, 1.0, 1.0), 500.0)

    monkeypatch.setattr(segmenting, "locate", locate)
    return str(folder)


def scans(data: Path) -> list[Volume]:
    return [load(path).canonical() for path in sorted(data.glob("hq/*"))]


def task_of(segmenter: str) -> StructuresTask:
    return StructuresTask(open_bundle(segmenter, kind="head", modality="MR"), "cpu")


def test_a_window_stands_where_it_was_in_the_scan(segmenter: str, data: Path) -> None:
    """The same as if the whole scan, with other voxels in the window, was resampled."""
    task, volume = task_of(segmenter), scans(data)[1]
    task.labeled(scans(data), Monitor())
    scene, scaling = task._scenes[1], scaling_for(volume)
    where = (slice(9, 25), slice(5, 41), slice(3, 39))
    voxels = torch.from_numpy(scaling.apply(volume.voxels))
    clean = scene.image_with(voxels[where], where)
    voxels[where] = 0.6 * voxels[where] + 0.2 * torch.rand(voxels[where].shape)
    changed = segmenting.make_scan(volume.with_voxels(scaling.undo(voxels.numpy())))
    low, high = segmenting.make_scan(volume).scale
    whole = ((changed.image - low) / (high - low)).clamp(0, 1)
    inside = scene.image_with(voxels[where], where)
    start = [(n - m) // 2 // 2 * 2 for n, m in zip(whole.shape, inside.shape, strict=True)]
    padded = correcting._cut(whole, start, list(inside.shape))
    assert float((clean - inside).abs().max()) > 0.1
    assert float((padded - inside).abs().max()) < 1e-5


def test_numbers_say_which_scan_and_place_the_loss_is_of(segmenter: str, data: Path) -> None:
    task, volumes = task_of(segmenter), scans(data)
    labeled = zip(volumes, task.labeled(volumes, Monitor()), strict=True)
    where = (slice(8, 24), slice(6, 42), slice(4, 40))
    losses = []
    for volume, numbers in labeled:
        voxels = torch.from_numpy(scaling_for(volume).apply(volume.voxels))[where].clone()
        labels = torch.from_numpy(numbers[where].astype(np.int64))
        assert labels.any() and not labels.all(), "0 outside structures"
        clean = voxels.clone().requires_grad_()
        loss = task.loss(clean, labels)
        (gradient,) = torch.autograd.grad(loss, [clean])
        assert gradient.shape == clean.shape and gradient.any()
        noisy = task.loss(voxels + 0.3 * torch.rand(voxels.shape), labels)
        losses.append((float(loss.detach()), float(noisy)))
    assert all(noisy > clean for clean, noisy in losses)
    nowhere = torch.rand(4, 5, 6, requires_grad=True)
    assert task.loss(nowhere, torch.zeros(4, 5, 6, dtype=torch.long)) == 0


@pytest.mark.slow
def test_the_loss_sees_the_damage_that_users_see(segmenter: str, data: Path) -> None:
    """Noise, and slices of three: half at least of what they add to the loss of a user's classes.

    Its gradient leads out of the damage.
    """
    task, volume = task_of(segmenter), scans(data)[1]
    numbers = task.labeled(scans(data), Monitor())[1]
    scaling, where = scaling_for(volume), (slice(8, 24), slice(6, 42), slice(4, 40))
    clean = scaling.apply(volume.voxels)
    noise = np.random.default_rng(0).normal(0, 0.15, clean.shape).astype(np.float32)
    slices = clean.copy()
    slices[1:31] = clean[1:31].reshape(10, 3, *clean.shape[1:]).mean(1).repeat(3, 0)

    def losses(image: Floats) -> tuple[float, float, float]:
        """Loss in a window; of a user's classes of the scan; cosine of gradient and damage."""
        placed = segmenting.place(volume.with_voxels(scaling.undo(image)).upright(), task._model)
        assert placed.location is not None
        share = correcting.correct(placed.scan, placed.location, task._model).share
        users = class_loss(share.clamp_min(1e-6).log()[None], task._scenes[1].classes)
        window = torch.from_numpy(image[where]).requires_grad_()
        loss = task.loss(window, torch.from_numpy(numbers[where].astype(np.int64)))
        (gradient,) = torch.autograd.grad(loss, [window])
        damage = torch.from_numpy((image - clean)[where])
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(), damage.flatten(), 0)
        return float(loss.detach()), float(users), float(cosine)

    before = losses(clean)
    for damaged in (clean + noise, slices):
        loss, users, cosine = losses(damaged)
        assert users - before[1] > 0.02, "the damage is one"
        assert loss - before[0] > (users - before[1]) / 2
        assert cosine > 0.1, "with fixed shares next to nothing"


def train(data: Path, out: Path, *, monitor: Monitor | None = None, **fields: Any) -> Path:
    """A short training behind the scanner of a phantom."""
    scanner = out.parent / "scanner.json"
    write_json(scanner, measured().to_json(), overwrite=True)
    given = {"preset": "smoke", "scanner": str(scanner), "device": "cpu", "learning_rate": 0.01}
    config = training_config("hqg", given | fields)
    return train_method("hqg", config, data, out, monitor or Monitor())


@pytest.fixture
def kept_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training keep its last weights, as if they had gained."""
    monkeypatch.setattr(training, "_is_better", lambda *_: True)
    monkeypatch.setattr(training, "gain_on", lambda *_: (1.0, 1.0))
    monkeypatch.setattr(training, "_VALIDATIONS", 1)


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_tensors(read_bundle(Path(folder)))


def changed(one: Path, other: Path) -> bool:
    before, after = weights(one), weights(other)
    assert before.keys() == after.keys()
    return any(not torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.slow
@pytest.mark.usefixtures("kept_weights")
def test_a_head_teaches_where_the_gate_is_open_and_stays_as_it_is(
    segmenter: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed gate leaves the training as without the head, bit for bit."""
    before = weights(segmenter)
    task = {"segmenter": segmenter, "gate": "binary", "every": 1}
    plain = train(data, tmp_path / "plain")
    monkeypatch.setattr(GradientGate, "admits", lambda *_: False)
    closed = train(data, tmp_path / "closed", task=task)
    assert not changed(plain, closed)
    assert read_bundle(closed).metadata["gradprom"]["open_fraction"] == 0
    monkeypatch.setattr(GradientGate, "admits", OpenGate.admits)
    opened = train(data, tmp_path / "open", task=task)
    assert changed(plain, opened)
    record = read_bundle(opened).metadata["gradprom"]
    assert record["open_fraction"] == 1 >= record["open_share"] > 0
    assert record["segmenter"]["name"] == "toy"
    assert str(Path(segmenter).parent) not in str(read_bundle(opened).metadata)
    rows = (tmp_path / "open/metrics.jsonl").read_text().splitlines()
    assert {"task", "gate open", "gate cosine"} <= {json.loads(row)["name"] for row in rows}
    assert not any(not torch.equal(weights(segmenter)[name], each) for name, each in before.items())


@pytest.mark.slow
@pytest.mark.usefixtures("kept_weights")
def test_a_taught_training_that_was_stopped_goes_on_bit_for_bit(
    segmenter: str, data: Path, tmp_path: Path
) -> None:
    stops, fields = False, {"task": {"segmenter": segmenter, "every": 1}}

    def listen(event: Event) -> None:
        nonlocal stops
        stops = stops or "step 1 " in str(event.fields.get("stage", ""))

    whole = train(data, tmp_path / "whole", **fields)
    with pytest.raises(Cancelled):
        train(data, tmp_path / "parts", monitor=Monitor(listen, cancel=lambda: stops), **fields)
    parts = train(data, tmp_path / "parts", **fields)
    assert not changed(whole, parts)
    records = [read_bundle(each).metadata["gradprom"] for each in (whole, parts)]
    assert records[0] == records[1]


def test_a_task_that_cannot_be_is_refused(segmenter: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes no code"):
        task = {"segmenter": segmenter}
        train(data, tmp_path / "out", task=task, unpaired={"code": 1.0})
    with pytest.raises(ModelError, match="no model"):
        train(data, tmp_path / "out", task={"segmenter": "nobody"})


def test_a_scan_in_which_the_head_recognizes_nothing_is_named(
    segmenter: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenting, "locate", lambda *_: None)
    with pytest.raises(InputError, match=r"0\.nii\.gz.*recognizes no structures"):
        task_of(segmenter).labeled(scans(data)[:1], Monitor())


@pytest.mark.slow
def test_a_scan_is_placed_once(segmenter: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is enhanced in between, of unknown modality, or teaches."""
    placed, locate = list[CoarseScan](), segmenting.locate

    def counting(scan: CoarseScan, *rest: Any) -> Location | None:
        placed.append(scan)
        return locate(scan, *rest)

    monkeypatch.setattr(segmenting, "locate", counting)
    me.segment(ball(0), model=segmenter, device="cpu")
    me.segment(replace(ball(0), modality="OT", modality_is_guess=True), model=segmenter)
    enhanced = me.enhance(ball(0), segment=True, segmenter=segmenter, device="cpu")
    assert enhanced.segmentation is not None
    task_of(segmenter).labeled(scans(data)[:1], Monitor())
    assert len(placed) == 4
