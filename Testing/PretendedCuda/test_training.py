"""Trainings on a pretended card learn what they learn on the CPU, and resume to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Library.label_maps import fields, write_label_maps
from Library.training.gradprom.pair import descend, network
from Library.training.spg.conftest import phantom
from Library.training.unicompress.implicit.conftest import waves
from PretendedCuda.device import pretended

from MedEnhanceLib.bundles.export import load_tensors
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.errors import DeviceLostError
from MedEnhanceLib.jobs.failures import device_errors
from MedEnhanceLib.learning import precision
from MedEnhanceLib.learning.precision import without_tf32
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.gate import GradientGate
from MedEnhanceLib.training.jobs.matched_networks import make_networks
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.matching import PatientLoop, Raw
from MedEnhanceLib.training.spg.patient import distill_patient
from MedEnhanceLib.training.spg.prepare import Brick, Prior
from MedEnhanceLib.training.unicompress.config import ImplicitConfig
from MedEnhanceLib.training.unicompress.two_stages import (
    ImplicitTrainer,
    TrainingBlocks,
    make_source,
)


@pytest.fixture(autouse=True)
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision of a card is no question for the CPU."""
    monkeypatch.setattr(precision, "computes_in_half", lambda _: False)


def test_the_gate_admits_the_same(cards: object) -> None:
    found: dict[str, list[Any]] = {"cpu": [], "cuda:1": []}
    for device, opened in found.items():
        gate, model = GradientGate(ema=0.9), network().to(device)
        for step in range(5):
            generator = torch.Generator().manual_seed(step)
            images, *requests = (
                torch.randn(16, n, generator=generator).to(device) for n in (6, 4, 4)
            )
            main, aux = ((model(images) - r).square().mean() for r in requests)
            gradients, report = gate(main, aux, list(model.parameters()))
            opened.append([report.open, report.cosine])
            descend(model, gradients)
    assert np.allclose(found["cpu"], found["cuda:1"], atol=1e-5)


@pytest.mark.slow
def test_a_head_is_trained(tmp_path: Path) -> None:
    from MedEnhanceLib.training.gradprom.heads import train_head

    config, maps = TrainHeadConfig.from_json(fields()), write_label_maps(tmp_path / "maps", 1)
    wanted = load_tensors(read_bundle(train_head(config, maps, tmp_path / "cpu")))
    with pretended():
        bundle = train_head(replace(config, device="cuda:1"), maps, tmp_path / "card")
    found = load_tensors(read_bundle(bundle))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        scale = float(tensor.abs().max()) + 1e-6
        assert float((found[name] - tensor).abs().max()) < 2e-3 * scale, name


@pytest.mark.slow
def test_distilling_agrees_and_goes_on_elsewhere_where_a_card_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = DistillConfig.preset("smoke")
    config = replace(preset, method="matching", checkpoint_s=0.0)
    patient, other = (Brick.of(phantom(seed, "MR")) for seed in (1, 2))
    prior = Prior(other.voxels[None], ((5.0, 3.0),), "file")
    data, step = Raw([patient], prior, "MR"), PatientLoop.step
    wanted = distill_patient(data, config, make_networks, "cpu")[0]
    begun = []

    def lose(loop: PatientLoop, number: int) -> None:
        begun.append(number)
        if loop.device == "cuda" and number == 3:
            raise RuntimeError("CUDA error: unspecified launch failure")
        step(loop, number)

    monkeypatch.setattr(PatientLoop, "step", lose)
    lost = pytest.raises(DeviceLostError, match="stopped answering")
    with pretended():
        with lost as caught, device_errors():
            distill_patient(data, config, make_networks, "cuda", folder=tmp_path)
        assert "resume" in caught.value.hint
        # A checkpoint is of no card.
        found = distill_patient(data, config, make_networks, "cuda:1", folder=tmp_path)[0]
    assert begun.count(2) == 1  # it did not begin anew
    assert np.abs(found - wanted).max() < 1e-4


@pytest.mark.slow
def test_the_implicit_network_learns_the_same() -> None:
    config = replace(ImplicitConfig.preset("smoke"), teacher_steps=2, student_steps=4)
    sources = [make_source(waves((34, 70, 66)))]
    blocks = TrainingBlocks(sources)

    def learned(device: str) -> list[dict[str, float]]:
        trainer = ImplicitTrainer(config, blocks, device)
        return [trainer.step(number) for number in range(config.steps)]

    wanted = learned("cpu")
    with pretended(), without_tf32:
        found = learned("cuda:1")
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
