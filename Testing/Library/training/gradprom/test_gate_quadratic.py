"""What descent through a gate reaches on a problem whose answer is known.

Main ½|x|², auxiliary ½|x − b|² with |b| = 1: together they end at ⅛. Both gradients carry noise of
norm 1, correlated as the losses of one mini-batch are. 200 dimensions, rate 0.02, 400 steps, after
which all arms are at rest.
"""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np
import pytest
import torch
from Library.training.gradprom.pair import OpenGate

from MedEnhanceLib.training.gradprom.gate import GradientGate

SIZE, STEPS, RATE = 200, 400, 0.02
NOISES = {"none": (0.0, 0.0), "independent": (1.0, 0.0), "shared": (1.0, 0.9)}
ARMS = {
    "main only": partial(GradientGate, ema=0.0, weight=0.0),
    "joint": partial(OpenGate, ema=0.0),
    "published": partial(GradientGate, ema=0.0),
    "averaged": partial(GradientGate, ema=0.99),
}


@cache
def descent(arm: str, noise: str) -> tuple[float, float]:
    """Mean main loss of the second half of the steps, and how often the gate was open."""
    size, correlation = NOISES[noise]
    rng = np.random.default_rng(0)
    shift, x = (torch.from_numpy(v / np.linalg.norm(v)) for v in rng.normal(size=(2, SIZE)))
    drawn = torch.from_numpy(rng.normal(size=(2, STEPS, SIZE))) * size / math.sqrt(SIZE)
    drawn[1] = correlation * drawn[0] + math.sqrt(1 - correlation**2) * drawn[1]
    gate = ARMS[arm]()
    ends = []
    for step in range(STEPS):
        x = x.detach().requires_grad_()
        main = 0.5 * (x + drawn[0, step]).square().sum()
        aux = 0.5 * (x - shift + drawn[1, step]).square().sum()
        ((gradient,), _) = gate(main, aux, [x])
        x = x.detach() - RATE * gradient
        if step >= STEPS // 2:
            ends.append(0.5 * float(x.square().sum()))
    return float(np.mean(ends)), gate.diagnostics().open_fraction


def test_without_noise_the_published_gate_reaches_the_main_optimum() -> None:
    assert descent("published", "none")[0] < 1e-3
    assert descent("joint", "none")[0] == pytest.approx(0.125, rel=0.01)


def test_with_shared_noise_the_averaged_gate_ends_where_the_main_loss_does() -> None:
    main_only, joint = descent("main only", "shared")[0], descent("joint", "shared")[0]
    assert descent("averaged", "shared")[0] < 1.1 * main_only
    assert joint > 20 * main_only
    assert descent("published", "shared")[0] == pytest.approx(joint, rel=0.05)


def test_shared_noise_alone_keeps_the_published_gate_open() -> None:
    assert descent("published", "shared")[1] > 0.99
    assert descent("averaged", "shared")[1] < 0.5
