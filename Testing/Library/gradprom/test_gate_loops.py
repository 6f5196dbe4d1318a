"""The gate in common loops: mixed precision, parts of steps, clipping, the examples."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from Library.gradprom.pair import alone, descend, flat, losses, network
from torch import nn

from MedEnhanceLib.gradprom import GradientGate

# --- mixed precision ------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_holds_in_float32_holds_under_autocast(dtype: torch.dtype, ema: float) -> None:
    gate, model, opened = GradientGate(ema=ema), network(), []
    for step in range(30):
        with torch.autocast("cpu", dtype=dtype):
            main, aux = losses(model, step)
        wanted = alone(main, model)
        gradients, report = gate(main, aux, model.parameters())
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        m, g = flat(wanted), flat(gradients)
        assert g @ m >= m @ m * (1 - 1e-5)
        if not report.open:
            assert torch.equal(g, m)
        opened.append(report.open)
        descend(model, gradients)
    assert 0 < sum(opened) < 30


# --- parts of a step ------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_parts_of_a_step_are_decided_on_together(ema: float) -> None:
    """As the whole batch at once; parts decided on one by one would be another thing."""
    whole, parts, model = GradientGate(ema=ema), GradientGate(ema=ema), network()
    opened = []
    for step in range(30):
        main, aux = losses(model, step)
        gradients, report = whole(main, aux, model.parameters())
        for start in range(0, 16, 4):
            pair = losses(model, step, slice(start, start + 4))
            parts.accumulate(*(loss / 4 for loss in pair), model.parameters())
        summed, again = parts.decide()
        assert again.open == report.open
        assert again.cosine == pytest.approx(report.cosine, abs=1e-5)
        torch.testing.assert_close(flat(summed), flat(gradients), rtol=1e-4, atol=1e-6)
        opened.append(report.open)
        descend(model, gradients)
    assert 0 < sum(opened) < 30
    assert whole.diagnostics().steps == parts.diagnostics().steps == 30


def test_the_last_part_may_decide_and_a_spoilt_one_closes_the_step() -> None:
    model, gate = network(), GradientGate()
    main, _ = losses(model, 0)
    wanted = alone(main, model)
    gate.accumulate(0.5 * main, math.nan * main, model.parameters())
    gradients, report = gate(*(0.5 * losses(model, 0)[0] for _ in range(2)), model.parameters())
    assert not report.open
    torch.testing.assert_close(gradients, wanted)
    # Nothing of it is left for the next step.
    assert gate(*[losses(model, 0)[0]] * 2, model.parameters())[1].open


# --- clipping -------------------------------------------------------------------------------------


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
    assert names["summary"].steps == 150 + 1
    assert 0 < names["summary"].open_fraction < 1
