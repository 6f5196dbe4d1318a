"""An enhancer made for a segmenter: what it learns, what it may cost, and how it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.gradprom import AdaptConfig
from MedEnhanceLib.gradprom.adapt import SHARES, Example, Pair, Sampler, adapt, chosen_share
from MedEnhanceLib.runtime.progress import Monitor

CONFIG = AdaptConfig(
    steps=120, batch=2, slab=2, patch=32, start=0.4, learning_rate=3e-3, budget=0.2, ema=0.9
)


class Corrector(nn.Module):
    """Adds what two convolutions make of both images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)
        )

    def forward(self, slabs: Tensor, start: Tensor) -> Tensor:
        both = torch.stack([slabs, start], dim=2).flatten(0, 1)
        return start + self.body(both)[:, 0].view_as(start)


class Threshold:
    """Finds what is brighter than it should be taken for: it wants spots brighter than they are."""

    def loss(self, slab: Tensor, view: object, target: Tensor) -> Tensor:
        logits = 20 * (slab - 0.75)
        return nn.functional.binary_cross_entropy_with_logits(logits, target.float())


def examples(count: int = 3) -> list[Example]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        clean = np.full((6, 48, 48), 0.3, np.float32)
        target = np.zeros(clean.shape, np.uint8)
        for _ in range(8):
            k, j, i = (int(rng.integers(n - 8)) for n in (14, 48, 48))
            where = (slice(k // 2, k // 2 + 3), slice(j, j + 8), slice(i, i + 8))
            clean[where], target[where] = 0.7, 1
        noisy = [clean + rng.normal(0, 0.1, clean.shape).astype(np.float32) for _ in range(2)]
        versions = tuple((one, 0.5 * (one + np.roll(one, 1, 2))) for one in noisy)
        made.append(Example(clean, versions, target, clean > 0.1))
    return made


def pair(config: AdaptConfig = CONFIG) -> Pair:
    return Pair(config, Corrector(), Threshold(), Sampler(examples(), config), "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["project", "joint"])
def test_the_segmenter_gains_within_the_budget(gate: str, tmp_path: Path) -> None:
    config = replace(CONFIG, gate=gate)
    made = adapt(config, Corrector(), Threshold(), examples(), tmp_path, Monitor(), device="cpu")
    rows = {row["share"]: row for row in made.compared}
    assert rows[made.share]["cost"] <= config.budget
    assert rows[made.share]["task"] < 0.98 * rows[0.0]["task"]
    assert set(rows) == set(SHARES)


def test_both_networks_are_one_until_the_segmenter_teaches() -> None:
    learned = pair()
    for number in range(learned.begins):
        learned.step(number)
    same = zip(learned.twin.network.parameters(), learned.tuned.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    learned.step(learned.begins)
    same = zip(learned.twin.network.parameters(), learned.tuned.network.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in same)


def test_the_twin_never_learns_from_the_segmenter() -> None:
    learned, other = pair(), pair(replace(CONFIG, gate="off"))
    for number in range(learned.begins + 6):
        learned.step(number)
        other.step(number)
    for one, two in zip(
        learned.twin.network.parameters(), other.twin.network.parameters(), strict=True
    ):
        assert torch.equal(one, two)
    # Without the segmenter's gradient the tuned network is the twin.
    for one, two in zip(
        other.twin.network.parameters(), other.tuned.network.parameters(), strict=True
    ):
        assert torch.equal(one, two)


def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=24, start=0.25)

    def run(folder: str, stop_at: int | None = None) -> nn.Module:
        done = [0]

        def is_cancelled() -> bool:
            done[0] += 1
            return stop_at is not None and done[0] > stop_at

        monitor = Monitor(cancel=is_cancelled)
        return adapt(
            config, Corrector(), Threshold(), examples(), tmp_path / folder, monitor, device="cpu"
        ).network

    whole = run("whole")
    with pytest.raises(Cancelled, match="the checkpoint is written"):
        run("parts", stop_at=14)
    resumed = run("parts")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_slab_beyond_the_border_is_filled_up() -> None:
    config = replace(CONFIG, slab=9, patch=64)
    slabs = Sampler(examples(1), config).batch(0)
    assert slabs.noisy.shape == (2, 9, 64, 64)
    assert not slabs.inside[:, 6:].any()
    assert not slabs.target[:, :, 48:].any()


def test_what_costs_more_than_the_budget_is_not_chosen() -> None:
    rows = [
        {"share": 0.0, "cost": 0.0, "task": 1.0},
        {"share": 0.5, "cost": 0.05, "task": 0.8},
        {"share": 1.0, "cost": 0.12, "task": 0.5},
    ]
    assert chosen_share(rows, 0.1) == 0.5
    assert chosen_share(rows, 0.2) == 1.0
    assert chosen_share(rows, 0.01) == 0.0
