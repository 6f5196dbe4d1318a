"""The search for copies: an image that is closer to one patient than strangers ever are.

A copied slice is one pair among thousands and moves no average. What gives it away is that one
patient is far closer to an image than all others are: the excess. How large excesses of strangers
become is learned twice: from slices of the cohort's own patients against the others (anatomy as
rich as anatomy gets), and from the distilled images against held-out patients. The tail of each is
an exponential above its 90th percentile; the less damning of the two p counts, times the number of
comparisons. What the search misses is measured by planting copies of growing strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit.audited import Audited, Images
from MedEnhanceLib.spg.audit.config import AuditConfig
from MedEnhanceLib.spg.audit.findings import Finding
from MedEnhanceLib.spg.audit.neighbours import Gallery, Nearest
from MedEnhanceLib.spg.audit.statistics import POWER

Doubles = npt.NDArray[np.float64]
#: Puts a share of a copied slice into an image.
Put = Callable[[Images, Images, float], Images]

_TAIL_FROM = 0.9
#: Excesses that are all the same have no tail; on Fisher's scale this is next to nothing.
_LEAST_SCALE = 0.01
#: How much of an image is replaced: blended everywhere, or a square of that share of the side.
_BLENDED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
_PASTED = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Tail:
    """How often an excess of strangers exceeds a value, beyond what was ever seen of them."""

    start: float
    scale: float

    @classmethod
    def of(cls, excesses: Doubles) -> Tail:
        """From a sample. Source: peaks over a threshold (Pickands 1975), with shape 0."""
        start = float(np.quantile(excesses, _TAIL_FROM))
        above = excesses[excesses > start] - start
        return cls(start, max(_LEAST_SCALE, float(above.mean()) if above.size else 0.0))

    def p(self, excess: npt.ArrayLike) -> Doubles:
        """Of single comparisons; 1 below the tail."""
        beyond = np.asarray(excess, float) - self.start
        p = (1 - _TAIL_FROM) * np.exp(-np.maximum(0, beyond) / self.scale)
        return np.where(beyond > 0, p, 1.0)

    def limit(self, p: float) -> float:
        """The excess of this p."""
        return self.start + self.scale * max(0.0, math.log((1 - _TAIL_FROM) / p))


def excesses(z: Doubles) -> Doubles:
    """How much closer [N, C] each patient is to an image than the others' median."""
    return np.stack(
        [
            z[:, column] - np.median(np.delete(z, column, axis=1), axis=1)
            for column in range(z.shape[1])
        ],
        axis=1,
    )


class CopySearch:
    """The rule that calls a pair a copy, learned from strangers.

    found: [N, C], the excesses of the distilled images. most_alike: the highest correlation of
    slices of two patients. comparisons: pairs of an image and a training patient.
    """

    def __init__(
        self,
        audited: Audited,
        gallery: Gallery,
        nearest: Nearest,
        references: int,
        monitor: Monitor,
    ) -> None:
        self._gallery = gallery
        self.training = nearest.columns(audited.tested_training)
        self.held_out = nearest.columns(audited.tested_held_out)
        self.found = excesses(nearest.z)
        strangers, self.most_alike = _strangers(gallery, references, monitor)
        self._among_patients = Tail.of(strangers)
        self._tails = self._among_patients, Tail.of(self.found[:, self.held_out].ravel())
        self.comparisons = len(audited.distilled) * len(self.training)

    def p(self) -> float:
        """Of the most suspicious pair with a training patient."""
        highest = self.found[:, self.training].max()
        return min(1.0, self.comparisons * max(float(tail.p(highest)) for tail in self._tails))

    def limit(self, level: float) -> float:
        """The excess from which on a pair is called a copy."""
        return max(tail.limit(level / self.comparisons) for tail in self._tails)

    def hits(self, images: Images, patients: Sequence[str], level: float) -> int:
        """How many of images [n, H, W] are called copies of these patients [n]."""
        nearest = self._gallery.nearest(images)
        found = excesses(nearest.z)[np.arange(len(images)), nearest.columns(patients)]
        return int(np.count_nonzero(found >= self.limit(level)))

    def holds_held_out(self, level: float) -> bool:
        """Whether a held-out patient is as close as a copy, by what strangers are among patients.

        Their own closeness is no measure of it.
        """
        limit = self._among_patients.limit(level / self.comparisons)
        return bool(self.found[:, self.held_out].max() >= limit)


def search_copies(
    audited: Audited,
    gallery: Gallery,
    nearest: Nearest,
    config: AuditConfig,
    level: float,
    monitor: Monitor,
) -> Finding:
    """The finding of the search, with what it would have missed."""
    search = CopySearch(audited, gallery, nearest, config.references, monitor.part(0.0, 0.4))
    blended, pasted = _planted(audited, search, config, level, monitor.part(0.4, 1.0))
    ours = float(nearest.score[:, search.training].max())
    theirs = float(nearest.score[:, search.held_out].max())
    suspects = _suspects(audited, search, nearest, level)
    return Finding(
        attack="copies",
        title="Is a slice of a training patient in an image?",
        sentence=(
            f"{_called(len(suspects))} The nearest slices have a correlation of {ours:.2f} "
            f"(training) and {theirs:.2f} (held out)."
        ),
        p=search.p(),
        level=level,
        smallest_p=0.0,
        detectable=blended,
        power=_power(blended, pasted),
        measured={
            "highest_training": ours,
            "highest_held_out": theirs,
            "highest_strangers": search.most_alike,
            "highest_excess": float(search.found[:, search.training].max()),
            "limit_of_excess": search.limit(level),
            "suspects": suspects,
            "held_out_beyond_limit": search.holds_held_out(level),
            "detectable_blend": blended,
            "detectable_square": pasted,
        },
    )


def _strangers(gallery: Gallery, references: int, monitor: Monitor) -> tuple[Doubles, float]:
    """Excesses of slices of each patient against all others, and the highest correlation."""
    places = [
        np.unique(np.linspace(0, len(slices) - 1, references).round().astype(int))
        for slices in gallery.slices.values()
    ]
    images = [slices[p] for slices, p in zip(gallery.slices.values(), places, strict=True)]
    whose = np.repeat(np.arange(len(places)), [len(p) for p in places])
    nearest = gallery.nearest(np.concatenate(images), monitor)
    # Of each reference its own patient is left out.
    others = np.arange(len(places)) != whose[:, None]
    z = nearest.z[others].reshape(len(whose), -1)
    return excesses(z).ravel(), float(nearest.score[others].max())


def _suspects(
    audited: Audited, search: CopySearch, nearest: Nearest, level: float
) -> list[dict[str, object]]:
    """Each image and training patient beyond the limit."""
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


def _planted(
    audited: Audited, search: CopySearch, config: AuditConfig, level: float, monitor: Monitor
) -> tuple[float | None, float | None]:
    """The smallest share, blended and pasted, from which on four of five copies are found."""
    names = audited.tested_training
    # Copies are planted where nothing is suspicious yet.
    calm = np.argsort(search.found.max(axis=1), kind="stable")
    plants = []
    for number in range(config.plants):
        name = names[number % len(names)]
        slices = audited.training[name]
        step = (1 + number // len(names)) / (2 + (config.plants - 1) // len(names))
        plants.append((name, slices[int(step * (len(slices) - 1))], calm[number % len(calm)]))

    owners = [name for name, _, _ in plants]

    def smallest(shares: Sequence[float], put: Put, part: Monitor) -> float | None:
        found_at = None
        for share in reversed(shares):
            part.progress(1 - share, "planting copies")
            images = np.stack(
                [put(audited.distilled[row], copied, share) for _, copied, row in plants]
            )
            if search.hits(images, owners, level) < POWER * len(plants):
                break
            found_at = share
        return found_at

    return (
        smallest(_BLENDED, _blend, monitor.part(0.0, 0.5)),
        smallest(_PASTED, _paste, monitor.part(0.5, 1.0)),
    )


def _blend(image: Images, copied: Images, share: float) -> Images:
    return ((1 - share) * image + share * copied).astype(np.float32)


def _paste(image: Images, copied: Images, share: float) -> Images:
    """The middle of the copied slice, in its place."""
    window = tuple(
        slice((side - round(share * side)) // 2, (side + round(share * side)) // 2)
        for side in image.shape
    )
    pasted = image.copy()
    pasted[window] = copied[window]
    return pasted


def _called(count: int) -> str:
    if count == 0:
        return "No image is closer to a training patient than strangers are to each other."
    images = "1 image and patient is" if count == 1 else f"{count} pairs of image and patient are"
    return f"{images} closer than strangers ever are: a copy."


def _power(blended: float | None, pasted: float | None) -> str:
    if blended is None:
        return (
            "Not even whole planted slices were found: the patients resemble each other too much, "
            "or are too few."
        )
    square = "" if pasted is None else f" or a pasted square of {pasted:.0%} of the side"
    return f"A copied slice that makes up {blended:.0%} of an image is found{square}."
