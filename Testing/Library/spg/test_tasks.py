"""Task pairs: the physics of `degrade`, the same numbers for raw and distilled, and a gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MedEnhanceLib.degrade import low_dose_noise, rician_noise
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.spg.config import TASKS, DamageConfig, DistillConfig
from MedEnhanceLib.spg.tasks import Rician, make_task

from .conftest import phantom

ALL = [(task, modality) for task in TASKS for modality in ("MR", "CT")]
ALL.remove(("undersample", "CT"))


def images(count: int = 3) -> np.ndarray:
    voxels = phantom(1).voxels[2 : 2 + count, :32, :28].astype(np.float32)
    return np.pad(np.clip(voxels / 900, 0, 1), ((0, 0), (0, 0), (2, 2)))


@pytest.mark.parametrize(("name", "modality"), ALL)
def test_the_same_seed_does_the_same_damage_and_another_one_other(name: str, modality: str) -> None:
    task = make_task(replace(DistillConfig(), task=name, damage=DamageConfig(views=24)), modality)
    whole = images()
    damaged = task.damaged(whole, 3)
    assert damaged.shape == whole.shape
    assert damaged.dtype == np.float32
    assert np.isfinite(damaged).all()
    assert 0.001 < np.abs(damaged - whole).mean() < 0.2
    assert np.array_equal(task.damaged(whole, 3), damaged)
    drawn = not name.startswith("sr")
    assert (not np.array_equal(task.damaged(whole, 4), damaged)) is drawn
    # What later images are changes nothing for the first ones.
    assert np.allclose(task.damaged(whole, 3)[:1], damaged[:1])


@pytest.mark.parametrize(("name", "modality"), ALL)
def test_the_damage_can_be_differentiated(name: str, modality: str) -> None:
    task = make_task(replace(DistillConfig(), task=name, damage=DamageConfig(views=24)), modality)
    whole = torch.zeros(2, 1, 32, 32).requires_grad_()  # where a root has no slope
    drawn = task.draw(whole, np.random.default_rng(0))
    task.damage(whole, drawn).sum().backward()
    assert whole.grad is not None
    assert torch.isfinite(whole.grad).all()


def test_noise_of_mr_is_that_of_the_library() -> None:
    whole = images()
    task = Rician(0.06, 0.06)
    drawn = task.draw(torch.from_numpy(whole)[:, None], np.random.default_rng(5))
    ours = task.damage(torch.from_numpy(whole)[:, None], drawn).numpy()[:, 0]
    theirs = rician_noise(whole, 0.06, np.random.default_rng(6))
    inside = whole > 0.2
    assert np.std((ours - whole)[inside]) == pytest.approx(
        np.std((theirs - whole)[inside]), rel=0.1
    )
    assert ours[whole == 0].mean() == pytest.approx(theirs[whole == 0].mean(), rel=0.1)


def test_noise_of_ct_is_that_of_the_dose_that_is_left_out() -> None:
    config = replace(DistillConfig(), damage=DamageConfig(views=360, dose=0.25))
    whole = images()
    ours = make_task(config, "CT").damaged(whole, 3) - whole
    hu = whole * 2000 - 1000
    theirs = low_dose_noise(hu, (1, 1, 1), 2200, 0.0, np.random.default_rng(3)) / 2000
    assert np.allclose(ours, theirs, atol=1e-6)
    half = replace(config, damage=DamageConfig(views=360, dose=0.5))
    weaker = make_task(half, "CT").damaged(whole, 3) - whole
    assert weaker.std() < 0.8 * ours.std()


def test_a_quarter_of_the_lines_is_measured_and_the_middle_among_them() -> None:
    task = make_task(replace(DistillConfig(), task="undersample"), "MR")
    masks = task.draw(torch.zeros(6, 1, 64, 32), np.random.default_rng(0))
    assert masks.shape == (6, 1, 64, 1)
    assert masks.sum(dim=(1, 2, 3)).tolist() == [16.0] * 6
    assert masks[:, 0, [0, 1, 2, -1, -2], 0].all()
    assert not torch.equal(masks[0], masks[1])


def test_undersampling_is_no_task_of_ct() -> None:
    with pytest.raises(ConfigError, match="undersample is a task of MR"):
        make_task(replace(DistillConfig(), task="undersample"), "CT")
