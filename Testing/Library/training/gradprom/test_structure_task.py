"""A head from label maps that teaches an enhancer on clean scans, by its own labels of them."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Library.training.gradprom.pair import OpenGate

import MedEnhanceLib as me  # noqa: N813 - as its users do
from MedEnhanceLib.bundles.export import comparison, load_tensors
from MedEnhanceLib.bundles.store import Bundle, open_bundle, read_bundle
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.groups import GuidedNetwork
from MedEnhanceLib.errors import Cancelled, InputError
from MedEnhanceLib.gradprom.structures import correcting, segmenting
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.locating import CoarseScan, Location
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.networks import Corrector, Locator
from MedEnhanceLib.gradprom.structures.space import Placement, Space
from MedEnhanceLib.io import save
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.training.gradprom import structure_task
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.gate import GradientGate
from MedEnhanceLib.training.gradprom.head_export import export_structures
from MedEnhanceLib.training.gradprom.heads import class_loss
from MedEnhanceLib.training.gradprom.structure_task import StructuresTask
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.enhancer_export import export_enhancer
from MedEnhanceLib.training.hqg.targets import Target, load_data
from MedEnhanceLib.training.jobs.segmenter import find_images
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


@pytest.fixture(scope="module")
def enhancer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundle of an enhancer that nothing was learned by."""
    torch.manual_seed(0)
    stated = TrainConfig.from_json({"preset": "smoke", "name": "plain"})
    folder, network = tmp_path_factory.mktemp("enhancer") / "plain", GuidedNetwork(stated.network)
    export_enhancer(folder, stated, network, seconds=0.0, is_guided=False, gains={})
    return str(folder)


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


def task_of(segmenter: str, data: Path) -> StructuresTask:
    head = open_bundle(segmenter, kind="head", modality="MR")
    scans = sorted(data.glob("hq/*"))
    return StructuresTask(head, scans[:2], scans[2:], data, "cpu")


def test_a_window_stands_where_it_was_in_the_scan(segmenter: str, data: Path) -> None:
    """The same as if the whole scan, with other voxels in the window, was resampled."""
    task = task_of(segmenter, data)
    _, volume, _ = [*task.subjects(Monitor())][1]
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
    task = task_of(segmenter, data)
    subjects = [(volume, numbers) for _, volume, numbers in task.subjects(Monitor())]
    where = (slice(8, 24), slice(6, 42), slice(4, 40))
    losses = []
    for volume, numbers in subjects:
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
    task = task_of(segmenter, data)
    _, volume, numbers = [*task.subjects(Monitor())][1]
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


def test_the_truth_is_what_the_head_labels_on_the_clean_scan(segmenter: str, data: Path) -> None:
    rows = {row["image"]: row for row in task_of(segmenter, data).measure({}, Monitor())}
    assert (rows["clean"]["dice"], rows["clean"]["volume_error"]) == (1, 0)
    assert rows["clean"]["psnr_db"] is None
    assert rows["noisy"]["dice"] < 1 and rows["noisy"]["volume_error"] > 0
    assert 13 < rows["noisy"]["psnr_db"] < 21, "15 % noise"


def fields_of(segmenter: str, enhancer: str, **task: Any) -> dict[str, Any]:
    """A short training, taught by a head."""
    task = {"segmenter": segmenter, "steps": 2, **task}
    fields = {"name": "taught", "task": task, "start": enhancer, "device": "cpu"}
    return fields | {"crops": 2, "validated": 1}


@pytest.mark.slow
def test_a_head_teaches_on_clean_scans_and_stays_as_it_is(
    segmenter: str, enhancer: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is learned from people held out, named or drawn; progress never falls."""
    fields, before = fields_of(segmenter, enhancer, gate="binary"), weights(segmenter)
    logged, targets, shares = list[str](), dict[str, list[Target]](), [0.0]

    def read(*given: Any, **more: Any) -> dict[str, list[Target]]:
        targets.update(load_data(*given, **more))
        return targets

    monkeypatch.setattr(
        importlib.import_module("MedEnhanceLib.training.hqg.run"), "load_data", read
    )
    monkeypatch.setattr(GradientGate, "admits", OpenGate.admits)

    def listen(event: Event) -> None:
        logged.append(str(event.fields.get("message")))
        shares.append(event.fields.get("fraction", shares[-1]))

    def train(**more: Any) -> Bundle:
        shares[:] = [0.0]
        config, out = training_config("hqg", fields | more), tmp_path / str(len(more))
        return read_bundle(train_method("hqg", config, data, out, Monitor(listen)))

    for held_out in ({"held_out": ["hq/2*"]}, {}):
        logged.clear()
        bundle = train(**held_out)
        assert shares == sorted(shares)
        record = bundle.metadata["gradprom"]
        assert (record["segmenter"]["name"], record["persons_held_out"]) == ("toy", 1)
        assert record["dice"]["clean"] == 1 > record["dice"]["noisy"]
        assert record["open_fraction"] == 1 >= record["open_share"] > 0
        (name,) = [text.split("hq/")[1] for text in logged if "held-out patient" in text]
        files = {kind: {Path(each.name).name for each in of} for kind, of in targets.items()}
        assert files["validated"] == {name}
        assert len(files["plain"] - {name}) == len(files["plain"]) == 2
        assert files["labeled"] == files["plain"]
    assert bundle.metadata["training"]["config"]["task"]["held_out_share"] == 0.2
    assert name not in str(bundle.metadata), "names of files may be those of patients"
    assert not any(str(Path(each).parent) in str(bundle.metadata) for each in (segmenter, enhancer))
    assert comparison(bundle.metadata).startswith("The weights that toy taught")
    assert "On volumes held out" in comparison(bundle.metadata)
    rows = (tmp_path / "0/metrics.jsonl").read_text().splitlines()
    assert {"task", "gate open", "gate cosine"} <= {json.loads(row)["name"] for row in rows}
    assert all(torch.equal(weights(segmenter)[name], tensor) for name, tensor in before.items())


@pytest.mark.slow
def test_a_taught_training_that_was_stopped_goes_on_bit_for_bit(
    segmenter: str, enhancer: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedEnhanceLib.training.hqg.verdict.MOST_LOST_DB", 99.0)
    rising = iter(np.linspace(0, 1, 100))
    monkeypatch.setattr(structure_task, "dice", lambda *_: next(rising))
    stops = False

    def listen(event: Event) -> None:
        nonlocal stops
        stops = stops or "step 1" in str(event.fields.get("stage", ""))

    def train(name: str, monitor: Monitor | None = None, **task: Any) -> Path:
        config = training_config("hqg", fields_of(segmenter, enhancer, **task))
        return train_method("hqg", config, data, tmp_path / name, monitor or Monitor())

    whole = train("whole", gate="ema")
    assert read_bundle(whole).metadata["gradprom"]["accepted"]
    with pytest.raises(Cancelled):
        train("parts", Monitor(listen, cancel=lambda: stops), gate="ema")
    parts = train("parts", gate="ema")
    assert not changed(whole, parts)
    records = [read_bundle(each).metadata["gradprom"] for each in (whole, parts)]
    assert {**records[0], "dice": 0, "summary": 0} == {**records[1], "dice": 0, "summary": 0}


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_tensors(read_bundle(Path(folder)))


def changed(one: Path, other: Path) -> bool:
    before, after = weights(one), weights(other)
    assert before.keys() == after.keys()
    return any(not torch.equal(after[name], tensor) for name, tensor in before.items())


def test_patients_are_drawn_whole_by_the_seed_if_nobody_is_named(
    segmenter: str, tmp_path: Path
) -> None:
    """A patient is a folder or a file; no other scan of a held-out one is learned from."""
    files = [f"[good]/{n}/{visit}/T1.nii.gz" for n in range(9) for visit in (1, 2)]
    files += ["[good]/single.nii.gz", "[good]/left out/T1.nii.gz"]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    fields: dict[str, Any] = {"task": {"segmenter": segmenter}, "leave_out": ["*/left out"]}
    fields["high_quality"] = ["[[]good]/**/*.nii.gz"]

    def split(seed: int = 0, **more: Any) -> tuple[list[str], list[str]]:
        config = training_config("hqg", fields | {"seed": seed} | more)
        return tuple(  # type: ignore[return-value]
            [path.relative_to(tmp_path).as_posix() for path in images]
            for images in find_images(config, tmp_path)
        )

    training, held_out = split()
    assert split() == (training, held_out)
    assert len({split(seed)[1][0] for seed in range(9)}) > 2
    assert sorted(training + held_out) == sorted(files[:-1])
    patients = [{name.split("/")[1] for name in names} for names in (training, held_out)]
    assert patients[0].isdisjoint(patients[1]) and len(patients[1]) == 2
    assert split(held_out=["[[]good]/single*"])[1] == ["[good]/single.nii.gz"]
    with pytest.raises(InputError, match="judged on patients held out, needs 2 patients"):
        split(high_quality=["[[]good]/single*"])
    with pytest.raises(InputError, match="no image matches hq"):
        split(high_quality=["hq/*"])
    with pytest.raises(InputError, match=r"no image matches 'P9/\*'"):
        split(held_out=["P9/*"])
    with pytest.raises(InputError, match="all images are held out"):
        split(held_out=["*"])


def test_a_scan_in_which_the_head_recognizes_nothing_is_named(
    segmenter: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenting, "locate", lambda *_: None)
    with pytest.raises(InputError, match=r"0\.nii\.gz.*recognizes no structures"):
        next(task_of(segmenter, data).subjects(Monitor()))


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
    next(task_of(segmenter, data).subjects(Monitor()))
    assert len(placed) == 4
