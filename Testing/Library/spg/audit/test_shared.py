"""The alarm on real MR of sarcoma patients: one leaked slice, and clean sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.degrade import gaussian_blur as blur
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit import Audited, audit
from MedEnhanceLib.spg.audit.nearest import CopySearch, Gallery
from MedEnhanceLib.spg.audit.similarity import shifted

pytestmark = pytest.mark.shared
SIDE = 96
TRAINING = ("STS_002", "STS_008", "STS_012", "STS_018", "STS_024")
HELD_OUT = ("STS_003", "STS_010", "STS_015", "STS_019")
OUTSIDE = "STS_025"


@pytest.fixture(scope="module")
def slices(shared_data: Path) -> dict[str, np.ndarray]:
    """Every other slice, by patient, in the middle of 96 × 96 pixels."""
    names = (*TRAINING, *HELD_OUT, OUTSIDE)
    return {name: fitted(shared_data / f"mr/sts/{name}/MR_T1.nii.gz") for name in names}


def fitted(path: Path) -> np.ndarray:
    voxels = load(path).voxels[::2].astype(np.float32)
    images = np.clip(voxels / np.percentile(voxels, 99.5), 0, 1)
    for axis in (1, 2):
        short = max(0, SIDE - images.shape[axis])
        widths = [(0, 0)] * 3
        widths[axis] = (short // 2, short - short // 2)
        images = np.pad(images, widths)
        start = (images.shape[axis] - SIDE) // 2
        images = np.take(images, range(start, start + SIDE), axis)
    return images


@pytest.fixture(scope="module")
def clean(slices: dict[str, np.ndarray]) -> np.ndarray:
    """What a distillation without a leak gives: slices of the prior's patient, changed."""
    base = slices[OUTSIDE][np.arange(10) % len(slices[OUTSIDE])]
    rng = np.random.default_rng(5)
    blobs = blur(rng.standard_normal(base.shape).astype(np.float32), 2.5)
    return np.clip(base + 0.15 * np.tanh(0.5 * blobs / blobs.std()), 0, 1).astype(np.float32)


def audited(slices: dict[str, np.ndarray], images: np.ndarray) -> Audited:
    groups = [{name: slices[name] for name in group} for group in (TRAINING, HELD_OUT)]
    return Audited(images, *groups, prior=slices[OUTSIDE], prior_owner=OUTSIDE)


@pytest.mark.slow
def test_one_leaked_slice_raises_the_alarm_and_a_clean_set_does_not(
    slices: dict[str, np.ndarray], clean: np.ndarray
) -> None:
    """Shifted, blurred, noisy and of another brightness at once."""
    rng = np.random.default_rng(3)
    leaked = clean.copy()
    copied = 0.1 + 0.7 * blur(slices["STS_012"][[9]], 0.8)[0]
    copied = shifted(copied, np.array([4, 2], np.int32)) + rng.normal(0, 0.04, copied.shape)
    leaked[6] = np.clip(copied, 0, 1)
    report = audit(audited(slices, leaked))
    assert [finding.attack for finding in report.alarms] == ["copies"]
    assert (report.pairs[0].image, report.pairs[0].patient) == (6, "STS_012")
    report = audit(audited(slices, clean))
    assert not report.alarm
    assert report.findings[0].detectable is not None
    assert report.findings[0].detectable <= 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", [TRAINING[1], HELD_OUT[1]])
def test_slices_of_one_person_are_no_copies_of_another(
    name: str, slices: dict[str, np.ndarray]
) -> None:
    """A distilled set of somebody's real slices, against everybody else."""
    others = {k: v for k, v in slices.items() if k != name}
    names = list(others)
    it = Audited(slices[name], {k: others[k] for k in names[:5]}, {k: others[k] for k in names[5:]})
    gallery = Gallery(it.patients)
    search = CopySearch(it, gallery, gallery.nearest(it.distilled), Monitor())
    assert search.p() > 0.1
    assert search.most_alike < 0.6
