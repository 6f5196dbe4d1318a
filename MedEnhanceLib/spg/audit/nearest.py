"""The nearest slice of each patient to each distilled image, and two attacks that use it.

Likeness: are training patients nearer than held-out ones? A patient's figure is the highest
similarity of any of their slices to any distilled image. If the prior is known, the figure that the
prior alone reaches is subtracted: some anatomies are close to everything. If patients were assigned
at random, their figures are exchangeable without a leak, and the rank-sum test on them is exact.

Copies: is one image closer to one patient than strangers ever are? A copied slice is one pair among
thousands and moves no average. It shows as excess: one patient is far closer to an image than all
others. The distribution of strangers' excesses is estimated twice: from slices of the cohort's
patients against the others (the richest anatomy), and from the distilled images against held-out
patients. The tail of each is modeled as an exponential above its 90th percentile; the larger p of
the two counts, times the number of comparisons. What the search misses is measured by planting
copies of growing strength.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit.records import Audited, Finding, Images
from MedEnhanceLib.spg.audit.significance import (
    OFTEN,
    POWER,
    Doubles,
    auc,
    auc_interval,
    rank_sum_p,
    smallest_detectable_auc,
    smallest_rank_sum_p,
)
from MedEnhanceLib.spg.audit.similarity import Floats, Laid, SliceIndex, fingerprints, lay_on

#: Largest correlation before Fisher's transform, whose value at 1 is infinite.
_PERFECT = 0.9995
WORST_PAIRS = 5
#: Images registered to each patient's slices: SSIM is slow, and low where details differ.
_LAID = 5

_TAIL_FROM = 0.9
#: Slices of each patient that stand in for distilled images, to learn how alike strangers are.
_REFERENCES = 8
#: Smallest scale of a tail, on Fisher's scale: equal excesses have no spread.
_LEAST_SCALE = 0.01
#: Copies of each strength that are planted, and shares of the image that planted copies make up.
_PLANTS = 5
_BLENDED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


@dataclass(frozen=True)
class Nearest:
    """The nearest slice of each patient to each image.

    Args:
        patients: of the C columns.
        score: [N, C], correlation, −1 to 1.
        place: [N, C], number of the patient's slice.
        angle_deg: [N, C], rotation of the image onto the slice.
    """

    patients: tuple[str, ...]
    score: Floats
    place: npt.NDArray[np.intp]
    angle_deg: Floats

    @property
    def z(self) -> npt.NDArray[np.float64]:
        """The scores on Fisher's scale, on which their spread hardly depends on their value."""
        clipped = np.clip(self.score.astype(np.float64), -_PERFECT, _PERFECT)
        scale: npt.NDArray[np.float64] = np.arctanh(clipped)
        return scale

    def columns(self, patients: Sequence[str]) -> list[int]:
        """The columns of these patients."""
        return [self.patients.index(patient) for patient in patients]

    def per_patient(self) -> dict[str, float]:
        """The highest similarity to any image, on Fisher's scale."""
        return dict(zip(self.patients, self.z.max(axis=0).tolist(), strict=True))


@dataclass(frozen=True)
class Pair:
    """A distilled image and its nearest slice.

    Args:
        image: number of the distilled image, from 0.
        patient: whose slice it is.
        score: correlation of details.
        ssim: after registration.
        laid: [H, W], the image registered to the slice.
        onto: [H, W], the slice.
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
        found = self._index.match(fingerprints(images), monitor=monitor)
        rows = np.arange(len(images))
        scores, places, angles = [], [], []
        for start, end in pairwise(self._starts.tolist()):
            place = found.score[:, start:end].argmax(axis=1)
            places.append(place)
            scores.append(found.score[rows, start + place])
            angles.append(found.angle_deg[rows, start + place])
        return Nearest(tuple(self.slices), *(np.stack(x, axis=1) for x in (scores, places, angles)))

    def ssim(self, images: Floats, nearest: Nearest, monitor: Monitor) -> dict[str, float]:
        """By patient the highest SSIM of the nearest images, registered to their nearest slices."""
        best = {}
        for column, name in enumerate(nearest.patients):
            monitor.progress(column / len(nearest.patients), "registering images to slices")
            rows = np.argsort(-nearest.score[:, column], kind="stable")[:_LAID]
            best[name] = max(self._laid(images, nearest, row, column).ssim for row in rows)
        return best

    def _laid(self, images: Floats, nearest: Nearest, row: int, column: int) -> Laid:
        onto = self.slices[nearest.patients[column]][nearest.place[row, column]]
        return lay_on(images[row], onto, float(nearest.angle_deg[row, column]))

    def worst_pairs(self, images: Floats, nearest: Nearest, among: Sequence[str]) -> list[Pair]:
        """The five images nearest to one of these patients, the nearest first."""
        columns = nearest.columns(among)
        scores = nearest.score[:, columns]
        pairs = []
        for row in np.argsort(-scores.max(axis=1), kind="stable")[:WORST_PAIRS]:
            column = columns[int(scores[row].argmax())]
            patient, score = nearest.patients[column], float(nearest.score[row, column])
            laid = self._laid(images, nearest, row, column)
            onto = self.slices[patient][nearest.place[row, column]]
            pairs.append(Pair(int(row), patient, score, laid.ssim, laid.image, onto))
        return pairs


def likeness(
    audited: Audited, gallery: Gallery, nearest: Nearest, level: float, monitor: Monitor
) -> list[Finding]:
    """Test whether training patients are nearer than held-out ones, by correlation and by SSIM."""
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
            title="Are used patients nearer than others? Details (NCC)",
        ),
        compare_groups(
            audited,
            structure,
            level,
            attack="likeness-ssim",
            title="Are used patients nearer than others? Structure (SSIM)",
        ),
    ]


def compare_groups(
    audited: Audited, figures: Mapping[str, float], level: float, *, attack: str, title: str
) -> Finding:
    """Test whether a figure by patient is higher in training, as a leak makes it."""
    training = [figures[name] for name in audited.tested_training]
    held_out = [figures[name] for name in audited.tested_held_out]
    ours, theirs = len(training), len(held_out)
    value = auc(training, held_out)
    low, high = auc_interval(value, ours, theirs)
    detectable = smallest_detectable_auc(ours, theirs, level)
    power = (
        f"With {ours} used and {theirs} held-out patients, a leak that raises this to "
        f"{detectable:.0%} is noticed in {OFTEN} audits, a weaker one less often."
        if detectable is not None
        else f"With {ours} used and {theirs} held-out patients it cannot notice any leak, however "
        "large: more patients are needed."
    )
    aliases = audited.aliases
    return Finding(
        attack=attack,
        title=title,
        sentence=(
            f"In {value:.0%} of all pairs of a used and a held-out patient, the used one looks "
            f"more like a source of the images (95 % interval {low:.0%} to {high:.0%}); without a "
            "leak it is about 50%."
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


@dataclass(frozen=True)
class Tail:
    """The upper tail of the strangers' excesses: an exponential."""

    start: float
    scale: float

    @classmethod
    def of(cls, excesses: Doubles) -> Tail:
        """Fit to a sample. Source: peaks over a threshold (Pickands 1975), with shape 0."""
        start = float(np.quantile(excesses, _TAIL_FROM))
        above = excesses[excesses > start] - start
        return cls(start, max(_LEAST_SCALE, float(above.mean()) if above.size else 0.0))

    def p(self, excess: npt.ArrayLike) -> Doubles:
        """The p of single comparisons; 1 below the tail."""
        beyond = np.asarray(excess, float) - self.start
        p = (1 - _TAIL_FROM) * np.exp(-np.maximum(0, beyond) / self.scale)
        return np.where(beyond > 0, p, 1.0)

    def limit(self, p: float) -> float:
        """The excess of this p."""
        return self.start + self.scale * max(0.0, math.log((1 - _TAIL_FROM) / p))


def excesses(z: Doubles) -> Doubles:
    """How much closer each patient is to an image than the median of the others, [N, C]."""
    return np.stack(
        [
            z[:, column] - np.median(np.delete(z, column, axis=1), axis=1)
            for column in range(z.shape[1])
        ],
        axis=1,
    )


class CopySearch:
    """The rule that calls a pair of image and patient a copy, estimated from strangers.

    found: [N, C], the excesses of the distilled images. most_alike: the highest correlation of
    slices of two patients. comparisons: number of pairs of an image and a training patient.
    """

    def __init__(
        self,
        audited: Audited,
        gallery: Gallery,
        nearest: Nearest,
        monitor: Monitor,
    ) -> None:
        self._gallery = gallery
        self.training = nearest.columns(audited.tested_training)
        self.held_out = nearest.columns(audited.tested_held_out)
        self.found = excesses(nearest.z)
        strangers, self.most_alike = _strangers(gallery, monitor)
        self._among_patients = Tail.of(strangers)
        self._tails = self._among_patients, Tail.of(self.found[:, self.held_out].ravel())
        self.comparisons = len(audited.distilled) * len(self.training)

    def p(self) -> float:
        """The p of the most suspicious pair with a training patient."""
        highest = self.found[:, self.training].max()
        return min(1.0, self.comparisons * max(float(tail.p(highest)) for tail in self._tails))

    def limit(self, level: float) -> float:
        """The smallest excess that is called a copy."""
        return max(tail.limit(level / self.comparisons) for tail in self._tails)

    def hits(self, images: Images, patients: Sequence[str], level: float) -> int:
        """How many of these images [n, H, W] are called copies of their patients [n]."""
        nearest = self._gallery.nearest(images)
        found = excesses(nearest.z)[np.arange(len(images)), nearest.columns(patients)]
        return int(np.count_nonzero(found >= self.limit(level)))

    def holds_held_out(self, level: float) -> bool:
        """Whether a held-out patient is as close as a copy, by the tail among patients alone."""
        limit = self._among_patients.limit(level / self.comparisons)
        return bool(self.found[:, self.held_out].max() >= limit)


def search_copies(
    audited: Audited,
    gallery: Gallery,
    nearest: Nearest,
    level: float,
    monitor: Monitor,
) -> Finding:
    """Search for copies, and measure what the search would have missed."""
    search = CopySearch(audited, gallery, nearest, monitor.part(0.0, 0.4))
    blended = _planted(audited, search, level, monitor.part(0.4, 1.0))
    ours = float(nearest.score[:, search.training].max())
    theirs = float(nearest.score[:, search.held_out].max())
    suspects = _suspects(audited, search, nearest, level)
    return Finding(
        attack="copies",
        title="Is a slice of a used patient in an image?",
        sentence=(
            f"{_called(len(suspects))} The nearest slices have a correlation of {ours:.2f} "
            f"(used patients) and {theirs:.2f} (held out)."
        ),
        p=search.p(),
        level=level,
        smallest_p=0.0,
        detectable=blended,
        power=_power(blended),
        measured={
            "highest_training": ours,
            "highest_held_out": theirs,
            "highest_strangers": search.most_alike,
            "highest_excess": float(search.found[:, search.training].max()),
            "limit_of_excess": search.limit(level),
            "suspects": suspects,
            "held_out_beyond_limit": search.holds_held_out(level),
        },
    )


def _strangers(gallery: Gallery, monitor: Monitor) -> tuple[Doubles, float]:
    """Excesses of slices of each patient against all others, and the highest correlation."""
    places = [
        np.unique(np.linspace(0, len(slices) - 1, _REFERENCES).round().astype(int))
        for slices in gallery.slices.values()
    ]
    images = [slices[p] for slices, p in zip(gallery.slices.values(), places, strict=True)]
    whose = np.repeat(np.arange(len(places)), [len(p) for p in places])
    nearest = gallery.nearest(np.concatenate(images), monitor)
    # A reference is not compared with its own patient.
    others = np.arange(len(places)) != whose[:, None]
    z = nearest.z[others].reshape(len(whose), -1)
    return excesses(z).ravel(), float(nearest.score[others].max())


def _suspects(
    audited: Audited, search: CopySearch, nearest: Nearest, level: float
) -> list[dict[str, object]]:
    """Each pair of image and training patient beyond the limit."""
    aliases, limit = audited.aliases, search.limit(level)
    return [
        {
            "image": int(row),
            "patient": aliases[nearest.patients[column]],
            "slice": int(nearest.place[row, column]),
            "ncc": round(float(nearest.score[row, column]), 4),
        }
        for column in search.training
        for row in np.flatnonzero(search.found[:, column] >= limit)
    ]


def _planted(audited: Audited, search: CopySearch, level: float, monitor: Monitor) -> float | None:
    """The smallest share of an image from which on 80 % of the copies in it are found."""
    names = audited.tested_training
    # Copies are planted in the least suspicious images.
    calm = np.argsort(search.found.max(axis=1), kind="stable")
    plants = []
    for number in range(_PLANTS):
        name = names[number % len(names)]
        slices = audited.training[name]
        step = (1 + number // len(names)) / (2 + (_PLANTS - 1) // len(names))
        plants.append((name, slices[int(step * (len(slices) - 1))], calm[number % len(calm)]))
    owners = [name for name, _, _ in plants]
    found_at = None
    for share in reversed(_BLENDED):
        monitor.progress(1 - share, "planting copies")
        images = np.stack(
            [(1 - share) * audited.distilled[row] + share * copied for _, copied, row in plants]
        ).astype(np.float32)
        if search.hits(images, owners, level) < POWER * len(plants):
            break
        found_at = share
    return found_at


def _called(count: int) -> str:
    if count == 0:
        return "No image is closer to a used patient than strangers are to each other."
    pairs = (
        "1 pair of image and patient is"
        if count == 1
        else f"{count} pairs of image and patient are"
    )
    return f"{pairs} closer than strangers ever are: a copy."


def _power(blended: float | None) -> str:
    if blended is None:
        return (
            f"Tried with planted copies: of whole slices, fewer than {OFTEN} were noticed. The "
            "patients are too similar, or too few."
        )
    return (
        f"Tried with planted copies: at least {OFTEN} are noticed where a slice makes up "
        f"at least {blended:.0%} of an image. What is fainter or covers less can be missed."
    )
