"""The parts of the comparison of gate and published methods, without its digits and packages."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture
def peers(scripts_on_the_path: None) -> ModuleType:
    return import_module("gate_peers")


def digits_of(peers: ModuleType) -> Any:
    """Ten classes that are distinguished by one bright row or column."""
    images = np.full((10, 8, 8), 0.1, np.float32)
    for number in range(5):
        images[number, number + 1], images[number + 5, :, number + 1] = 1, 1
    return peers.Digits(images, np.arange(10))


def test_a_pair_shows_both_digits_and_the_left_one_alone(peers: ModuleType) -> None:
    digits = digits_of(peers)
    pairs = digits.draw(200, np.random.default_rng(0))
    assert pairs.image.shape == (200, 1, 12, 12)
    places = set()
    for image, left, one, other in zip(*pairs, strict=True):
        assert (image[0] >= left).all()
        rows, columns = np.nonzero(left.numpy())
        row, column = rows.min(), columns.min()
        place = slice(row, row + 8), slice(column, column + 8)
        assert np.array_equal(left[place], digits.images[one])
        assert left.sum() == pytest.approx(digits.images[one].sum(), rel=1e-5)
        _, beside = np.nonzero((image[0] > left).numpy())
        right = digits.images[other]
        fits = [
            (row, column)
            for row in range(5)
            for column in (3, 4)
            if (image[0, row : row + 8, column : column + 8].numpy() >= right).all()
        ]
        assert fits and beside.max() <= 11
        places.add((int(row), int(column)))
    assert places == {(row, column) for row in range(5) for column in range(2)}


@pytest.mark.parametrize("case", ["two classes", "image and class"])
def test_an_arm_moves_the_shared_layers_by_the_losses_that_it_names(
    peers: ModuleType, case: str
) -> None:
    settings = peers.Settings(steps=8, batch=16, warm_up=3)
    digits = digits_of(peers)
    found = {}
    for arm in (peers.ALONE, peers.AUX_ALONE, peers.SUM, *peers.ACTING):
        learner = peers.Learner(case, arm, 0, settings)
        rng = np.random.default_rng(1)
        for number in range(4):
            learner.step(digits.draw(settings.batch, rng), number)
        found[arm] = torch.cat([p.detach().flatten() for p in learner.shared])
    # The gate on averages may still be closed.
    for arm in (peers.AUX_ALONE, peers.SUM):
        assert not torch.equal(found[arm], found[peers.ALONE]), arm
    assert not torch.equal(found[peers.SUM], found[peers.AUX_ALONE])


def test_the_gate_on_averages_is_the_main_loss_alone_while_it_warms_up(peers: ModuleType) -> None:
    settings, digits = peers.Settings(batch=16, warm_up=3), digits_of(peers)
    weights = []
    for arm in (peers.ALONE, peers.OURS):
        learner, rng = peers.Learner(peers.CLASSES, arm, 0, settings), np.random.default_rng(1)
        for number in range(3):
            learner.step(digits.draw(settings.batch, rng), number)
        weights.append(torch.cat([p.detach().flatten() for p in learner.network.parameters()]))
    assert torch.equal(*weights)


def test_both_tasks_are_learned_and_measured(peers: ModuleType) -> None:
    settings, digits = peers.Settings(steps=300, batch=32), digits_of(peers)
    learner, rng = peers.Learner(peers.CLASSES, peers.SUM, 0, settings), np.random.default_rng(1)
    pairs = digits.draw(300, np.random.default_rng(2))
    before = peers.measured(learner.network, pairs)
    for number in range(settings.steps):
        learner.step(digits.draw(settings.batch, rng), number)
    after = peers.measured(learner.network, pairs)
    assert before["main_loss"] == pytest.approx(1, abs=0.15)  # a constant answer's
    assert before["main"] < 25
    assert after["main"] > 70 and after["aux"] > 70
    assert after["main_loss"] < 0.5


def _rows(peers: ModuleType, **losses: tuple[float, float]) -> list[dict[str, Any]]:
    """Of five seeds; the accuracy of a task falls as its loss grows."""
    return [
        {
            "case": case,
            "arm": arm,
            "seed": seed,
            "main_loss": main * (1 + 0.001 * seed),
            "aux_loss": aux,
            "main": 100 - main,
            "aux": 100 - 50 * aux + 0.01 * seed,
        }
        for case in (peers.CLASSES, peers.IMAGE)
        for arm in peers.ARMS
        for main, aux in [losses.get(arm, losses["others"])]
        for seed in range(5)
    ]


def test_arms_that_do_nothing_pass_no_gate(peers: ModuleType) -> None:
    pytest.importorskip("scipy")
    rows = _rows(peers, others=(1.0, 1.0))
    gates = peers.gates_of(rows)
    assert len(gates) == 2 * 2 * len(peers.ACTING)
    assert not [entry["name"] for entry in gates if entry["pass"]]


def test_gates_pass_what_gains_at_no_cost_and_peers_that_are_better_are_named(
    peers: ModuleType,
) -> None:
    pytest.importorskip("scipy")
    good = dict.fromkeys(peers.ACTING, (1.0, 0.5))
    rows = _rows(peers, others=(1.1, 0.8), **{**good, peers.ALONE: (1.0, 1.0)})
    assert all(entry["pass"] for entry in peers.gates_of(rows))
    assert peers.better_than(rows, peers.IMAGE, peers.OURS) == []
    assert peers.better_than(rows, peers.IMAGE, "MGDA") == list(peers.ACTING)
    spent = peers.cost(rows, peers.IMAGE, "MGDA")
    assert spent.value == pytest.approx(0.414, abs=1e-3)
    assert spent.low <= spent.value <= spent.high
