"""Likeness and copies: the alarm is raised by a copied slice, and not by a clean set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import default_rng

from MedEnhanceLib.core.imaging import gaussian_blur as blur
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.training.spg.audit import Audited, AuditReport, audit, copies
from MedEnhanceLib.training.spg.audit.similarity import (
    SliceIndex,
    fingerprints,
    lay_on,
    rotate,
    shifted,
)

from .conftest import Anatomy, Make, body


def score(image: np.ndarray, onto: np.ndarray) -> float:
    index = SliceIndex(fingerprints(onto[None]))
    return float(index.match(fingerprints(image[None].astype(np.float32))).score[0, 0])


@pytest.fixture
def anatomy(people: Anatomy) -> np.ndarray:
    return people["train0"][4]


def test_flat_images_are_like_nothing(anatomy: np.ndarray, rng: np.random.Generator) -> None:
    """Without floors two fields of noise, or a flat image and anything, might score high."""
    flat = np.full_like(anatomy, 0.5)
    noise = (flat + rng.normal(0, 0.002, (2, *flat.shape))).astype(np.float32)
    assert abs(score(flat, anatomy)) < 0.05
    assert score(noise[0], noise[1]) < 0.1
    assert score(noise[0], anatomy) < 0.1


def test_laid_on_its_slice_a_copy_has_its_brightness_and_place(
    anatomy: np.ndarray, people: Anatomy
) -> None:
    moved = 0.2 + 0.5 * shifted(anatomy, np.array([3, -1], np.int32))
    laid, ssim = lay_on(moved.astype(np.float32), anatomy, 0.0)
    assert ssim > 0.95
    inner = (slice(6, -6), slice(6, -6))
    assert np.abs(laid - anatomy)[inner].max() < 0.02
    stranger, empty = people["train1"][4], np.zeros_like(anatomy)
    assert lay_on(anatomy, stranger, 0.0)[1] < 0.5
    assert lay_on(empty, empty, 0.0)[1] == 0


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "raw": lambda x: x,
    "rotated": lambda x: rotate(x[None], 5.0)[0],
    "all of it": lambda x: (
        0.1
        + 0.7 * blur(shifted(x, np.array([2, 2], np.int32))[None], 0.8)[0]
        + default_rng(0).normal(0, 0.03, x.shape)
    ),
}


def alarms(report: AuditReport) -> list[str]:
    return [finding.attack for finding in report.alarms]


@pytest.mark.parametrize(
    "kind", ["all of it", *(pytest.param(k, marks=pytest.mark.slow) for k in ("raw", "rotated"))]
)
def test_one_copied_slice_among_twelve_images_raises_the_alarm(
    kind: str, people: Anatomy, audited: Make, of_the_prior: np.ndarray
) -> None:
    of_the_prior[7] = np.clip(COPIES[kind](people["train3"][5]), 0, 1)
    report = audit(audited(of_the_prior))
    assert "copies" in alarms(report)
    assert "ALARM" in str(report.verdict)
    suspects = report.findings[0].measured["suspects"]
    assert [(s["image"], s["patient"]) for s in suspects] == [(7, "T4")]
    worst, second = report.pairs[:2]
    assert len(report.pairs) == 5
    assert (worst.image, worst.patient) == (7, "train3")
    assert worst.score > second.score + 0.2
    assert worst.ssim > 0.4
    assert np.array_equal(worst.onto, people["train3"][5])


@pytest.mark.slow
def test_slices_of_somebody_else_alarm_no_more_often_than_alpha(people: Anatomy) -> None:
    """Real anatomy is the hardest clean set. Groups are drawn anew: their tests are exact."""
    names = [name for name in people if name != "outside"]
    people = {name: slices[2:8] for name, slices in people.items()}
    found = []
    for seed in range(8):
        drawn = np.random.default_rng(seed).permutation(names)
        groups = [{name: people[name] for name in half} for half in (drawn[:5], drawn[5:])]
        found.append(alarms(audit(Audited(body(20 + seed, 6), *groups))))
    assert not any("copies" in attacks for attacks in found)
    # 8 draws with a chance of 5 %: three or more happen once in 170 times.
    assert sum(map(bool, found)) <= 2


def test_what_a_clean_distillation_gives_raises_no_alarm(
    people: Anatomy, audited: Make, of_the_prior: np.ndarray
) -> None:
    report = audit(audited(of_the_prior, prior=people["outside"]))
    assert alarms(report) == []
    assert str(report.verdict).startswith("This audit could have found a slice that makes up")
    assert "it found none" in str(report.verdict)


def test_a_held_out_patient_in_the_set_is_a_warning_and_no_alarm(
    people: Anatomy, audited: Make, of_the_prior: np.ndarray
) -> None:
    of_the_prior[2] = people["held1"][4]
    report = audit(audited(of_the_prior))
    assert alarms(report) == []
    assert any("held-out patient is as close" in str(warning) for warning in report.warnings)
    training = {name: people[name] for name in ("train0", "train1", "train2")}
    held_out = {"held0": people["held0"], "held1": people["train1"][::-1] ** 0.9}
    report = audit(Audited(people["outside"], training, held_out))
    assert any("two names" in str(warning) for warning in report.warnings)


def test_the_search_says_how_much_of_a_copy_it_needs(
    audited: Make, of_the_prior: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PLANTS", 5)
    finding = audit(audited(of_the_prior)).findings[0]
    assert finding.detectable is not None
    assert 0.2 < finding.detectable <= 0.8
    assert f"{finding.detectable:.0%}" in str(finding.power)


@pytest.mark.slow
def test_training_that_is_nearer_throughout_is_found_without_a_single_copy(
    people: Anatomy, audited: Make, of_the_prior: np.ndarray
) -> None:
    """Every image holds a third of a training slice: too little to call any of them a copy."""
    faint = of_the_prior[:10].copy()
    for number in range(10):
        faint[number] = 0.65 * faint[number] + 0.35 * people[f"train{number % 5}"][number]
    report = audit(audited(faint, prior=people["outside"]))
    assert "likeness-ncc" in alarms(report)
    assert report.findings[1].measured["auc"] > 0.9


def test_groups_that_cannot_be_compared_are_refused(people: Anatomy) -> None:
    a, b, c, d = (people[name] for name in ("train0", "train1", "held0", "held1"))
    with pytest.raises(InputError, match="1 training patients") as caught:
        Audited(people["outside"], {"b": b}, {"c": c, "d": d})
    assert caught.value.hint
    with pytest.raises(InputError, match="1 held-out patients"):
        Audited(people["outside"], {"a": a, "b": b}, {"c": c})
    with pytest.raises(InputError, match="at once"):
        Audited(people["outside"], {"a": a, "b": b}, {"b": b, "c": c})
