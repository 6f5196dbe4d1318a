"""The gate in use: common loops, the examples, and what it says of wrong input."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from Library.gradprom.pair import losses, network
from torch import Tensor, nn

from MedEnhanceLib.errors import ConfigError, MedEnhanceError, ModelError
from MedEnhanceLib.gradprom import GradientGate


def test_what_comes_out_can_be_clipped_in_place() -> None:
    """Autograd gives one tensor to both, and one element for all places of each."""
    pair = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    for power in (1, 2):
        loss = (pair[0] + pair[1]).pow(power).sum()
        gradients, report = GradientGate()(loss, -loss, pair)
        assert not report.open
        for parameter, gradient in zip(pair, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(pair, 0.5)
        assert math.hypot(*(float(p.grad.norm()) for p in pair)) == pytest.approx(0.5, rel=1e-4)
        assert torch.equal(pair[0].grad, pair[1].grad)


PAGE = Path(__file__).resolve().parents[3] / "docs" / "gradient-gate.md"


def test_the_pair_of_the_pages_example_learns_and_its_gate_was_asked_in_each_step() -> None:
    """Both: noise of variance 0.09 is mostly gone, and spots are distinguished."""
    names: dict[str, Any] = {}
    text = PAGE.read_text(encoding="utf-8")
    for match in re.finditer(r"```python\n(.*?)```", text, re.S):
        line = text.count("\n", 0, match.start(1))
        exec(compile("\n" * line + match.group(1), str(PAGE), "exec"), names)
    torch.manual_seed(1)
    noisy, clean, spot = map(
        torch.cat, zip(*(names["draw_batch"]() for _ in range(8)), strict=True)
    )
    with torch.no_grad():
        enhanced = names["enhancer"](noisy)
        classes = names["classifier"](enhanced).argmax(1)
    assert float((enhanced - clean).square().mean()) < 0.03
    assert float((classes == spot).float().mean()) > 0.75
    assert names["summary"].steps == 150
    assert 0 < names["summary"].open_fraction < 1


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parameters_of_other_types_keep_theirs(dtype: torch.dtype) -> None:
    mixed = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3, dtype=dtype))]
    loss = mixed[0].square().sum() + mixed[1].square().sum()
    gate = GradientGate()
    gradients, report = gate(loss, loss, mixed)
    assert report.open
    assert [gradient.dtype for gradient in gradients] == [torch.float32, dtype]
    assert all(gradient.eq(4).all() for gradient in gradients)


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
