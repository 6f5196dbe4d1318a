"""Shadow distillations raise the alarm at a distillation that leaks, and no other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit import Audited, membership
from MedEnhanceLib.spg.audit.membership import (
    Shadows,
    distill_shadows,
    lira_finding,
    shadow_finding,
)
from MedEnhanceLib.spg.audit.nearest import Gallery

Anatomy = dict[str, np.ndarray]
Make = Callable[..., Audited]
LEVEL = 0.01


def remembers(slices: Anatomy, seed: int) -> np.ndarray:
    """A faint slice of each patient over what is common to all."""
    rng = np.random.default_rng(seed)
    chosen = np.array([s[rng.integers(len(s))] for s in slices.values()])
    return (0.5 * chosen + 0.5 * np.mean([s[4] for s in slices.values()], axis=0)).astype("f4")


def forgets(slices: Anatomy, seed: int) -> np.ndarray:
    from .conftest import smooth_images

    return smooth_images(seed, len(slices))


def shadows_of(it: Audited, redistill: object, pairs: int = 4) -> Shadows:
    return distill_shadows(it, Gallery(it.patients), redistill, pairs, Monitor())


def test_a_distillation_that_remembers_is_found(people: Anatomy, audited: Make) -> None:
    real = remembers({n: s for n, s in people.items() if n.startswith("train")}, 99)
    it = audited(real)
    shadows = shadows_of(it, remembers)
    reported = shadow_finding(shadows, LEVEL)
    assert reported.alarm
    assert reported.measured["right"] > 0.8
    lira = lira_finding(it, Gallery(it.patients).nearest(real), shadows, LEVEL)
    assert lira.alarm
    assert lira.measured["auc"] > 0.95


def test_a_distillation_that_forgets_is_not(audited: Make) -> None:
    real = forgets(dict.fromkeys(range(5)), 100)
    it = audited(real)
    shadows = shadows_of(it, forgets, 2)
    assert not shadow_finding(shadows, LEVEL).alarm
    assert not lira_finding(it, Gallery(it.patients).nearest(real), shadows, LEVEL).alarm


def test_halves_are_distilled_with_their_complements_and_one_seed(audited: Make) -> None:
    seen: list[tuple[frozenset[str], int]] = []

    def redistill(slices: Anatomy, seed: int) -> np.ndarray:
        seen.append((frozenset(slices), seed))
        return forgets(slices, seed)

    it = audited(forgets(dict.fromkeys(range(5)), 1))
    shadows_of(it, redistill, 2)
    assert len(seen) == 4
    for (one, seed), (other, again) in zip(seen[::2], seen[1::2], strict=True):
        assert seed == again
        assert not one & other
        assert one | other == set(it.patients)
        assert len(one) == 5
    assert seen[0][0] not in (seen[2][0], seen[3][0])


def random_shadows(
    effect: float, pairs: int, rng: np.random.Generator, people: int = 10
) -> Shadows:
    first, second = rng.normal(0, 1, (2, pairs, people))
    is_first = rng.permuted(np.tile(np.arange(people) < people // 2, (pairs, 1)), axis=1)
    return Shadows(first + effect * is_first, second + effect * ~is_first, is_first)


def test_without_an_effect_alarms_are_as_rare_as_the_level(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_PERMUTATIONS", 99)
    p = [shadow_finding(random_shadows(0, 2, rng), LEVEL).p for _ in range(300)]
    assert np.mean(np.array(p) <= 0.1) < 0.16
