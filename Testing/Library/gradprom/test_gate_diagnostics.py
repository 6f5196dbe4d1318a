"""What a gate reports of a training: shares and cosines; as numbers, and no more."""

from __future__ import annotations

import json
import math

import pytest
import torch
from Library.gradprom.pair import descend, losses, network
from torch import nn

from MedEnhanceLib.gradprom import GradientGate


def test_it_reports_what_happened() -> None:
    gate, model, reports = GradientGate(ema=0.9, scope="layer"), network(), []
    for step in range(40):
        gradients, report = gate(*losses(model, step), model.named_parameters())
        reports.append(report)
        descend(model, gradients)
    reported = gate.diagnostics()
    assert (reported.steps, reported.silent) == (40, 0)
    assert 0 < reported.open_fraction < 1
    assert reported.open_fraction == sum(r.open for r in reports) / 40
    assert reported.share == pytest.approx(sum(r.share for r in reports) / 40)
    assert reported.cosine == pytest.approx(sum(r.batch_cosine for r in reports) / 40)
    assert reported.average_cosine == pytest.approx(sum(r.average_cosine for r in reports) / 40)
    assert json.loads(json.dumps(reported.to_json()))["steps"] == 40


def test_steps_without_an_angle_are_counted_apart() -> None:
    weight = nn.Parameter(torch.ones(3))
    gate = GradientGate()
    for factor in (2, -2, 0, math.nan):
        loss = weight.square().sum()
        gate(loss, factor * loss, [weight])
    reported = gate.diagnostics()
    assert (reported.steps, reported.silent, reported.open_fraction) == (4, 2, 0.25)
    assert reported.cosine == pytest.approx(0, abs=1e-6)


def test_memory_does_not_grow_with_the_steps() -> None:
    gate, model, sizes = GradientGate(), network(), []
    for step in range(20):
        gate(*losses(model, step), model.parameters())
        sizes.append(sum(value.numel() for value in gate.state_dict().values()))
    assert len(set(sizes)) == 1


def test_a_resumed_training_goes_on_reporting() -> None:
    model, straight, first = network(), GradientGate(), GradientGate()
    for step in range(6):
        straight(*losses(model, step), model.named_parameters())
        if step == 3:
            resumed = GradientGate()
            resumed.load_state_dict(first.state_dict())
            first = resumed
        first(*losses(model, step), model.named_parameters())
    assert first.diagnostics() == straight.diagnostics()
