"""The gate: what it admits, and what it never does."""

from __future__ import annotations

import math

import pytest
import torch
from Library.gradprom.pair import alone, descend, flat, losses, network
from torch import Tensor, nn

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom import GradientGate

GATES = [
    {"mode": mode, "ema": ema, "scope": scope}
    for mode in ("binary", "cosine")
    for ema in (0.0, 0.9)
    for scope in ("global", "layer", "parameter")
]


def averages(gate: GradientGate) -> dict[str, Tensor]:
    """Of both gradients, as they are now."""
    state = gate.state_dict().items()
    return {name: value.clone() for name, value in state if name != "totals"}


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        *((options, None) for options in GATES),
        *(({"ema": ema}, half) for ema in (0.0, 0.9) for half in (torch.bfloat16, torch.float16)),
    ],
)
def test_no_step_loses_main_descent(options: dict[str, object], dtype: torch.dtype | None) -> None:
    """Under autocast neither, and gradients stay float32."""
    gate, model = GradientGate(**{"weight": 3.0, **options}), network()
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


@pytest.mark.parametrize("ema", [0.0, 0.99])
@pytest.mark.parametrize("mode", ["binary", "cosine"])
def test_a_loss_that_is_the_main_one_again_is_always_admitted(mode: str, ema: float) -> None:
    gate, model = GradientGate(mode, ema=ema, weight=0.5), network()
    for step in range(5):
        main, _ = losses(model, step)
        wanted = flat(alone(main, model))
        gradients, report = gate(main, 4.0 * main, model.parameters())
        assert report.open
        assert report.cosine == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close(flat(gradients), (1 + 0.5 * 4) * wanted)


@pytest.mark.parametrize("options", GATES)
def test_the_opposite_loss_leaves_the_main_gradient_bit_for_bit(
    options: dict[str, object],
) -> None:
    gate, model = GradientGate(**options), network()
    for step in range(5):
        main, _ = losses(model, step)
        wanted = alone(main, model)
        gradients, report = gate(main, -main, model.parameters())
        assert not report.open
        assert report.cosine == pytest.approx(-1, abs=1e-5)
        assert all(torch.equal(*pair) for pair in zip(gradients, wanted, strict=True))


#: What becomes of the main and the auxiliary loss, and whether their gradients are finite.
SILENT = {
    "constant": (lambda main, aux: (main, 0.0 * aux), True),
    "detached": (lambda main, aux: (main, torch.tensor(1.0)), True),
    "gradient no number": (lambda main, aux: (main, math.nan * aux), False),
    "gradient infinite": (lambda main, aux: (main, math.inf * aux), False),
    "loss no number": (lambda main, aux: (main, aux + math.nan), False),
    "main loss infinite": (lambda main, aux: (main + math.inf, aux), False),
}


@pytest.mark.parametrize("mode", ["binary", "cosine", "joint"])
@pytest.mark.parametrize("kind", SILENT)
def test_a_loss_that_says_nothing_is_left_out_and_forgotten(mode: str, kind: str) -> None:
    gate, model = GradientGate(mode), network()
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


@pytest.mark.parametrize("options", GATES)
def test_the_decision_knows_no_scale(options: dict[str, object]) -> None:
    """Not of the weight and not of either loss, even where squares of gradients underflow."""

    def decisions(main_scale: float, aux_scale: float, weight: float) -> list[tuple[bool, float]]:
        gate, model = GradientGate(weight=weight, **options), network()
        reports = []
        for step in range(25):
            main, aux = losses(model, step)
            reports.append(gate(main_scale * main, aux_scale * aux, model.parameters())[1])
        return [(report.open, report.share) for report in reports]

    expected = decisions(1, 1, 1)
    assert len(set(expected)) > 1
    for scales in [(1, 1, 1e-3), (1e3, 1, 1e3), (1, 1e-25, 1), (1e-25, 1e20, 1)]:
        assert decisions(*scales) == expected


def test_the_task_gradient_is_weighed_by_the_cosine() -> None:
    model = network()
    main, aux = losses(model, 3)
    main = main + 0.5 * aux
    m, a = flat(alone(main, model)), flat(alone(aux, model))
    cosine = float(m @ a / (m.norm() * a.norm()))
    assert 0.05 < cosine < 0.95
    gradients, report = GradientGate("cosine", ema=0, weight=2.0)(main, aux, model.parameters())
    torch.testing.assert_close(flat(gradients), m + 2.0 * cosine * a)
    assert report.cosine == pytest.approx(cosine, abs=1e-5)


def test_each_layer_is_decided_for_itself() -> None:
    """The auxiliary loss agrees in the first layer and contradicts in the second."""
    for scope, shares in (("layer", [1, -1e-3, 0, 0]), ("parameter", [1, 0, 0, 0])):
        model = network()
        squares = [parameter.square().sum() for parameter in model.parameters()]
        # The bias of the first layer contradicts, and goes with its weight in a layer.
        aux = squares[0] - 1e-3 * squares[1] - squares[2] - squares[3]
        sizes = [parameter.numel() for parameter in model.parameters()]
        gradients, report = GradientGate(scope=scope)(sum(squares), aux, model.parameters())
        for parameter, gradient, share in zip(model.parameters(), gradients, shares, strict=True):
            torch.testing.assert_close(gradient, 2 * parameter * (1 + share))
        admitted = sum(size for size, share in zip(sizes, shares, strict=True) if share)
        assert report.share == pytest.approx(admitted / sum(sizes))


def test_parameters_that_a_loss_does_not_reach() -> None:
    both, main_only, aux_only, neither = (nn.Parameter(torch.ones(3)) for _ in range(4))
    main = (both * 2).sum() + main_only.sum()
    aux = (both * 3).sum() + aux_only.sum()
    gradients, report = GradientGate()(main, aux, (both, main_only, aux_only, neither))
    assert [None if g is None else g.tolist() for g in gradients] == [
        [5] * 3,
        [1] * 3,
        [1] * 3,
        None,
    ]
    assert report.cosine == pytest.approx(18 / math.sqrt(15 * 30), rel=1e-5)


def test_a_state_that_is_loaded_decides_as_if_nothing_had_happened() -> None:
    model, gate = network(), GradientGate(ema=0.95)
    for step in range(20):
        gate(*losses(model, step), model.named_parameters())
    size = sum(value.numel() for value in gate.state_dict().values())
    other = GradientGate(ema=0.95)
    other.load_state_dict(gate.state_dict())
    for step in range(20, 40):
        (ours, report), (theirs, again) = (
            each(*losses(model, step), model.parameters()) for each in (gate, other)
        )
        assert report == again
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
    assert gate.diagnostics() == other.diagnostics()
    # Its memory does not grow with the steps.
    assert sum(value.numel() for value in gate.state_dict().values()) == size


def test_it_reports_what_happened() -> None:
    gate, model, reports = GradientGate(ema=0.9, scope="layer"), network(), []
    for step in range(40):
        gradients, report = gate(*losses(model, step), model.parameters())
        reports.append(report)
        descend(model, gradients)
    diagnostics = gate.diagnostics()
    assert diagnostics.steps == 40
    assert 0 < diagnostics.open_fraction < 1
    assert diagnostics.open_fraction == sum(r.open for r in reports) / 40
    assert diagnostics.cosine == pytest.approx(sum(r.batch_cosine for r in reports) / 40)
    assert diagnostics.average_cosine == pytest.approx(sum(r.average_cosine for r in reports) / 40)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "sometimes"},
        {"scope": "block"},
        {"ema": 1.0},
        {"weight": -1.0},
        {"warm_up": 10**9 + 1},
    ],
)
def test_a_wrong_choice_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"the gate's {next(iter(options))}"):
        GradientGate(**options)


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
