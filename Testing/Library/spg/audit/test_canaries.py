"""Planted lesions are found where a distillation copies them, and not where it does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit import AuditConfig, Audited, Finding
from MedEnhanceLib.spg.audit.canaries import make_canaries, plant_canaries

Anatomy = dict[str, np.ndarray]
Make = Callable[..., Audited]
LEVEL = 0.01


def plant(it: Audited, redistill: object, seed: int = 0) -> Finding:
    return plant_canaries(it, redistill, AuditConfig(seed=seed), LEVEL, Monitor())


def copying(slices: Anatomy, seed: int) -> np.ndarray:
    """The middle slice of every patient, blurred a little and with noise."""
    from MedEnhanceLib.spg.audit.similarity import blur

    middle = blur(np.stack([s[len(s) // 2] for s in slices.values()]), 0.6)
    return (
        (middle + np.random.default_rng(seed).normal(0, 0.02, middle.shape))
        .clip(0, 1)
        .astype(np.float32)
    )


def blending(slices: Anatomy, seed: int) -> np.ndarray:
    """A third of it is somebody else."""
    from .conftest import body

    return (0.65 * copying(slices, seed) + 0.35 * body(60)[: len(slices)]).astype(np.float32)


def clean(slices: Anatomy, seed: int) -> np.ndarray:
    from .conftest import body

    return body(40 + seed)


def test_copied_lesions_are_found(people: Anatomy, audited: Make) -> None:
    finding = plant(audited(people["outside"]), copying)
    assert finding.alarm
    assert finding.measured["recovered"] == finding.measured["planted"] == 5
    assert finding.detectable is not None
    assert finding.detectable < 0.9


@pytest.mark.parametrize("seed", range(4))
def test_lesions_that_were_not_copied_are_not(seed: int, people: Anatomy, audited: Make) -> None:
    finding = plant(audited(people["outside"]), clean, seed)
    assert not finding.alarm
    assert finding.measured["recovered"] == 0


def test_lesions_of_two_thirds_of_their_strength_are_found(people: Anatomy, audited: Make) -> None:
    assert plant(audited(people["outside"]), blending).alarm


def test_raw_slices_hold_the_lesion_in_their_middle_third(people: Anatomy, audited: Make) -> None:
    it = audited(people["outside"])
    for canary in make_canaries(it, AuditConfig()):
        raw = it.training[canary.patient]
        changed = np.abs(canary.planted(raw) - raw).max(axis=(1, 2))
        assert (changed > 0).tolist() == [False] * 3 + [True] * 4 + [False] * 3
        assert np.array_equal(raw, people[canary.patient])


def test_no_two_lesions_are_alike(audited: Make, people: Anatomy) -> None:
    canaries = make_canaries(audited(people["outside"]), AuditConfig(decoys=30))
    lesions = np.concatenate([c.lesions.reshape(len(c.lesions), -1) for c in canaries])
    alike = np.corrcoef(lesions)
    assert np.max(alike - np.eye(len(alike))) < 0.75


def test_ranks_of_lesions_nobody_planted_are_evenly_spread(audited: Make, people: Anatomy) -> None:
    """On any images whatever, the "planted" one is no more visible than its decoys."""
    ranks = [
        canary.rank(people["held2"])
        for seed in range(12)
        for canary in make_canaries(audited(people["outside"]), AuditConfig(seed=seed, decoys=19))
    ]
    assert 7 < np.mean(ranks) < 14
    assert min(ranks) <= 3
    assert max(ranks) >= 18


def test_lesions_in_black_images_prove_nothing() -> None:
    """Clipped away to half in the air, they may still be legible; the audit counts those alone."""
    black = np.zeros((9, 48, 48), np.float32)
    it = Audited(black, {"a": black, "b": black}, {"c": black, "d": black})
    finding = plant(it, lambda slices, seed: black)
    assert not finding.alarm
    assert finding.measured["recovered"] == 0
