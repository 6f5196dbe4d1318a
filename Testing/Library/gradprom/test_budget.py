"""The budget of fidelity and the gate that goes with it: what a task may cost, and what it gets."""

from __future__ import annotations

import math

import pytest
import torch
from Library.gradprom.pair import alone, descend, flat, losses, network
from torch import Tensor

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom import FidelityBudget, GradientGate

RATE, NOISE = 0.05, 0.02


def descended(
    decibels: float, mode: str, scale: float = 1.0, steps: int = 400
) -> tuple[Tensor, float]:
    """The main loss is |x|² + 1, whose least is 1; the task wants x at (1, 0).

    Where it ends, and its cost in the last half of the steps, in dB.
    """
    budget, gate = FidelityBudget(decibels), GradientGate(mode, ema=0.0)
    x, errors = torch.zeros(2), []
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        noise = NOISE * torch.randn(2, generator=generator)
        main, task = [2 * x + noise], [scale * (2 * (x - torch.tensor([1.0, 0.0])) + noise)]
        gate.weight = budget.weight(main, task)
        (gradient,), _ = gate.admit(main, task, [x])
        x = x - RATE * gradient
        error = 1 + float(x.square().sum())
        budget.observe(error, 1.0)
        if step >= steps // 2:
            errors.append(error)
    return x, 10 * math.log10(sum(errors) / len(errors))


@pytest.mark.parametrize("mode", ["joint", "project"])
@pytest.mark.parametrize("decibels", [0.05, 0.1, 0.3])
def test_the_task_gets_what_the_budget_allows_and_no_more(decibels: float, mode: str) -> None:
    x, cost = descended(decibels, mode)
    assert cost <= decibels * 1.2
    if mode == "joint":  # of two losses that contradict each other, all is used
        assert cost >= 0.5 * decibels
        assert float(x[0]) > 0.05


def test_the_scale_of_the_task_does_not_matter() -> None:
    assert descended(0.1, "joint", scale=1e-3)[1] == pytest.approx(
        descended(0.1, "joint", scale=1e3)[1], rel=0.05
    )


def test_the_weight_falls_while_it_costs_too_much_and_grows_while_it_costs_less() -> None:
    budget = FidelityBudget(0.1)
    first = budget.relative_weight
    budget.observe(1.1, 1.0)
    assert budget.cost == pytest.approx(10 * math.log10(1.1))
    assert budget.relative_weight < first
    other = FidelityBudget(0.1)
    other.observe(1.0, 1.0)
    assert other.relative_weight > first


def test_what_is_no_number_moves_nothing() -> None:
    budget = FidelityBudget(0.1)
    before = budget.state_dict()["state"]
    budget.observe(math.nan, 1.0)
    budget.observe(1.0, 0.0)
    assert budget.weight([torch.full((2,), math.nan)], [torch.ones(2)]) == 0
    assert torch.equal(budget.state_dict()["state"], before)


def test_it_continues_from_its_state() -> None:
    budget, again = FidelityBudget(0.1), FidelityBudget(0.1)
    for error in (1.0, 1.2, 0.9):
        budget.weight([torch.full((2,), error)], [torch.ones(2)])
        budget.observe(error, 1.0)
    again.load_state_dict(budget.state_dict())
    assert (again.cost, again.relative_weight) == (budget.cost, budget.relative_weight)
    assert again.weight([torch.ones(2)], [torch.ones(2)]) == budget.weight(
        [torch.ones(2)], [torch.ones(2)]
    )


@pytest.mark.parametrize("decibels", [0.0, -1.0, math.nan, 100.0])
def test_a_budget_out_of_range_is_refused(decibels: float) -> None:
    with pytest.raises(ConfigError, match="the budget"):
        FidelityBudget(decibels)


@pytest.mark.parametrize("scope", ["global", "layer", "parameter"])
def test_projection_takes_out_what_contradicts_and_nothing_else(scope: str) -> None:
    gate, model = GradientGate("project", ema=0.0, scope=scope, weight=3.0), network()
    contradicted = 0
    for step in range(40):
        main, aux = losses(model, step)
        wanted = flat(alone(main, model))
        asked = flat(alone(aux, model))
        gradients, report = gate(main, aux, model.parameters())
        found = flat(gradients)
        assert found @ wanted >= wanted @ wanted * (1 - 1e-4)
        if scope == "global" and report.cosine > 0:
            torch.testing.assert_close(found, wanted + 3 * asked)
        elif scope == "global":
            contradicted += 1
            torch.testing.assert_close(found @ wanted, wanted @ wanted, rtol=1e-3, atol=1e-6)
        assert report.open
        descend(model, gradients)
    assert scope != "global" or contradicted


def test_projection_of_the_opposite_leaves_the_main_gradient() -> None:
    gate, main = GradientGate("project", ema=0.0, weight=2.0), torch.tensor([3.0, -4.0])
    (found,), _ = gate.admit([main], [-5 * main], [torch.zeros(2)])
    torch.testing.assert_close(found, main)
