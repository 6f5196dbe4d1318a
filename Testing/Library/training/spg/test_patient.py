"""One patient: steps, checkpoints, cancellation, exhausted memory."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from MedEnhanceLib.errors import Cancelled, ConfigError, DeviceMemoryError, ModelError
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.training.jobs.matched_networks import make_networks
from MedEnhanceLib.training.spg import matching
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.generator import RHO
from MedEnhanceLib.training.spg.matching import PatientLoop, Raw
from MedEnhanceLib.training.spg.patient import distill_patient
from MedEnhanceLib.training.spg.prepare import Brick, Prior

from .conftest import phantom


@pytest.fixture
def raw() -> Raw:
    return raw_of("MR")


def raw_of(modality: str) -> Raw:
    prior = Brick.of(phantom(2, modality)).voxels[None]
    return Raw([Brick.of(phantom(1, modality))], Prior(prior, ((5.0, 3.0),), "file"), modality)


run = partial(distill_patient, make_networks=make_networks)


class OfSameCrops(PatientLoop):
    """A loop whose steps draw the same numbers, and move the generator farther."""

    rate = 1e-2

    def rng(self, number: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng(purpose)


@pytest.mark.slow
def test_matching_lowers_the_distance_between_gradients(raw: Raw, smoke: DistillConfig) -> None:
    """Of the same crops and network, generator alone: what the loop is for."""
    seeds, steps, drawn = 2, 24, 0.02
    config = replace(smoke, loop=replace(smoke.loop, inner=steps, teaching=0, outer=1))
    ratios = []
    for seed in range(seeds):
        loop = OfSameCrops(raw, config, make_networks, "cpu")
        network, random = loop.networks[0], torch.Generator().manual_seed(seed)
        network.restart(seed)
        with torch.no_grad():  # as after some training: a new network has hardly a gradient
            for weight in network.module.parameters():
                weight.add_(drawn * torch.randn(weight.shape, generator=random))
        network.restart = lambda seed: None  # type: ignore[method-assign]
        distances = []
        for number in range(steps):
            before = float(loop.measured[0, 0])
            loop.step(number)
            distances.append(float(loop.measured[0, 0]) - before)
        third = steps // 3
        ratios.append(np.mean(distances[-third:]) / np.mean(distances[:third]))
    assert np.mean(ratios) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("modality", "stops"), [("MR", (1, 3, 2)), ("CT", (4,))])
def test_every_modality_is_distilled_and_resumed_to_the_same_bits(
    modality: str, stops: tuple[int, ...], smoke: DistillConfig, tmp_path: Path
) -> None:
    raw, config = raw_of(modality), replace(smoke, loop=replace(smoke.loop, outer=2, inner=2))
    whole, measured = run(raw, config)
    assert whole.shape == raw.prior.volumes.shape
    assert 0 < np.abs(whole - raw.prior.volumes).max() <= RHO + 1e-6
    assert measured["change"] > 0
    for stop in stops:  # one after another: within the first networks and the second
        calls = iter(range(100))
        monitor = Monitor(cancel=lambda calls=calls, stop=stop: next(calls) > stop)
        with pytest.raises(Cancelled):
            run(raw, config, folder=tmp_path, monitor=monitor)
    resumed, measured_again = run(raw, config, folder=tmp_path)
    assert np.array_equal(resumed, whole)
    assert measured_again == measured


def test_a_checkpoint_of_other_data_is_refused(
    raw: Raw, smoke: DistillConfig, tmp_path: Path
) -> None:
    run(raw, smoke, folder=tmp_path, hashes={"data_sha256": "a"})
    with pytest.raises(ConfigError, match="data_sha256"):
        run(raw, smoke, folder=tmp_path, hashes={"data_sha256": "b"})
    for path in tmp_path.iterdir():
        path.write_bytes(b"\\0" * 50)
    with pytest.raises(ModelError, match="damaged"):
        run(raw, smoke, folder=tmp_path, hashes={"data_sha256": "a"})


@pytest.mark.slow
def test_a_cancel_is_noticed_within_two_seconds(
    raw: Raw, smoke: DistillConfig, tmp_path: Path
) -> None:
    config = replace(smoke, loop=replace(smoke.loop, full_size=True, outer=9))
    requested, began = threading.Event(), []

    def listen(event: Event) -> None:
        if event.kind == "progress" and "step 6 " in event.fields["stage"]:
            began.append(time.process_time())
            requested.set()

    with pytest.raises(Cancelled):
        run(raw, config, folder=tmp_path, monitor=Monitor(listen, requested))
    assert time.process_time() - began[0] < 2  # of the processor: others may be at work
    assert list(tmp_path.glob("checkpoint*"))


@pytest.mark.slow
def test_where_memory_ends_the_batch_is_halved_once_and_said(
    raw: Raw, smoke: DistillConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    smoke = replace(smoke, loop=replace(smoke.loop, batch=4, teaching=0, inner=4))
    original, most = PatientLoop.match, 2

    def match(loop: PatientLoop, number: int, place: int) -> None:
        if loop.batch > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        original(loop, number, place)

    monkeypatch.setattr(PatientLoop, "match", match)
    received: list[str] = []
    steps = iter(range(100))
    monitor = Monitor(
        lambda e: received.append(str(e.fields.get("message", ""))), lambda: next(steps) > 2
    )
    with pytest.raises(Cancelled):
        run(raw, smoke, folder=tmp_path, monitor=monitor)
    # A run that goes on stays with it.
    halved, _ = run(raw, smoke, folder=tmp_path)
    assert sum("continuing with 2 crops, not 4" in message for message in received) == 1
    smaller = replace(smoke, loop=replace(smoke.loop, batch=2))
    assert np.array_equal(run(raw, smaller)[0], halved)
    most = 1
    with pytest.raises(DeviceMemoryError, match="with 2 crops") as caught:
        run(raw, smoke)
    assert "fewer crops" in caught.value.hint


def test_divergence_stops_and_says_where(
    raw: Raw, smoke: DistillConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "cosine_distance", lambda raw, _: raw[0].sum() * np.nan)
    with pytest.raises(ModelError, match="diverged at step 1"):
        run(raw, smoke)
