"""What a gate is given: it closes, or says what is wrong and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from Library.gradprom.pair import losses, network
from torch import Tensor, nn

from MedEnhanceLib.errors import ConfigError, MedEnhanceError, ModelError
from MedEnhanceLib.gradprom import GradientGate


def plain() -> tuple[nn.Parameter, Tensor]:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    return weight, weight.square().sum()


def refusal(act: Callable[[], object], kind: type[MedEnhanceError] = ConfigError) -> str:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.hint
    return caught.value.message


def test_losses_that_cannot_be_decided_on_are_refused() -> None:
    weight, loss = plain()
    other, gate = nn.Parameter(torch.ones(1)), GradientGate()
    assert "main loss is of shape (2,)" in refusal(lambda: gate(weight * 1, loss, [weight]))
    assert "auxiliary loss is of shape (2,)" in refusal(lambda: gate(loss, weight * 1, [weight]))
    assert "auxiliary loss is 0.0" in refusal(lambda: gate(loss, 0.0, [weight]))
    assert "constant" in refusal(lambda: gate(loss.detach(), loss, [weight]))
    # The graph is still there: nothing was taken.
    assert gate(loss, loss, [weight])[1].open
    _, loss = plain()
    assert "none of the parameters" in refusal(lambda: gate(loss, loss, [other]))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_closes_it(value: float) -> None:
    """Even where its gradient is finite."""
    for main_part, aux_part in ((0, value), (value, 0)):
        weight, loss = plain()
        gradients, report = GradientGate("joint")(loss + main_part, loss + aux_part, [weight])
        assert not report.open
        assert gradients[0].tolist() == [2, 4]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parameters_of_other_types_keep_theirs(dtype: torch.dtype) -> None:
    mixed = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3, dtype=dtype))]
    loss = mixed[0].square().sum() + mixed[1].square().sum()
    gate = GradientGate()
    gradients, report = gate(loss, loss, mixed)
    assert report.open
    assert [gradient.dtype for gradient in gradients] == [torch.float32, dtype]
    assert all(gradient.eq(4).all() for gradient in gradients)


def test_a_task_loss_that_is_constant_or_of_whole_numbers_closes_it() -> None:
    other = nn.Parameter(torch.ones(2))
    for aux in (torch.tensor(3), torch.tensor(True), torch.tensor(0.5), other.square().sum()):
        weight, loss = plain()
        gradients, report = GradientGate("joint")(loss, aux, [weight])
        assert (report.open, report.cosine) == (False, 0)
        assert gradients[0].tolist() == [2, 4]


def test_frozen_parameters_get_no_gradient() -> None:
    model = network()
    model[0].requires_grad_(False)
    gradients, report = GradientGate()(*[losses(model, 0)[0]] * 2, model.parameters())
    assert report.open
    assert [gradient is None for gradient in gradients] == [True, True, False, False]
    model.requires_grad_(False)
    assert "requires a gradient" in refusal(
        lambda: GradientGate()(*losses(network(), 0), model.parameters())
    )


def test_what_is_no_list_of_parameters_is_refused() -> None:
    model, gate = network(), GradientGate()
    pair = losses(model, 0)
    used = model.parameters()
    list(used)
    for wrong, match in [
        ([], "no parameters"),
        (used, "no parameters"),
        (model, "Sequential in place of"),
        (model[0].weight, "Parameter in place of"),
        ([{"params": []}], "parameter 0 is dict"),
    ]:
        assert match in refusal(lambda wrong=wrong: gate(*pair, wrong))
    assert gate(*pair, model.parameters())[0]


def test_averages_of_other_parameters_are_refused() -> None:
    weight, loss = plain()
    gate, model = GradientGate(), network()
    gate(loss, loss.clone(), [weight])
    first = refusal(lambda: gate(*losses(model, 0), model.parameters()), ModelError)
    assert "other parameters (at place 0)" in first
    other = GradientGate()
    other(*losses(model, 0), model.parameters())
    few = list(model.parameters())[:2]
    assert "(at place 2)" in refusal(lambda: other(*losses(model, 0), few), ModelError)
    assert "'weight'" in refusal(lambda: other.load_state_dict({"weight": weight}), ModelError)


def test_parts_of_a_step_belong_to_the_same_parameters() -> None:
    gate, model = GradientGate(), network()
    assert "nothing to decide on" in refusal(gate.decide)
    gate.accumulate(*losses(model, 0), model.parameters())
    some = list(model.parameters())[:2]
    assert "other parameters" in refusal(lambda: gate.accumulate(*losses(model, 0), some))
    assert "nothing to decide on" in refusal(gate.decide)
