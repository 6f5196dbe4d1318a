"""One patient: steps, checkpoints, cancellation, exhausted memory, and the estimate of the time."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.errors import Cancelled, ConfigError, DeviceMemoryError, ModelError
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.spg import patient
from MedEnhanceLib.spg.config import TASKS, DistillConfig
from MedEnhanceLib.spg.images import axial_slices
from MedEnhanceLib.spg.matching import PatientLoop, Raw
from MedEnhanceLib.spg.networks import RHO
from MedEnhanceLib.spg.patient import distill_patient, seconds_of_a_patient

from .conftest import phantom


@pytest.fixture
def raw(smoke: DistillConfig) -> Raw:
    images = axial_slices(phantom(1), smoke.images)
    prior = axial_slices(phantom(2), smoke.images)
    return Raw(images, prior[2:4], "MR")


@pytest.mark.slow
def test_matching_lowers_the_distance_between_gradients(raw: Raw, smoke: DistillConfig) -> None:
    """Of the same patches and network, generator alone: what the loop is for."""
    config = replace(smoke, loop=replace(smoke.loop, inner=40, teaching=0, outer=1, batch=8))
    loop = PatientLoop(raw, config, "cpu")
    first = loop._rng
    loop._rng = lambda number, purpose: first(0, purpose)  # type: ignore[method-assign]
    distances = []
    for number in range(config.loop.steps):
        before = float(loop.measured[0, 0])
        loop.step(number)
        distances.append(float(loop.measured[0, 0]) - before)
    assert distances[-1] < 0.7 * distances[0]


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_distilled_and_resumed_to_the_same_bits(
    task: str, modality: str, raw: Raw, smoke: DistillConfig, tmp_path: Path
) -> None:
    config = replace(smoke, task=task)
    raw = replace(raw, modality=modality)
    whole = distill_patient(raw, config)
    assert whole.images.shape == raw.prior.shape
    assert 0 < np.abs(whole.images - raw.prior).max() <= RHO + 1e-6
    calls = iter(range(100))
    with pytest.raises(Cancelled):  # within the second network, between matches
        monitor = Monitor(cancel=lambda: next(calls) > 8)
        distill_patient(raw, config, folder=tmp_path, monitor=monitor)
    resumed = distill_patient(raw, config, folder=tmp_path)
    assert np.array_equal(resumed.images, whole.images)
    assert resumed.measured == whole.measured


def test_a_checkpoint_of_other_data_is_refused(
    raw: Raw, smoke: DistillConfig, tmp_path: Path
) -> None:
    distill_patient(raw, smoke, folder=tmp_path, hashes={"data_sha256": "a"})
    with pytest.raises(ConfigError, match="data_sha256"):
        distill_patient(raw, smoke, folder=tmp_path, hashes={"data_sha256": "b"})
    for path in tmp_path.iterdir():
        path.write_bytes(b"\\0" * 50)
    with pytest.raises(ModelError, match="damaged"):
        distill_patient(raw, smoke, folder=tmp_path, hashes={"data_sha256": "a"})


@pytest.mark.slow
def test_a_cancel_is_noticed_within_two_seconds(raw: Raw, tmp_path: Path) -> None:
    config = DistillConfig.from_json({"images": {"size": 32}, "loop": {"patch": 32}})
    requested, began = threading.Event(), []

    def listen(event: Event) -> None:
        if event.kind == "progress" and "step 30 " in event.fields["stage"]:
            began.append(time.process_time())
            requested.set()

    with pytest.raises(Cancelled):
        distill_patient(raw, config, folder=tmp_path, monitor=Monitor(listen, requested))
    assert time.process_time() - began[0] < 2  # of the processor: others may be at work
    assert list(tmp_path.glob("checkpoint*"))


def test_where_memory_ends_the_batch_is_halved_once_and_said(
    raw: Raw, smoke: DistillConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original, most = PatientLoop._match, 2

    def match(loop: PatientLoop, number: int) -> None:
        if loop.batch > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        original(loop, number)

    monkeypatch.setattr(PatientLoop, "_match", match)
    received: list[str] = []
    monitor = Monitor(lambda e: received.append(str(e.fields.get("message", ""))))
    halved = distill_patient(raw, smoke, monitor=monitor)
    assert sum("continuing with 2 patches, not 4" in message for message in received) == 1
    smaller = replace(smoke, loop=replace(smoke.loop, batch=2))
    assert np.array_equal(distill_patient(raw, smaller).images, halved.images)
    # A run that goes on stays with it.
    steps = iter(range(100))
    monitor = Monitor(cancel=lambda: next(steps) > 5)
    with pytest.raises(Cancelled):
        distill_patient(raw, smoke, folder=tmp_path, monitor=monitor)
    assert np.array_equal(distill_patient(raw, smoke, folder=tmp_path).images, halved.images)
    most = 1
    with pytest.raises(DeviceMemoryError, match="with 2 patches") as caught:
        distill_patient(raw, smoke)
    assert "smaller patches" in caught.value.hint


def test_divergence_stops_and_says_where(raw: Raw, smoke: DistillConfig) -> None:
    broken = replace(raw, images=np.full_like(raw.images, np.nan))
    with pytest.raises(ModelError, match="diverged at step 0"):
        distill_patient(broken, smoke)


@pytest.mark.parametrize("task", ["denoise", "sr2"])
def test_a_patient_takes_the_time_of_its_steps(
    smoke: DistillConfig, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine on which every step takes a second."""
    monkeypatch.setattr(patient, "_seconds", lambda loop, number: 1.0)
    assert seconds_of_a_patient(replace(smoke, task=task), "MR", "cpu") == smoke.loop.steps
