"""The bi-level scheme: who learns in which step, what the gate lets through, the second order."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.gradprom import GradientGate, TrainHeadConfig
from MedEnhanceLib.gradprom.task import SegmentationTask, make_optimizer, read_subjects
from MedEnhanceLib.hqg import bilevel
from MedEnhanceLib.hqg.bilevel import BilevelTask
from MedEnhanceLib.hqg.config import TaskConfig, TrainConfig
from MedEnhanceLib.hqg.train.task import LabeledPools
from MedEnhanceLib.io import save
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.nets.training import DivergenceError
from MedEnhanceLib.runtime.progress import Event, Monitor

SLAB = (2, 5, 16, 16)
STRUCTURES = ({"value": 3, "name": "Bright", "color": "#ff0000"},)


class Enhancer(nn.Module):
    """As much of an enhancer as the scheme sees: slabs in, slabs out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1))

    def forward(self, slabs: Tensor) -> Tensor:
        flat = slabs.flatten(0, 1)[:, None]
        output: Tensor = slabs + self.layers(flat)[:, 0].reshape(slabs.shape)
        return output


class Training:
    """Stage 2 as a trainer runs it, on noise with a bright square in it."""

    def __init__(self, *, second_order: bool = False, mode: str = "binary") -> None:
        torch.manual_seed(0)
        config = TrainHeadConfig.from_json(
            {"preset": "smoke", "labels": ["x"], "structures": STRUCTURES, "learning_rate": 0.01}
        )
        self.enhancer = Enhancer()
        self.head = SegmentationTask(config, "cpu")
        self.gate = GradientGate(mode, ema=0.9)
        self.task = BilevelTask(
            self.head, self.gate, make_optimizer(self.head), second_order=second_order
        )
        self.optimizer = torch.optim.Adam(self.enhancer.parameters(), lr=1e-3)
        self.rng = np.random.default_rng(0)

    def data(self) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy, clean, labels."""
        clean = torch.zeros(SLAB)
        row, column = self.rng.integers(0, 8, 2)
        clean[:, :, row : row + 8, column : column + 8] = 1
        noise = torch.from_numpy(self.rng.normal(size=SLAB)).float()
        return clean + 0.3 * noise, clean, clean.to(torch.uint8)

    def lower(self) -> float:
        noisy, _, labels = self.data()
        with torch.set_grad_enabled(self.task.second_order):
            output = self.enhancer(noisy)
        return self.task.lower_step(output, labels)

    def gradients(self) -> tuple[list[Tensor | None], list[Tensor]]:
        """Of the upper step, and of the enhancement loss alone."""
        noisy, clean, labels = self.data()
        output = self.enhancer(noisy)
        main = (output - clean).abs().mean()
        alone = torch.autograd.grad(main, list(self.enhancer.parameters()), retain_graph=True)
        task_loss = self.task.task_loss(output, labels)
        found, _ = self.task.upper_gradients(main, task_loss, list(self.enhancer.parameters()))
        return found, list(alone)

    def step(self) -> None:
        self.lower()
        for parameter, gradient in zip(
            self.enhancer.parameters(), self.gradients()[0], strict=True
        ):
            parameter.grad = gradient
        self.optimizer.step()

    def parts(self) -> dict[str, object]:
        parts = self.task.checkpoint_parts()
        return {
            "config": {},
            "modules": {"networks": self.enhancer, **parts["modules"]},
            "optimizers": {"adam": self.optimizer, **parts["optimizers"]},
            "generator": self.rng,
        }


def state(part: nn.Module | SegmentationTask | GradientGate) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in part.state_dict().items()}


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("second_order", [False, True])
def test_a_lower_step_changes_the_head_only(second_order: bool) -> None:
    training = Training(second_order=second_order)
    enhancer, head = state(training.enhancer), state(training.head)
    training.lower()
    assert same(state(training.enhancer), enhancer)
    after = state(training.head)
    moved = [name for name in after if not torch.equal(after[name], head[name])]
    assert any(name.startswith("network") and "weight" in name for name in moved)
    assert any(name.startswith("average") and "weight" in name for name in moved)
    assert all(parameter.grad is None for parameter in training.enhancer.parameters())


@pytest.mark.parametrize("second_order", [False, True])
def test_an_upper_step_changes_the_enhancer_only(second_order: bool) -> None:
    """Not even the statistics of the head's normalization."""
    training = Training(second_order=second_order)
    training.lower()
    head = state(training.head)
    gradients, _ = training.gradients()
    assert same(state(training.head), head)
    assert all(parameter.grad is None for parameter in training.head.parameters())
    assert all(parameter.requires_grad for parameter in training.head.parameters())
    assert all(gradient is not None and gradient.any() for gradient in gradients)


def test_no_gradient_reaches_the_head_from_the_loss_that_teaches() -> None:
    training = Training()
    training.lower()
    noisy, _, labels = training.data()
    training.task.task_loss(training.enhancer(noisy), labels).backward()
    assert all(parameter.grad is None for parameter in training.head.parameters())
    assert all(parameter.grad is not None for parameter in training.enhancer.parameters())


def test_a_closed_gate_leaves_the_gradients_of_enhancement_bit_for_bit() -> None:
    closed, joint = Training(mode="off"), Training(mode="joint")
    for training, equal in ((closed, True), (joint, False)):
        training.lower()
        pairs = zip(*training.gradients(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs) == equal


def test_the_task_teaches_with_its_weight() -> None:
    def taught(weight: float) -> Tensor:
        training = Training(mode="joint")
        training.task.weight = weight
        training.lower()
        pairs = zip(*training.gradients(), strict=True)
        return torch.cat([(both - alone).flatten() for both, alone in pairs])

    torch.testing.assert_close(taught(0.6), 3 * taught(0.2), atol=1e-6, rtol=1e-3)


@pytest.mark.slow
def test_a_head_learns_from_what_the_enhancer_makes() -> None:
    training = Training()
    first = np.mean([training.lower() for _ in range(3)])
    for _ in range(30):
        training.step()
    assert np.mean([training.lower() for _ in range(3)]) < 0.8 * first


@pytest.mark.slow
def test_two_runs_agree_and_a_resumed_one_with_them(tmp_path: Path) -> None:
    straight, again, interrupted = (Training(second_order=True) for _ in range(3))
    for _ in range(6):
        straight.step()
        again.step()
    for _ in range(3):
        interrupted.step()
    save_checkpoint(tmp_path / "c", step=3, **interrupted.parts())
    resumed = Training(second_order=True)
    resumed.rng.normal()
    assert load_checkpoint(tmp_path / "c", **resumed.parts()) == 3
    for _ in range(3):
        resumed.step()
    for other in (again, resumed):
        for part in ("enhancer", "head", "gate"):
            assert same(state(getattr(straight, part)), state(getattr(other, part)))
        assert same(state(straight.head.average), state(other.head.average))


def test_a_checkpoint_of_stage_one_can_be_resumed(tmp_path: Path) -> None:
    """Neither the gate nor the head's optimizer has a state yet."""
    training, resumed = Training(), Training()
    save_checkpoint(tmp_path / "c", step=0, **training.parts())
    load_checkpoint(tmp_path / "c", **resumed.parts())
    training.step()
    resumed.step()
    assert same(state(training.enhancer), state(resumed.enhancer))


def test_a_loss_that_is_no_number_does_not_reach_the_head() -> None:
    training = Training()
    head = [parameter.detach().clone() for parameter in training.head.parameters()]
    slabs, labels = torch.full(SLAB, math.nan), torch.zeros(SLAB, dtype=torch.uint8)
    for step in (training.task.lower_step, training.task.task_loss):
        with pytest.raises(DivergenceError, match="nan"):
            step(slabs, labels)
    assert all(torch.equal(*pair) for pair in zip(head, training.head.parameters(), strict=True))


def test_the_head_is_copied_only_where_it_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[object] = []
    training = Training(second_order=True)
    stand_in = SimpleNamespace(deepcopy=lambda head: copied.append(head) or head)
    monkeypatch.setattr(bilevel, "copy", stand_in)
    noisy, _, labels = training.data()
    training.task.lower_step(noisy, labels, teaches=False)
    assert not copied
    training.task.lower_step(noisy, labels)
    assert copied == [training.head]


class ToyHead:
    """φ as a vector, with a loss that is known."""

    def __init__(self, start: Tensor, power: int) -> None:
        self.phi, self.power = nn.Parameter(start.clone()), power

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return toy_loss(self.phi, images, self.power)

    def parameters(self) -> Iterator[nn.Parameter]:
        return iter([self.phi])

    def train(self, mode: bool = True) -> None: ...

    def follow(self) -> None: ...

    def state_dict(self) -> dict[str, Tensor]:
        return {"phi": self.phi.detach()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.phi = nn.Parameter(state["phi"].clone())


def toy_loss(phi: Tensor, images: Tensor, power: int) -> Tensor:
    return (phi - images).pow(power).sum() / power


def unrolled(power: int, *, second_order: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient by θ that the scheme finds, and both gradients that it might find."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    split_a, split_b, theta = draw(6, 4), draw(6, 4), draw(4).requires_grad_(True)
    head, rate = ToyHead(draw(6), power), 0.05
    before = head.phi.detach().clone().requires_grad_(True)
    task = BilevelTask(
        head,
        GradientGate("joint", ema=0),
        torch.optim.SGD(head.parameters(), lr=rate),
        weight=1.0,
        second_order=second_order,
    )
    labels = torch.zeros(0)
    task.lower_step(split_a @ theta, labels)
    loss = task.task_loss(split_b @ theta, labels)
    gradients, _ = task.upper_gradients(0 * theta.sum(), loss, [theta])
    assert gradients[0] is not None

    slope = torch.autograd.grad(
        toy_loss(before, split_a @ theta, power), before, create_graph=True
    )[0]
    whole = toy_loss(before - rate * slope, split_b @ theta, power)
    exact = torch.autograd.grad(whole, theta)[0]
    partial = toy_loss(head.phi.detach(), split_b @ theta, power)
    if power == 2:
        after = before - rate * (before - split_a @ theta)
        closed = (rate * split_a - split_b).T @ (after - split_b @ theta)
        torch.testing.assert_close(exact, closed)
    return gradients[0], exact, torch.autograd.grad(partial, theta)[0]


@pytest.mark.parametrize(("power", "tolerance"), [(2, 1e-9), (4, 1e-3)])
def test_the_second_order_term_is_the_exact_one(power: int, tolerance: float) -> None:
    found, exact, first_order = unrolled(power, second_order=True)
    torch.testing.assert_close(found, exact, rtol=tolerance, atol=tolerance * exact.abs().max())
    assert (exact - first_order).norm() > 0.02 * exact.norm()


def test_without_it_the_head_counts_as_fixed() -> None:
    found, _, first_order = unrolled(2, second_order=False)
    torch.testing.assert_close(found, first_order)


def test_the_second_order_needs_a_lower_step_before_each_upper_one() -> None:
    training = Training(second_order=True)
    training.lower()
    training.gradients()
    with pytest.raises(RuntimeError, match="lower step"):
        training.gradients()


def test_a_copied_head_learns_for_itself() -> None:
    head = Training().head
    other = copy.deepcopy(head)
    with torch.no_grad():
        next(iter(other.parameters())).add_(1)
    assert not same(state(head), state(other))


def test_few_slices_are_seen_with_their_neighbors() -> None:
    """Labels are of the slices in the middle: what only the margins hold does not count."""
    head = Training().head
    head.train(False)
    images = torch.rand(1, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(1, 6, 16, 16, dtype=torch.uint8)
    loss = head.loss(images, labels)
    margins = labels.clone()
    margins[:, [0, -1]] = 1
    assert head.loss(images, margins) == loss
    inside = labels.clone()
    inside[:, 2] = 1
    assert head.loss(images, inside) != loss
    assert torch.isfinite(head.loss(images[:, :1], labels[:, :1]))


# --- labeled data --------------------------------------------------------------------------------


def labeled_folder(folder: Path, subjects: int, modality: str = "MR") -> TrainConfig:
    """Images whose brightness encodes their label and their subject."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    geometry = Geometry((1.0, 1.0, 1.0 if modality == "MR" else 3.0), (0.0, 0.0, 0.0))
    for number in range(subjects):
        # Blocks, so that the coarser voxel sizes of the training still distinguish them.
        labels = np.kron(rng.random((4, 18, 18)) < 0.3, np.ones((4, 4, 4))).astype(np.uint8) * 3
        low, high = (200, 800) if modality == "MR" else (0, 500)
        voxels = np.where(labels == 3, high, low).astype(np.int16)
        save(Volume(voxels, geometry, modality=modality), folder / f"images/subject{number}.nii.gz")
        save(Volume(labels, geometry, modality="SEG"), folder / f"labels/{number}.nii.gz")
    head = {"labels": ["labels/*"], "structures": STRUCTURES, "modality": modality}
    task = {"batch": 3, "head": {"preset": "smoke", **head}}
    mixture = {"degradations": {"low-dose": 1.0} if modality == "CT" else {"clean": 1.0}}
    return TrainConfig.from_json(
        {"preset": "smoke", "modality": modality, "appearance": 0.0, "task": task, **mixture}
    )


def labeled_pools(
    config: TrainConfig, folder: Path, listen: list[Event] | None = None
) -> LabeledPools:
    assert config.task is not None
    head = TrainHeadConfig.from_json(config.task.head)
    monitor = Monitor(listen.append) if listen is not None else Monitor()
    return LabeledPools.make(config, config.task, read_subjects(head, folder, monitor), monitor)


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_labels_belong_to_their_voxels(tmp_path: Path, modality: str) -> None:
    config = labeled_folder(tmp_path, 2, modality)
    pools = labeled_pools(config, tmp_path)
    for split in ("A", "B"):
        for volume in pools.volumes(split):
            assert volume.labels.shape == volume.image.voxels.shape
        batch = pools.batch(np.random.default_rng(3), split)
        assert batch.slabs.degraded.shape == batch.slabs.target.shape == batch.labels.shape
        assert batch.labels.shape == (3, config.slab, config.patch, config.patch)
        assert batch.slabs.guide.shape == (3, 1, config.patch, config.patch)
        assert batch.labels.dtype == np.uint8
        assert set(np.unique(batch.labels)) == {0, 1}
        for target, labels in zip(batch.slabs.target, batch.labels, strict=True):
            assert target[labels == 1].mean() > target[labels == 0].mean() + 0.2
    assert not np.array_equal(batch.slabs.degraded, batch.slabs.target) or modality == "MR"


def test_each_subject_is_in_one_split(tmp_path: Path) -> None:
    reported: list[Event] = []
    pools = labeled_pools(labeled_folder(tmp_path, 3), tmp_path, reported)
    names = [{Path(v.image.name).name for v in pools.volumes(split)} for split in ("A", "B")]
    assert names == [{"subject0.nii.gz", "subject2.nii.gz"}, {"subject1.nii.gz"}]
    assert not [event for event in reported if event.kind == "warning"]


def test_a_single_subject_is_cut_in_halves_with_a_warning(tmp_path: Path) -> None:
    reported: list[Event] = []
    pools = labeled_pools(labeled_folder(tmp_path, 1), tmp_path, reported)
    first, second = (pools.volumes(split)[0] for split in ("A", "B"))
    assert first.image.voxels.shape[0] == second.image.voxels.shape[0] == 8
    assert not np.array_equal(first.labels, second.labels)
    warnings = [event.fields["message"] for event in reported if event.kind == "warning"]
    assert len(warnings) == 1
    assert "Both are one subject" in warnings[0]


def test_labeled_batches_repeat_with_their_seed(tmp_path: Path) -> None:
    pools = labeled_pools(labeled_folder(tmp_path, 2), tmp_path)
    first, again, other = (pools.batch(np.random.default_rng(seed), "A") for seed in (5, 5, 6))
    assert np.array_equal(first.slabs.degraded, again.slabs.degraded)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.labels, other.labels)


def test_labels_of_another_shape_are_refused(tmp_path: Path) -> None:
    config = labeled_folder(tmp_path, 1)
    assert config.task is not None
    labels = np.ones((3, 3, 3), np.uint8)
    subjects = [(tmp_path / "images/subject0.nii.gz", labels)]
    with pytest.raises(InputError, match=r"subject0\.nii\.gz"):
        LabeledPools.make(config, config.task, subjects, Monitor())
    with pytest.raises(InputError, match="labeled image"):
        LabeledPools.make(config, config.task, [], Monitor())


# --- configuration --------------------------------------------------------------------------------


def test_the_task_is_part_of_the_configuration() -> None:
    config = TrainConfig.from_json({"preset": "smoke", "task": {"weight": 0.3, "head": {"a": 1}}})
    assert config.task == TaskConfig(weight=0.3, head={"a": 1})
    assert TrainConfig.from_json({"preset": "smoke"}).task is None
    for wrong in ({"start": 2}, {"wieght": 1.0}, {"batch": 0}):
        with pytest.raises(ConfigError):
            TrainConfig.from_json({"preset": "smoke", "task": wrong})


def test_the_tasks_loss_keeps_no_graph_of_the_head() -> None:
    """And its gradient by the images is the head's own, bit for bit."""
    training = Training()
    training.lower()
    training.head.train(False)
    noisy, _, labels = training.data()
    images = [training.enhancer(noisy).detach().requires_grad_() for _ in range(2)]
    loss = training.task.task_loss(images[0], labels)
    wanted = training.head.loss(images[1], labels)
    assert torch.equal(loss.detach(), wanted.detach())
    weight = training.task.weight
    (found,), (expected,) = (
        torch.autograd.grad(weight * one, image)
        for one, image in zip((loss, wanted), images, strict=True)
    )
    assert torch.equal(found, expected)
    assert loss.grad_fn is not None
    assert [step is None for step, _ in loss.grad_fn.next_functions] == [False, True, True, True]
    constant = training.task.task_loss(images[0].detach(), labels)
    assert not constant.requires_grad


def test_the_stages_follow_each_other() -> None:
    task = TaskConfig(start=0.5, head_start=0.2)
    learns = [task.head_learns(number, 100) for number in range(100)]
    teaches = [task.head_teaches(number, 100) for number in range(100)]
    assert (learns.index(True), sum(learns)) == (50, 50)
    assert (teaches.index(True), sum(teaches)) == (60, 40)


def test_a_training_warms_its_gate_up_over_what_its_averages_span() -> None:
    task = TaskConfig(start=0.5, head_start=0.0)
    assert task.warm_up(1000) == 100
    assert task.warm_up(100) == 25  # half of the steps that teach
    assert replace(task, gate_ema=0.0).warm_up(1000) == 0
    assert replace(task, gate_warm_up=7).warm_up(1000) == 7
    with pytest.raises(ConfigError, match="gate_warm_up"):
        TaskConfig(gate_warm_up=-1)
