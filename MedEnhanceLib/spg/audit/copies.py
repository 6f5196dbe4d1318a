"""The search for copies: an image that is closer to one patient than strangers ever are.

A copied slice is one pair among thousands and moves no average. What gives it away is that one
patient is far closer to an image than all others are: the excess. How large excesses of strangers
become is learned twice: from slices of the cohort's own patients against the others (anatomy as
rich as anatomy gets), and from the distilled images against held-out patients. The tail of each is
an exponential above its 90th percentile; the less damning of the two p counts, times the number of
comparisons. What the search misses is measured by planting copies of growing strength.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.spg.audit.audited import Audited, Images
from MedEnhanceLib.spg.audit.config import AuditConfig
from MedEnhanceLib.spg.audit.findings import Finding
from MedEnhanceLib.spg.audit.neighbours import Gallery, Nearest
from MedEnhanceLib.spg.audit.statistics import POWER

Doubles = npt.NDArray[np.float64]

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

    def p(self, excess: Doubles) -> Doubles:
        """Of single comparisons; 1 below the tail."""
        beyond = (1 - _TAIL_FROM) * np.exp(-(excess - self.start) / self.scale)
        return np.where(excess > self.start, beyond, 1.0)


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
    """The rule that calls a pair a copy, learned from strangers."""

    def __init__(
        self, audited: Audited, gallery: Gallery, nearest: Nearest, references: int
    ) -> None:
        self._training = nearest.columns(audited.tested_training)
        held_out = nearest.columns(audited.tested_held_out)
        self._gallery = gallery
        self.found = excesses(nearest.z)
        strangers, self.most_alike = _strangers(gallery, references)
        self.tails = (
            Tail.of(strangers),
            Tail.of(self.found[:, held_out].ravel()),
        )
        self.comparisons = len(audited.distilled) * len(self._training)

    def p(self, found: Doubles) -> float:
        """Of the most suspicious pair with a training patient among excesses [N, C]."""
        highest = np.array([found[:, self._training].max()])
        p = max(float(tail.p(highest)[0]) for tail in self.tails)
        return min(1.0, self.comparisons * p)

    def p_of_planted(self, image: Images, patient: str) -> float:
        """Of the pair of one image [H, W] with one patient, as if it were in the set."""
        nearest = self._gallery.nearest(image[None])
        excess = excesses(nearest.z)[0, nearest.columns([patient])]
        p = max(float(tail.p(excess)[0]) for tail in self.tails)
        return min(1.0, self.comparisons * p)

    def limit(self, level: float) -> float:
        """The excess from which on a pair is called a copy."""
        per_pair = level / self.comparisons
        return max(
            tail.start + tail.scale * float(np.log((1 - _TAIL_FROM) / per_pair))
            for tail in self.tails
        )


def search_copies(
    audited: Audited,
    gallery: Gallery,
    nearest: Nearest,
    config: AuditConfig,
    level: float,
    monitor: Monitor,
) -> Finding:
    """The finding of the search, with what it would have missed."""
    search = CopySearch(audited, gallery, nearest, config.references)
    training = nearest.columns(audited.tested_training)
    held_out = nearest.columns(audited.tested_held_out)
    blended, pasted = _planted(audited, search, config, level, monitor)
    ours, theirs = nearest.score[:, training].max(), nearest.score[:, held_out].max()
    p = search.p(search.found)
    suspects = _suspects(audited, search, nearest, level)
    return Finding(
        attack="copies",
        title="Is a slice of a training patient in an image?",
        sentence=(
            f"{_called(len(suspects))} The nearest slices have a correlation of {ours:.2f} "
            f"(training) and {theirs:.2f} (held out)."
        ),
        p=p,
        level=level,
        smallest_p=0.0,
        detectable=blended,
        power=_power(blended, pasted),
        measured={
            "highest_training": float(ours),
            "highest_held_out": float(theirs),
            "highest_strangers": search.most_alike,
            "highest_excess": float(search.found[:, training].max()),
            "limit_of_excess": search.limit(level),
            "suspects": suspects,
            "held_out_beyond_limit": bool(search.found[:, held_out].max() >= search.limit(level)),
            "detectable_blend": blended,
            "detectable_square": pasted,
        },
    )


def _strangers(gallery: Gallery, references: int) -> tuple[Doubles, float]:
    """Excesses of slices of each patient against all others, and the highest correlation."""
    samples, highest = [], -1.0
    for name, slices in gallery.slices.items():
        places = np.unique(np.linspace(0, len(slices) - 1, references).round().astype(int))
        nearest = gallery.nearest(slices[places])
        own = nearest.columns([name])
        samples.append(excesses(np.delete(nearest.z, own, axis=1)).ravel())
        highest = max(highest, float(np.delete(nearest.score, own, axis=1).max()))
    return np.concatenate(samples), highest


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
        for column in nearest.columns(audited.tested_training)
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

    def smallest(
        shares: tuple[float, ...], put: Callable[[Images, Images, float], Images]
    ) -> float | None:
        found_at = None
        for share in reversed(shares):
            hits = 0
            for name, copied, row in plants:
                monitor.progress(1 - share, "planting copies")
                image = put(audited.distilled[row], copied, share)
                hits += search.p_of_planted(image, name) <= level
            if hits < POWER * len(plants):
                break
            found_at = share
        return found_at

    return smallest(_BLENDED, _blend), smallest(_PASTED, _paste)


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
