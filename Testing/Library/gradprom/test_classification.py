"""A classifier of slices beside an enhancer: recognition that is no segmentation."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom import GradientGate, TrainHeadConfig
from MedEnhanceLib.gradprom.classification import ClassificationTask
from MedEnhanceLib.gradprom.task import Learner, SegmentationTask
from MedEnhanceLib.hqg.bilevel import BilevelTask

STRUCTURES = ({"value": 3, "name": "Spot", "color": "#ff0000"},)


def slabs(seed: int, share: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy, clean, labels: a bright square in some of the slices, [4, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(seed)
    there = (torch.rand(4, 3, generator=generator) < share).to(torch.uint8)
    labels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    labels[:, :, 8:20, 8:20] = there[:, :, None, None]
    clean = 0.4 + 0.6 * labels
    return clean + 0.4 * torch.randn(clean.shape, generator=generator), clean, labels


class Enhancer(nn.Module):
    """Slabs in, slabs out; it begins with what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        change = self.layers(images.flatten(0, 1)[:, None])[:, 0]
        return images + change.unflatten(0, images.shape[:2])


class Pair:
    """Enhancer and classifier in the bi-level scheme."""

    def __init__(self, mode: str = "binary", *, second_order: bool = False) -> None:
        torch.manual_seed(0)
        self.enhancer, self.head = Enhancer(), ClassificationTask(1, context=0, ema=0.5)
        self.gate = GradientGate(mode, ema=0.9)
        rate = torch.optim.AdamW(self.head.parameters(), lr=3e-3)
        self.task = BilevelTask(self.head, self.gate, rate, weight=0.005, second_order=second_order)
        self.optimizer = torch.optim.Adam(self.enhancer.parameters(), lr=3e-3)

    def step(self, number: int, share: float = 0.5) -> tuple[float, bool]:
        """The enhancement loss, and whether the gate was open."""
        noisy, _, labels = slabs(2 * number, share)
        with torch.set_grad_enabled(self.task.second_order):
            enhanced = self.enhancer(noisy)
        self.task.lower_step(enhanced, labels)
        noisy, clean, labels = slabs(2 * number + 1, share)
        enhanced = self.enhancer(noisy)
        main = (enhanced - clean).square().mean()
        gradients, report = self.task.upper_gradients(
            main, self.task.task_loss(enhanced, labels), self.enhancer.named_parameters()
        )
        for parameter, gradient in zip(self.enhancer.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return float(main.detach()), report.open


@pytest.mark.slow
@pytest.mark.parametrize("second_order", [False, True])
def test_both_learn_through_the_gate(second_order: bool) -> None:
    pair = Pair(second_order=second_order)
    noisy, _, labels = slabs(999)
    losses, opened = zip(*(pair.step(number) for number in range(30)), strict=True)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert 0 < sum(opened) < 30
    enhanced = pair.enhancer(noisy).detach()
    assert pair.head.metrics(enhanced, labels) == {
        "accuracy": 1.0,
        "sensitivity": 1.0,
        "specificity": 1.0,
    }
    assert pair.gate.diagnostics().steps == 30


@pytest.mark.slow
def test_what_it_teaches_reaches_the_enhancer() -> None:
    """With the gate open the enhancer becomes another than alone; closed, the same bit for bit."""
    ends = {}
    for mode in ("off", "joint"):
        pair = Pair(mode)
        for number in range(3):
            pair.step(number)
        ends[mode] = torch.cat([weight.flatten() for weight in pair.enhancer.parameters()])
    alone = Pair("off")
    alone.task.weight = 0.0
    for number in range(3):
        alone.step(number)
    flat = torch.cat([weight.flatten() for weight in alone.enhancer.parameters()])
    assert torch.equal(ends["off"], flat)
    assert not torch.equal(ends["joint"], flat)


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["in no slice", "in all slices"])
def test_a_batch_of_one_kind_is_no_accident(share: float) -> None:
    pair = Pair()
    for number in range(3):
        loss, _ = pair.step(number, share)
        assert math.isfinite(loss)
    assert all(torch.isfinite(weight).all() for weight in pair.head.parameters())
    noisy, _, labels = slabs(5, share)
    reported = pair.head.metrics(noisy, labels)
    assert math.isnan(reported["sensitivity"]) == (share == 0)
    assert math.isnan(reported["specificity"]) == (share == 1)


def test_a_constant_loss_closes_the_gate() -> None:
    pair = Pair()
    pair.step(0)
    noisy, clean, _ = slabs(1)
    enhanced = pair.enhancer(noisy)
    main = (enhanced - clean).square().mean()
    alone = torch.autograd.grad(main, list(pair.enhancer.parameters()), retain_graph=True)
    gradients, report = pair.task.upper_gradients(
        main, 0 * enhanced.sum() + 3, pair.enhancer.named_parameters()
    )
    assert not report.open
    assert all(torch.equal(*two) for two in zip(gradients, alone, strict=True))


def test_a_slice_has_what_any_of_its_voxels_shows() -> None:
    labels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    labels[0, 1, 31, 0], labels[0, 2, 4, 4] = 2, 1
    task = ClassificationTask(2)
    assert task.presence(labels).tolist() == [[[0, 0], [0, 1], [1, 0]]]
    with pytest.raises(InputError, match="label 2, but there are only 1 structures"):
        ClassificationTask(1).presence(labels)


def test_a_prediction_is_of_each_slice_with_its_neighbors() -> None:
    torch.manual_seed(3)
    task = ClassificationTask(2, context=1)
    images = torch.rand(2, 5, 32, 32)
    found = task.predict(images)
    assert found.shape == (2, 5, 2)
    assert ((found >= 0) & (found <= 1)).all()
    changed = images.clone()
    changed[:, 4] += 1
    again = task.predict(changed)
    torch.testing.assert_close(again[:, :3], found[:, :3])
    assert not torch.allclose(again[:, 3], found[:, 3])


def test_its_state_goes_into_a_checkpoint() -> None:
    pair = Pair()
    pair.step(0)
    other = ClassificationTask(1, context=0, ema=0.5)
    other.load_state_dict(copy.deepcopy(pair.head.state_dict()))
    images = slabs(3)[0]
    assert torch.equal(other.predict(images), pair.head.predict(images))


def test_a_segmentation_predicts_and_measures_by_the_same_names() -> None:
    config = TrainHeadConfig.from_json(
        {"preset": "smoke", "labels": ["x"], "structures": STRUCTURES}
    )
    task: Learner = SegmentationTask(config, "cpu")
    _, clean, labels = slabs(1)
    assert isinstance(task, SegmentationTask)
    assert task.predict(clean).shape == labels.shape
    assert set(task.metrics(clean, task.predict(clean)).values()) == {1.0}
    assert list(task.metrics(clean, labels)) == ["Spot"]


def test_a_label_that_a_batch_lacks_gives_a_loss_that_is_a_number() -> None:
    """Neither Dice nor cross-entropy divides by what is not there."""
    config = TrainHeadConfig.from_json(
        {"preset": "smoke", "labels": ["x"], "structures": STRUCTURES}
    )
    task = SegmentationTask(config, "cpu")
    loss = task.loss(slabs(1)[0], torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(one.grad).all() for one in task.parameters() if one.grad is not None)
