"""The nearest slice of each patient to each distilled image, and the attack "likeness".

Are training patients nearer than held-out ones? A patient's figure is the highest similarity of any
of their slices to any distilled image. If the prior is known, the figure that the prior alone
reaches is subtracted: some anatomies are close to everything. If patients were assigned at random,
their figures are exchangeable without a leak, and the rank-sum test on them is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Floats, Numbers
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import text
from MedEnhanceLib.training.spg.audit.records import Audited, Finding
from MedEnhanceLib.training.spg.audit.significance import (
    auc,
    auc_interval,
    rank_sum_p,
    smallest_detectable_auc,
)
from MedEnhanceLib.training.spg.audit.similarity import SliceIndex, fingerprints, lay_on

#: Largest correlation before Fisher's transform, whose value at 1 is infinite.
_PERFECT = 0.9995
WORST_PAIRS = 5
#: Images registered to each patient's slices: SSIM is slow, and low where details differ.
_LAID = 5


@dataclass(frozen=True)
class Nearest:
    """Nearest slice of each patient (column) to each image (row), [N, C].

    Attributes:
        score: correlation, −1 to 1.
        place: number of the patient's slice.
        angle_deg: rotation of the image onto the slice.
    """

    patients: tuple[str, ...]
    score: Floats
    place: Numbers
    angle_deg: Floats

    @property
    def z(self) -> Doubles:
        """The scores on Fisher's scale, on which their spread hardly depends on their value."""
        scores: Doubles = np.clip(self.score.astype(np.float64), -_PERFECT, _PERFECT)
        return np.arctanh(scores)

    def columns(self, patients: Iterable[str]) -> list[int]:
        """Find the columns of these patients."""
        return [self.patients.index(patient) for patient in patients]

    def per_patient(self) -> dict[str, float]:
        """Return the highest similarity to any image, on Fisher's scale."""
        return dict(zip(self.patients, self.z.max(axis=0).tolist(), strict=True))


@dataclass(frozen=True)
class Pair:
    """Distilled image, by its number, and its nearest slice.

    Attributes:
        score: correlation of details.
        ssim: after registration.
        laid: [H, W], the image registered to `onto`, the slice [H, W].
    """

    image: int
    patient: str
    score: float
    ssim: float
    laid: Floats
    onto: Floats


class Gallery:
    """The slices of all tested patients, prepared once for comparison."""

    def __init__(self, patients: Mapping[str, Floats]) -> None:
        self.slices = dict(patients)
        counts = [len(images) for images in patients.values()]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        prints = [fingerprints(images) for images in patients.values()]
        self._index = SliceIndex(np.concatenate(prints))

    def nearest(self, images: Floats, monitor: Monitor | None = None) -> Nearest:
        """Compare images [N, H, W] with every patient."""
        matches = self._index.match(fingerprints(images), monitor=monitor)
        rows = np.arange(len(images))
        scores, places, angles = [], [], []
        for start, end in pairwise(self._starts.tolist()):
            place = matches.score[:, start:end].argmax(axis=1)
            places.append(place)
            scores.append(matches.score[rows, start + place])
            angles.append(matches.angle_deg[rows, start + place])
        return Nearest(tuple(self.slices), *(np.stack(x, axis=1) for x in (scores, places, angles)))

    def ssim(self, images: Floats, nearest: Nearest, monitor: Monitor) -> dict[str, float]:
        """Measure by patient the highest SSIM of the nearest images, registered to their slices.

        Args:
            images: [N, H, W].
            nearest: of these images; the five nearest to each patient are registered.
            monitor: receives progress; may cancel.
        """
        best = {}
        for column, name in enumerate(nearest.patients):
            monitor.progress(column / len(nearest.patients), "registering images to slices")
            rows = np.argsort(-nearest.score[:, column], kind="stable")[:_LAID]
            best[name] = max(self._laid(images, nearest, row, column)[1] for row in rows)
        return best

    def _laid(
        self, images: Floats, nearest: Nearest, row: int, column: int
    ) -> tuple[Floats, float]:
        """Register an image to a patient's nearest slice by `lay_on`."""
        onto = self.slices[nearest.patients[column]][nearest.place[row, column]]
        return lay_on(images[row], onto, float(nearest.angle_deg[row, column]))

    def worst_pairs(self, images: Floats, nearest: Nearest, among: Iterable[str]) -> list[Pair]:
        """Find the five images nearest to any of some patients, the nearest first.

        Args:
            images: [N, H, W].
            nearest: of these images.
            among: names of the patients.
        """
        columns = nearest.columns(among)
        scores = nearest.score[:, columns]
        pairs = []
        for row in np.argsort(-scores.max(axis=1), kind="stable")[:WORST_PAIRS]:
            column = columns[int(scores[row].argmax())]
            patient, score = nearest.patients[column], float(nearest.score[row, column])
            laid, ssim = self._laid(images, nearest, row, column)
            onto = self.slices[patient][nearest.place[row, column]]
            pairs.append(Pair(int(row), patient, score, ssim, laid, onto))
        return pairs


def likeness(
    audited: Audited, gallery: Gallery, nearest: Nearest, level: float, monitor: Monitor
) -> list[Finding]:
    """Test whether training patients are nearer than held-out ones, by correlation and by SSIM.

    Args:
        audited: the set and the patients; what its prior reaches, if any, is subtracted.
        gallery: slices of all its patients.
        nearest: of the set's images in the gallery.
        level: of each of the two tests, 0 to 1.
        monitor: receives progress; may cancel.
    """
    details = nearest.per_patient()
    structure = gallery.ssim(audited.distilled, nearest, monitor.part(0.0, 0.8))
    if audited.prior is not None:
        prior_nearest = gallery.nearest(audited.prior)
        prior_ssim = gallery.ssim(audited.prior, prior_nearest, monitor.part(0.8, 1.0))
        details = {name: z - prior_nearest.per_patient()[name] for name, z in details.items()}
        structure = {name: value - prior_ssim[name] for name, value in structure.items()}
    return [
        _compare_groups(audited, details, level, "likeness-ncc", "details, NCC"),
        _compare_groups(audited, structure, level, "likeness-ssim", "structure, SSIM"),
    ]


def _compare_groups(
    audited: Audited, figures: Mapping[str, float], level: float, attack: str, measure: str
) -> Finding:
    """Test whether a figure per patient is higher in training, which a leak causes."""
    training = [figures[name] for name in audited.training]
    held_out = [figures[name] for name in audited.held_out]
    used, others = len(training), len(held_out)
    value = auc(training, held_out)
    low, high = auc_interval(value, used, others)
    detectable = smallest_detectable_auc(used, others, level)
    groups = {"used": used, "others": others, "detectable": detectable}
    key = "likeness_blind" if detectable is None else "likeness_power"
    return Finding(
        attack=attack,
        found=text("likeness", measure=measure, auc=value, low=low, high=high),
        p=rank_sum_p(training, held_out),
        level=level,
        detectable=detectable,
        power=text(key, **groups),
        finds=text("likeness_finds", measure=measure, detectable=detectable or 1.0),
        measured={"auc": value, "interval": [low, high]},
    )
