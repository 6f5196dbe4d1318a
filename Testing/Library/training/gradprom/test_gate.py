"""The gate: what it admits, what it never does, and what it says of wrong input."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest
import torch
from Library.training.gradprom.pair import OpenGate, alone, descend, flat, losses, network
from torch import Tensor, nn

from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.training.gradprom.gate import GradientGate

EMAS = (0.0, 0.9)


def averages(gate: GradientGate) -> dict[str, Tensor]:
    """Of both gradients, as they are now."""
    state = gate.state_dict().items()
    return {name: value.clone() for name, value in state if name != "totals"}


@pytest.mark.parametrize("ema", EMAS)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_no_step_loses_main_descent(ema: float, dtype: torch.dtype | None) -> None:
    """Under autocast neither, and gradients stay float32."""
    gate, model = GradientGate(ema=ema, weight=3.0), network()
    opened = 0.0
    for step in range(60):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            main, aux = losses(model, step)
        wanted = flat(alone(main, model))
        gradients, report = gate(main, aux, model.parameters())
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        assert flat(gradients) @ wanted >= wanted @ wanted * (1 - 1e-5)
        if not report.open:
            assert torch.equal(flat(gradients), wanted)
        opened += report.share
        descend(model, gradients)
    assert 0 < opened < 60


#: What becomes of the main and the auxiliary loss, and whether their gradients are finite.
SILENT = {
    "constant": (lambda main, aux: (main, 0.0 * aux), True),
    "detached": (lambda main, aux: (main, torch.tensor(1.0)), True),
    "gradient no number": (lambda main, aux: (main, math.nan * aux), False),
    "gradient infinite": (lambda main, aux: (main, math.inf * aux), False),
    "loss no number": (lambda main, aux: (main, aux + math.nan), False),
    "main loss infinite": (lambda main, aux: (main + math.inf, aux), False),
}


@pytest.mark.parametrize("gate_type", [GradientGate, OpenGate])
@pytest.mark.parametrize("kind", SILENT)
def test_a_loss_that_says_nothing_is_left_out_and_forgotten(
    gate_type: type[GradientGate], kind: str
) -> None:
    gate, model = gate_type(), network()
    main, aux = losses(model, 0)
    gate(main, main + 0.1 * aux, model.parameters())
    before = averages(gate)
    main, aux = losses(model, 1)
    wanted = alone(main, model)
    change, is_finite = SILENT[kind]
    gradients, report = gate(*change(main, aux), model.parameters())
    assert (report.open, report.share, report.batch_cosine) == (False, 0, 0)
    assert all(torch.equal(*pair) for pair in zip(gradients, wanted, strict=True))
    if not is_finite:
        assert all(torch.equal(value, before[name]) for name, value in averages(gate).items())


@pytest.mark.parametrize("ema", EMAS)
def test_the_decision_knows_no_scale(ema: float) -> None:
    """Not of the weight and not of either loss, even where squares of gradients underflow."""

    def decisions(main_scale: float, aux_scale: float, weight: float) -> list[tuple[bool, float]]:
        gate, model = GradientGate(weight=weight, ema=ema), network()
        reports = []
        for step in range(25):
            main, aux = losses(model, step)
            reports.append(gate(main_scale * main, aux_scale * aux, model.parameters())[1])
        return [(report.open, report.share) for report in reports]

    expected = decisions(1, 1, 1)
    assert len(set(expected)) > 1
    for scales in [(1, 1, 1e-3), (1e3, 1, 1e3), (1, 1e-25, 1), (1e-25, 1e20, 1)]:
        assert decisions(*scales) == expected


def test_a_relative_weight_is_in_units_of_both_mean_norms() -> None:
    """What is added has λ times the main norm on average, whatever the scale of the task's loss."""

    def added(scale: float, resumed_at: int) -> Tensor:
        gate, model = OpenGate(ema=0, weight=3.0, relative=True), network()
        norms, parts = [], []
        for step in range(12):
            if step == resumed_at:
                state = gate.state_dict()
                gate = OpenGate(ema=0, weight=3.0, relative=True)
                gate.load_state_dict(state)
            main, aux = losses(model, step)
            m, a = flat(alone(main, model)), flat(alone(scale * aux, model))
            gradients, report = gate(main, scale * aux, model.parameters())
            assert (report.main_norm, report.aux_norm) == pytest.approx(
                (float(m.norm()), float(a.norm()))
            )
            norms.append((report.main_norm, report.aux_norm))
            means = torch.tensor(norms).mean(0)
            torch.testing.assert_close(flat(gradients), m + 3 * means[0] / means[1] * a)
            parts.append(flat(gradients) - m)
            descend(model, gradients)
        seen = gate.diagnostics()
        assert (seen.main_norm, seen.aux_norm) == pytest.approx(tuple(means.tolist()))
        return torch.stack(parts)

    torch.testing.assert_close(added(1.0, 99), added(1e3, 6), rtol=1e-3, atol=1e-6)
    gate, model = GradientGate(relative=True), network()
    main, aux = losses(model, 0)
    _, report = gate(main, math.nan * aux, model.parameters())
    assert (report.main_norm, report.aux_norm, report.open) == (0, 0, False)
    main, _ = losses(model, 1)
    wanted = flat(alone(main, model))
    assert torch.allclose(flat(gate(main, 5 * main, model.parameters())[0]), 2 * wanted)


def test_the_cosine_is_that_of_both_gradients() -> None:
    model = network()
    main, aux = losses(model, 3)
    main = main + 0.5 * aux
    m, a = flat(alone(main, model)), flat(alone(aux, model))
    cosine = float(m @ a / (m.norm() * a.norm()))
    assert 0.05 < cosine < 0.95
    gradients, report = GradientGate(ema=0, weight=2.0)(main, aux, model.parameters())
    torch.testing.assert_close(flat(gradients), m + 2.0 * a)
    assert report.cosine == pytest.approx(cosine, abs=1e-5)


def test_each_layer_is_decided_for_itself() -> None:
    """The auxiliary loss agrees in the first layer and contradicts in the second."""
    model, shares = network(), [1, -1e-3, 0, 0]
    squares = [parameter.square().sum() for parameter in model.parameters()]
    # The bias of the first layer contradicts, and goes with its weight.
    aux = squares[0] - 1e-3 * squares[1] - squares[2] - squares[3]
    sizes = [parameter.numel() for parameter in model.parameters()]
    gradients, report = GradientGate()(sum(squares), aux, model.parameters())
    for parameter, gradient, share in zip(model.parameters(), gradients, shares, strict=True):
        torch.testing.assert_close(gradient, 2 * parameter * (1 + share))
    assert report.share == pytest.approx(sum(sizes[:2]) / sum(sizes))


def test_parameters_that_a_loss_does_not_reach() -> None:
    both, main_only, aux_only, neither = (nn.Parameter(torch.ones(3)) for _ in range(4))
    main = (both * 2).sum() + main_only.sum()
    aux = (both * 3).sum() + aux_only.sum()
    gradients, report = GradientGate()(main, aux, (both, main_only, aux_only, neither))
    lists = [None if gradient is None else gradient.tolist() for gradient in gradients]
    assert lists == [[5] * 3, [1] * 3, [1] * 3, None]
    assert report.cosine == pytest.approx(18 / math.sqrt(15 * 30), rel=1e-5)


def test_a_gate_that_warms_up_listens_before_it_opens() -> None:
    """Closed bit for bit, also over a checkpoint, for a task that agrees all the time."""
    model, gate = network(), GradientGate(ema=0.9, warm_up=3)
    for step in range(5):
        if step == 2:
            state, gate = gate.state_dict(), GradientGate(ema=0.9, warm_up=3)
            gate.load_state_dict(state)
        wanted = flat(alone(losses(model, step)[0], model))
        main, _ = losses(model, step)
        gradients, report = gate(main, 2 * main, model.parameters())
        assert report.open == (step >= 3)
        assert report.average_cosine == pytest.approx(1, abs=1e-5)
        if report.open:
            assert torch.allclose(flat(gradients), 3 * wanted)
        else:
            assert torch.equal(flat(gradients), wanted)


@pytest.mark.parametrize("ema", EMAS)
def test_the_gate_admits_a_multiple_of_the_main_loss_not_its_opposite(ema: float) -> None:
    for factor in (4.0, -1.0):
        gate, model = GradientGate(weight=0.5, ema=ema), network()
        for step in range(5):
            main, _ = losses(model, step)
            wanted = alone(main, model)
            gradients, report = gate(main, factor * main, model.parameters())
            assert report.open == (factor > 0)
            assert report.cosine == pytest.approx(math.copysign(1, factor), abs=1e-5)
            if factor > 0:
                torch.testing.assert_close(flat(gradients), (1 + 0.5 * 4) * flat(wanted))
            else:
                assert all(torch.equal(*pair) for pair in zip(gradients, wanted, strict=True))


def test_it_counts_what_happened_and_goes_on_from_its_state() -> None:
    gate, model, reports = GradientGate(ema=0.9), network(), []
    other = GradientGate(ema=0.9)
    for step in range(40):
        if step == 20:
            other.load_state_dict(gate.state_dict())
        gradients, report = gate(*losses(model, step), model.named_parameters())
        if step >= 20:
            theirs, again = other(*losses(model, step), model.parameters())
            assert report == again
            assert all(torch.equal(*pair) for pair in zip(gradients, theirs, strict=True))
        reports.append(report)
        descend(model, gradients)
    seen = gate.diagnostics()
    assert seen == other.diagnostics()
    assert (seen.steps, seen.open_fraction) == (40, sum(r.open for r in reports) / 40)
    assert 0 < seen.open_fraction < 1
    assert seen.cosine == pytest.approx(sum(r.batch_cosine for r in reports) / 40)
    assert seen.average_cosine == pytest.approx(sum(r.average_cosine for r in reports) / 40)
    assert seen.share == pytest.approx(sum(r.share for r in reports) / 40)


def test_what_comes_out_can_be_clipped_in_place() -> None:
    """Autograd gives one tensor to both, and one element for all places of each."""
    pair = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    for power in (1, 2):
        loss = (pair[0] + pair[1]).pow(power).sum()
        gradients, _ = GradientGate()(loss, -loss, pair)
        for parameter, gradient in zip(pair, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(pair, 0.5)
        assert math.hypot(*(float(p.grad.norm()) for p in pair)) == pytest.approx(0.5, rel=1e-4)
        assert torch.equal(pair[0].grad, pair[1].grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_types_are_kept_and_frozen_parameters_get_none(dtype: torch.dtype) -> None:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    mixed = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3, dtype=dtype)), frozen]
    loss = mixed[0].square().sum() + mixed[1].square().sum()
    (first, second, third), report = GradientGate()(loss, loss, mixed)
    assert report.open and third is None
    assert (first.dtype, second.dtype) == (torch.float32, dtype)
    assert first.eq(4).all() and second.eq(4).all()


@pytest.mark.parametrize(
    "options",
    [{"ema": 1.0}, {"weight": -1.0}, {"warm_up": 1e10}],
)
def test_a_wrong_choice_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"the gate's {next(iter(options))}"):
        GradientGate(**options)


def test_what_cannot_be_decided_on_is_refused_and_nothing_taken() -> None:
    weight, other = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.ones(1))
    loss, gate, model = weight.square().sum(), GradientGate(), network()
    frozen = network().requires_grad_(False)
    used = model.parameters()
    list(used)
    for main, aux, parameters, said in (
        (weight * 1, loss, [weight], r"main loss is of shape \(2,\)"),
        (loss, weight * 1, [weight], r"auxiliary loss is of shape \(2,\)"),
        (loss, 0.0, [weight], "auxiliary loss is 0.0"),
        (loss.detach(), loss, [weight], "none of the parameters"),
        (loss, loss, [], "not a list of tensors"),
        (loss, loss, used, "not a list of tensors"),
        (loss, loss, model, "not a list of tensors"),
        (loss, loss, weight, "not a list of tensors"),
        (loss, loss, [{"params": []}], "not a list of tensors"),
        (loss, loss, frozen.parameters(), "require a gradient"),
    ):
        with pytest.raises(ConfigError, match=said) as caught:
            gate(main, aux, parameters)
        assert caught.value.hint
    assert gate(loss, loss, [weight])[1].open  # the graph is still there
    with pytest.raises(ConfigError, match="none of the parameters"):
        gate(weight.square().sum(), weight.square().sum(), [other])


def test_averages_of_other_parameters_are_refused() -> None:
    gate, model = GradientGate(), network()
    gate(*losses(model, 0), model.parameters())
    first, *_ = model.parameters()
    for act, said in (
        (lambda: gate(*losses(model, 0), list(model.parameters())[:2]), r"\(at index 2\)"),
        (lambda: gate(*losses(model, 0), list(model.parameters())[::-1]), r"\(at index 0\)"),
        (lambda: gate.load_state_dict({"weight": first}), "'weight'"),
    ):
        with pytest.raises(ModelError, match=said):
            act()


EXAMPLE = Path(__file__).resolve().parents[4] / "Testing/examples/gate.py"


def test_the_pair_of_the_example_learns() -> None:
    """Noise of variance 0.09 is mostly gone, and spots are distinguished."""
    names = runpy.run_path(str(EXAMPLE))
    torch.manual_seed(1)
    drawn = zip(*(names["draw_batch"]() for _ in range(8)), strict=True)
    noisy, clean, spot = map(torch.cat, drawn)
    with torch.no_grad():
        enhanced = names["enhancer"](noisy)
        classes = names["classifier"](enhanced).argmax(1)
    assert float((enhanced - clean).square().mean()) < 0.03
    assert float((classes == spot).float().mean()) > 0.75
    assert names["summary"].steps == 150
    assert 0 < names["summary"].open_fraction < 1
