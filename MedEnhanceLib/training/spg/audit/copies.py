"""The attack "copies": is one image closer to one patient than strangers ever are?

A copied slice is one pair among thousands and changes no average. It shows as an excess: one
patient is far closer to an image than all others. The distribution of strangers' excesses is
estimated twice: from slices of the cohort's patients against the others (the richest anatomy), and
from the distilled images against held-out patients. The tail of each is modeled as an exponential
above its 90th percentile; p is the larger of the two, times the number of comparisons. What the
search misses is measured with planted copies of different strengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import text
from MedEnhanceLib.training.spg.audit.nearest import Gallery, Nearest
from MedEnhanceLib.training.spg.audit.records import Audited, Finding
from MedEnhanceLib.training.spg.audit.significance import POWER

# Chosen by hand; no table isolates it.
_TAIL_FROM = 0.9
#: Slices of each patient that are compared like distilled images, to see how similar strangers are.
_REFERENCES = 8
#: Smallest scale of a tail, on Fisher's scale: equal excesses have no spread.
_LEAST_SCALE = 0.01
#: Copies of each strength that are planted, and shares of the image that planted copies make up.
PLANTS = 5
_BLENDED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


def search_copies(
    audited: Audited, gallery: Gallery, nearest: Nearest, level: float, monitor: Monitor
) -> Finding:
    """Test whether an image of the set shows a slice of a patient whom the set was made from.

    A pair of image and patient is suspect if the patient is nearer to it than strangers ever are
    (`excesses`, `Tail`). Planted copies show how faint a copy may be that is still found.

    Args:
        audited: the set and the patients.
        gallery: slices of all its patients, trained and held out.
        nearest: of the set's images in the gallery.
        level: of the test over all images and patients, 0 to 1.
        monitor: receives progress; may cancel.
    """
    training_columns, held_out_columns = map(nearest.columns, (audited.training, audited.held_out))
    excess = excesses(nearest.z)
    strangers, most_alike = _strangers(gallery, monitor.part(0.0, 0.4))
    among_patients, held_out = Tail.of(strangers), Tail.of(excess[:, held_out_columns].ravel())
    comparisons = len(audited.distilled) * len(training_columns)
    highest = float(excess[:, training_columns].max())
    p = comparisons * max(tail.p(highest) for tail in (among_patients, held_out))
    limit = max(tail.limit(level / comparisons) for tail in (among_patients, held_out))
    blended = _detectable(audited, gallery, excess, limit, monitor.part(0.4, 1.0))
    suspects = [
        {
            "image": int(row),
            "patient": audited.aliases[nearest.patients[column]],
            "slice": int(nearest.place[row, column]),
            "ncc": round(float(nearest.score[row, column]), 4),
        }
        for column in training_columns
        for row in np.flatnonzero(excess[:, column] >= limit)
    ]
    used, others = (
        float(nearest.score[:, columns].max()) for columns in (training_columns, held_out_columns)
    )
    return Finding(
        attack="copies",
        found=text("copies", suspects=len(suspects), used=used, others=others),
        p=min(1.0, p),
        level=level,
        detectable=blended,
        power=text("copies_power" if blended else "copies_blind", detectable=blended),
        finds=text("copies_finds", detectable=blended or 1.0),
        measured={
            "highest_training": used,
            "highest_held_out": others,
            "highest_strangers": most_alike,
            "suspects": suspects,
            # By the tail among patients alone: the other one was fitted to held-out patients.
            "held_out_beyond_limit": bool(
                excess[:, held_out_columns].max() >= among_patients.limit(level / comparisons)
            ),
        },
    )


@dataclass(frozen=True)
class Tail:
    """The upper tail of the strangers' excesses: an exponential.

    Attributes:
        start: the excess from which it holds.
        scale: mean excess beyond that.
    """

    start: float
    scale: float

    @classmethod
    def of(cls, excesses: Doubles) -> Tail:
        """Fit to a sample. Source: peaks over a threshold (Pickands 1975), with shape 0."""
        start = float(np.quantile(excesses, _TAIL_FROM))
        above = excesses[excesses > start] - start
        return cls(start, max(_LEAST_SCALE, float(above.mean()) if above.size else 0.0))

    def p(self, excess: float) -> float:
        """Compute the p of a single comparison; 1 below the tail."""
        beyond = excess - self.start
        return (1 - _TAIL_FROM) * math.exp(-beyond / self.scale) if beyond > 0 else 1.0

    def limit(self, p: float) -> float:
        """Compute the excess whose p this is."""
        return self.start + self.scale * max(0.0, math.log((1 - _TAIL_FROM) / p))


def excesses(z: Doubles) -> Doubles:
    """Compute how much closer each patient is to an image than the median of the others, [N, C]."""
    return np.stack(
        [
            z[:, column] - np.median(np.delete(z, column, axis=1), axis=1)
            for column in range(z.shape[1])
        ],
        axis=1,
    )


def _strangers(gallery: Gallery, monitor: Monitor) -> tuple[Doubles, float]:
    """Compute excesses of each patient's slices against all others, and the highest correlation."""
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


def _detectable(
    audited: Audited, gallery: Gallery, excess: Doubles, limit: float, monitor: Monitor
) -> float | None:
    """Find the smallest share of a copy in an image from which on 80 % of planted copies are found.

    excess: excesses of the distilled images. limit: the smallest excess that counts as a copy.
    """
    names = list(audited.training)
    # Copies are planted in the least suspicious images.
    calm = np.argsort(excess.max(axis=1), kind="stable")
    owners = [names[number % len(names)] for number in range(PLANTS)]
    copied = []
    for number, name in enumerate(owners):
        slices = audited.training[name]
        step = (1 + number // len(names)) / (2 + (PLANTS - 1) // len(names))
        copied.append(slices[int(step * (len(slices) - 1))])
    planted_in = audited.distilled[[calm[number % len(calm)] for number in range(PLANTS)]]
    smallest = None
    for share in reversed(_BLENDED):
        monitor.progress(1 - share, "planting copies")
        images = ((1 - share) * planted_in + share * np.stack(copied)).astype(np.float32)
        nearest = gallery.nearest(images)
        z = excesses(nearest.z)[np.arange(PLANTS), nearest.columns(owners)]
        if np.count_nonzero(z >= limit) < POWER * PLANTS:
            break
        smallest = share
    return smallest
