"""What a gate reports of a training: shares, cosines of layers, angles; as numbers, and no more."""

from __future__ import annotations

import json
import math

import pytest
import torch
from Library.gradprom.pair import alone, descend, flat, losses, network
from torch import nn

from MedEnhanceLib.gradprom import GradientGate


def test_it_reports_what_happened() -> None:
    gate, model, reports, layers = GradientGate(ema=0.9, scope="layer"), network(), [], []
    for step in range(40):
        main, aux = losses(model, step)
        m, a = alone(main, model), alone(aux, model)
        pairs = [(flat(m[place : place + 2]), flat(a[place : place + 2])) for place in (0, 2)]
        layers.append([float(torch.cosine_similarity(*pair, dim=0)) for pair in pairs])
        gradients, report = gate(main, aux, model.named_parameters())
        reports.append(report)
        descend(model, gradients)
    reported = gate.diagnostics()
    cosines = [report.batch_cosine for report in reports]
    assert (reported.steps, reported.silent) == (40, 0)
    assert 0 < reported.open_fraction < 1
    assert reported.open_fraction == sum(r.open for r in reports) / 40
    assert reported.share == pytest.approx(sum(r.share for r in reports) / 40)
    assert reported.cosine == pytest.approx(sum(cosines) / 40)
    assert reported.average_cosine == pytest.approx(sum(r.average_cosine for r in reports) / 40)
    assert list(reported.layer_cosines) == ["0.weight", "2.weight"]
    means = [sum(column) / 40 for column in zip(*layers, strict=True)]
    assert list(reported.layer_cosines.values()) == pytest.approx(means, abs=1e-5)
    angles = [math.degrees(math.acos(cosine)) for cosine in cosines]
    bins = [sum(10 * k <= angle < 10 * k + 10 for angle in angles) for k in range(18)]
    assert list(reported.angles) == bins
    assert json.loads(json.dumps(reported.to_json()))["steps"] == 40


def test_parallel_and_opposite_gradients_are_at_the_ends() -> None:
    weight = nn.Parameter(torch.ones(3))
    gate = GradientGate()
    for factor in (2, -2, 0, math.nan):
        loss = weight.square().sum()
        gate(loss, factor * loss, [weight])
    reported = gate.diagnostics()
    assert (reported.angles[0], reported.angles[-1], sum(reported.angles)) == (1, 1, 2)
    assert (reported.steps, reported.silent, reported.open_fraction) == (4, 2, 0.25)
    assert reported.layer_cosines == {"parameter 0": pytest.approx(0, abs=1e-6)}


def test_before_the_first_step_there_is_nothing_to_tell() -> None:
    reported = GradientGate().diagnostics()
    assert (reported.steps, reported.open_fraction, reported.layer_cosines) == (0, 0, {})


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


def test_a_state_of_averages_alone_begins_a_new_record() -> None:
    model, gate = network(), GradientGate()
    gate(*losses(model, 0), model.parameters())
    averages = {name: v for name, v in gate.state_dict().items() if not name.startswith("record")}
    other = GradientGate()
    other.load_state_dict(averages)
    assert other.diagnostics().steps == 0
    assert other(*losses(model, 1), model.parameters()) is not None
