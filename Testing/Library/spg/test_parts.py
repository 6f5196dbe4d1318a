"""Configuration, distances of gradients, and tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MedEnhanceLib.degradation.lowdose import low_dose_noise
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.spg.config import TASKS, DistillConfig, LoopConfig
from MedEnhanceLib.spg.objective import cosine_distance, relative_distance
from MedEnhanceLib.spg.tasks import make_task

from .conftest import phantom


@pytest.mark.parametrize("distance", [cosine_distance, relative_distance])
def test_equal_gradients_are_at_no_distance(distance: object) -> None:
    raw = [torch.randn(9), torch.randn(40)]
    assert callable(distance)
    assert float(distance(raw, [each.clone() for each in raw])) == pytest.approx(0, abs=1e-5)
    assert float(distance(raw, [-each for each in raw])) > 3
    # One that is exactly nothing, as of a layer that is dead, has a slope that is a number.
    nothing = [torch.zeros_like(each).requires_grad_() for each in raw]
    distance(raw, nothing).backward()
    assert all(torch.isfinite(each.grad).all() for each in nothing)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"task": "segment"}, "segment"),
        ({"images_per_patient": 0}, "images_per_patient"),
        ({"loop": {"patch": 128}}, "larger than images"),
        ({"images": {"size": 100}}, "size is 100"),
        ({"license": "CC0\n# Not so"}, "license is"),
        ({"license": "CC0 "}, "license is"),
    ],
)
def test_what_cannot_be_configured_is_said(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DistillConfig.from_json(fields)


def test_a_configuration_goes_through_json_and_names_nobody() -> None:
    config = DistillConfig.from_json(
        {"preset": "smoke", "prior": "patient:SMITH", "loop": {"outer": 7}, "task": "sr2"}
    )
    assert config.loop == replace(DistillConfig.preset("smoke").loop, outer=7)
    reported = config.record()
    assert reported["prior"] == "patient"
    assert DistillConfig.from_json({**reported, "prior": "patient:SMITH"}).record() == reported
    assert LoopConfig(outer=3, inner=2, teaching=4).steps == 30


def images(count: int = 3) -> np.ndarray:
    voxels = phantom(1).voxels[2 : 2 + count, :32, :28].astype(np.float32)
    return np.pad(np.clip(voxels / 900, 0, 1), ((0, 0), (0, 0), (2, 2)))


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("name", TASKS)
def test_the_damage_follows_the_seed_and_can_be_differentiated(name: str, modality: str) -> None:
    task = make_task(DistillConfig(task=name), modality)
    whole = images()
    damaged = task.damaged(whole, 3)
    assert damaged.shape == whole.shape
    assert damaged.dtype == np.float32
    assert np.isfinite(damaged).all()
    assert 0.001 < np.abs(damaged - whole).mean() < 0.2
    assert np.array_equal(task.damaged(whole, 3), damaged)
    drawn = not name.startswith("sr")
    assert (not np.array_equal(task.damaged(whole, 4), damaged)) is drawn
    empty = torch.zeros(2, 1, 32, 32).requires_grad_()  # where a root has no slope
    task.damage(empty, task.draw(empty, np.random.default_rng(0))).sum().backward()
    assert empty.grad is not None
    assert torch.isfinite(empty.grad).all()


def test_noise_of_ct_is_that_of_the_dose_that_is_left_out() -> None:
    """At a quarter of the full dose of 6,600 photons × a quarter: 2,200 of 360 views, in 120."""
    whole = images()
    ours = make_task(DistillConfig(), "CT").damaged(whole, 3) - whole
    hu, rng = whole * 2000 - 1000, np.random.default_rng(3)
    theirs = low_dose_noise(hu, (1, 1, 1), 3 * 2200, 0.0, rng, views=120) / 2000
    assert np.allclose(ours, theirs, atol=1e-6)
