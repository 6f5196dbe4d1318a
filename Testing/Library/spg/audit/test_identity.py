"""Images are given back to their patients where they show them, and by chance where not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from MedEnhanceLib.spg.audit import AuditConfig, Audited
from MedEnhanceLib.spg.audit.identity import (
    Traits,
    Verifier,
    identify,
    smallest_identity_p,
    why_not,
)

Anatomy = dict[str, np.ndarray]
Make = Callable[..., Audited]
OWNERS = tuple(f"train{n}" for n in range(5) for _ in range(3))
LEVEL = 0.01


def blended(people: Anatomy, share: float) -> np.ndarray:
    """Three images for each training patient, of which a share is theirs."""
    theirs = np.concatenate([people[f"train{n}"][[2, 5, 8]] for n in range(5)])
    common = people["outside"][np.tile([2, 5, 8], 5)]
    return (share * theirs + (1 - share) * common).astype(np.float32)


def test_slices_are_given_back_to_everybody(people: Anatomy, audited: Make) -> None:
    finding = identify(audited(blended(people, 0.9), owners=OWNERS), AuditConfig(), LEVEL)
    assert finding.measured["rank_1"] == 1
    assert finding.p == pytest.approx(1 / 120)
    assert finding.alarm
    assert finding.measured["interval"][0] > 0.4


def test_what_is_common_to_all_is_given_back_to_nobody(people: Anatomy, audited: Make) -> None:
    """Every image looks like the same people: their nearness to all images does not count."""
    finding = identify(audited(blended(people, 0.0), owners=OWNERS), AuditConfig(), LEVEL)
    assert not finding.alarm
    assert finding.p > 0.1


def test_the_right_patients_of_the_wrong_images_are_no_leak(people: Anatomy, audited: Make) -> None:
    images = blended(people, 0.9)
    p = [
        identify(
            audited(images, owners=tuple(np.roll(OWNERS, 3 * turn).tolist())), AuditConfig(), LEVEL
        ).p
        for turn in (1, 2)
    ]
    assert min(p) > 0.2


def test_with_many_patients_some_arrangements_are_drawn() -> None:
    from .conftest import body

    training = {f"t{n}": body(70 + n, 4) for n in range(9)}
    it = Audited(
        np.stack([slices[1] for slices in training.values()]),
        training,
        {f"h{n}": body(80 + n, 4) for n in range(3)},
        owners=tuple(training),
    )
    config = AuditConfig(permutations=999)
    finding = identify(it, config, LEVEL)
    assert finding.p == smallest_identity_p(it, config) == 1e-3
    assert finding.detectable is not None
    assert finding.measured["chance"] == pytest.approx(1 / 9)


def test_the_verifier_knows_people_whom_it_has_never_seen(people: Anatomy) -> None:
    verify = Verifier({name: s for name, s in people.items() if name.startswith("held")})
    one, other = (Traits.of(people[name]) for name in ("train0", "train1"))
    same = verify(one.against(one))[~np.eye(10, dtype=bool)]
    different = verify(one.against(other))
    assert np.mean(same > 0) > 0.8
    assert np.mean(different < 0) > 0.8


def test_it_says_why_it_cannot_run(people: Anatomy, audited: Make) -> None:
    images = blended(people, 0.5)
    assert "whose it is" in why_not(audited(images))
    assert why_not(audited(images, owners=OWNERS)) == ""
    assert "fewer than two" in why_not(audited(images, owners=("train0",) * 15))
    single = {name: people[name][:1] for name in ("held0", "held1")}
    assert "one slice" in why_not(replace(audited(images, owners=OWNERS), held_out=single))


def test_the_priors_patient_is_not_asked_about(people: Anatomy, audited: Make) -> None:
    it = audited(blended(people, 0.9), owners=OWNERS, prior_owner="train2")
    assert identify(it, AuditConfig(), LEVEL).measured["patients"] == 4
