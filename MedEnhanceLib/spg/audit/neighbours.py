"""The nearest slice of each patient to each distilled image, and whether training is nearer.

A patient's figure is the highest similarity of any of their slices to any distilled image. Where
the prior is known, what the prior alone reaches is subtracted: some anatomies are close to
everything. If patients were put at random into training and held-out, their figures are
exchangeable without a leak, whatever the figure is: the rank-sum test on them is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit.audited import Audited
from MedEnhanceLib.spg.audit.findings import Finding
from MedEnhanceLib.spg.audit.registration import Laid, lay_on
from MedEnhanceLib.spg.audit.similarity import Floats, Searched, fingerprints
from MedEnhanceLib.spg.audit.statistics import (
    auc,
    auc_interval,
    rank_sum_p,
    smallest_detectable_auc,
    smallest_rank_sum_p,
)

#: Fisher's transform of a perfect match; copies differ by rounding, and infinity has no mean.
_PERFECT = 0.9995
WORST_PAIRS = 5
#: Images that are laid on each patient's slices: SSIM takes long, and is low where details differ.
_LAID = 5


@dataclass(frozen=True)
class Nearest:
    """The nearest slice of each patient to each image.

    patients: the columns. score: [N, C], −1 to 1. place: [N, C], which of the patient's slices.
    angle_deg: [N, C], by which the image is turned to lie on it.
    """

    patients: tuple[str, ...]
    score: Floats
    place: npt.NDArray[np.intp]
    angle_deg: Floats

    @property
    def z(self) -> npt.NDArray[np.float64]:
        """The scores on Fisher's scale, where their spread hardly depends on their size."""
        clipped = np.clip(self.score.astype(np.float64), -_PERFECT, _PERFECT)
        scale: npt.NDArray[np.float64] = np.arctanh(clipped)
        return scale

    def columns(self, patients: Sequence[str]) -> list[int]:
        """Where these patients are."""
        return [self.patients.index(patient) for patient in patients]

    def per_patient(self) -> dict[str, float]:
        """The highest similarity to any image, on Fisher's scale."""
        return dict(zip(self.patients, self.z.max(axis=0).tolist(), strict=True))


@dataclass(frozen=True)
class Pair:
    """A distilled image and its nearest slice.

    image, place: numbers of the distilled image and of the patient's slice, from 0 on.
    laid: [H, W], the image as it lies on the slice. onto: [H, W], that slice.
    """

    image: int
    patient: str
    place: int
    score: float
    ssim: float
    laid: Floats
    onto: Floats


class Gallery:
    """The slices of all tested patients as they are compared, made once."""

    def __init__(self, patients: Mapping[str, Floats]) -> None:
        self.slices = dict(patients)
        counts = [len(images) for images in patients.values()]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        prints = [fingerprints(images) for images in patients.values()]
        self._searched = Searched(np.concatenate(prints))

    def nearest(self, images: Floats, monitor: Monitor | None = None) -> Nearest:
        """Images [N, H, W] against every patient."""
        found = self._searched.match(fingerprints(images), monitor=monitor)
        rows = np.arange(len(images))
        scores, places, angles = [], [], []
        for start, end in pairwise(self._starts.tolist()):
            place = found.score[:, start:end].argmax(axis=1)
            places.append(place)
            scores.append(found.score[rows, start + place])
            angles.append(found.angle_deg[rows, start + place])
        return Nearest(tuple(self.slices), *(np.stack(x, axis=1) for x in (scores, places, angles)))

    def ssim(self, images: Floats, nearest: Nearest, monitor: Monitor) -> dict[str, float]:
        """By patient the highest SSIM of the nearest images, each laid on its nearest slice."""
        best = {}
        for column, name in enumerate(nearest.patients):
            monitor.progress(column / len(nearest.patients), "laying images on slices")
            rows = np.argsort(-nearest.score[:, column], kind="stable")[:_LAID]
            best[name] = max(self._laid(images, nearest, row, column).ssim for row in rows)
        return best

    def _laid(self, images: Floats, nearest: Nearest, row: int, column: int) -> Laid:
        onto = self.slices[nearest.patients[column]][nearest.place[row, column]]
        return lay_on(images[row], onto, float(nearest.angle_deg[row, column]))

    def worst_pairs(self, images: Floats, nearest: Nearest, among: Sequence[str]) -> list[Pair]:
        """The five images that come nearest to one of these patients, the worst first."""
        columns = nearest.columns(among)
        scores = nearest.score[:, columns]
        pairs = []
        for row in np.argsort(-scores.max(axis=1), kind="stable")[:WORST_PAIRS]:
            column = columns[int(scores[row].argmax())]
            patient, place = nearest.patients[column], int(nearest.place[row, column])
            laid = self._laid(images, nearest, row, column)
            score = float(nearest.score[row, column])
            onto = self.slices[patient][place]
            pairs.append(Pair(int(row), patient, place, score, laid.ssim, laid.image, onto))
        return pairs


def likeness(
    audited: Audited, gallery: Gallery, nearest: Nearest, level: float, monitor: Monitor
) -> list[Finding]:
    """Whether training patients are nearer than held-out ones, by correlation and by SSIM."""
    details, structure = (
        nearest.per_patient(),
        gallery.ssim(audited.distilled, nearest, monitor.part(0.0, 0.8)),
    )
    if audited.prior is not None:
        before = gallery.nearest(audited.prior)
        details = _less(details, before.per_patient())
        structure = _less(structure, gallery.ssim(audited.prior, before, monitor.part(0.8, 1.0)))
    return [
        compare_groups(
            audited,
            details,
            level,
            attack="likeness-ncc",
            title="Are training patients nearer? Details (NCC)",
        ),
        compare_groups(
            audited,
            structure,
            level,
            attack="likeness-ssim",
            title="Are training patients nearer? Structure (SSIM)",
        ),
    ]


def compare_groups(
    audited: Audited, figures: Mapping[str, float], level: float, *, attack: str, title: str
) -> Finding:
    """The finding of a figure by patient that a leak makes higher in training."""
    training = [figures[name] for name in audited.tested_training]
    held_out = [figures[name] for name in audited.tested_held_out]
    ours, theirs = len(training), len(held_out)
    value = auc(training, held_out)
    low, high = auc_interval(value, ours, theirs)
    detectable = smallest_detectable_auc(ours, theirs, level)
    power = (
        f"With {ours} and {theirs} patients an AUC of {detectable:.2f} or more is found."
        if detectable is not None
        else f"With {ours} and {theirs} patients it could find nothing: more patients are needed."
    )
    aliases = audited.aliases
    return Finding(
        attack=attack,
        title=title,
        sentence=(
            f"AUC {value:.2f} (95 % interval {low:.2f} to {high:.2f}); 0.5 means that training "
            "patients are no nearer than patients whom the distillation never saw."
        ),
        p=rank_sum_p(training, held_out),
        level=level,
        smallest_p=smallest_rank_sum_p(ours, theirs),
        detectable=detectable,
        power=power,
        measured={
            "auc": value,
            "interval": [low, high],
            "interval_method": "Newcombe 2006, method 5, over patients",
            "by_patient": {aliases[name]: round(figures[name], 4) for name in audited.patients},
        },
    )


def _less(figures: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
    return {name: figures[name] - baseline[name] for name in figures}
