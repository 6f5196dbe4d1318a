"""Arms that choose images and change nothing: a random coreset, k-centre, the prior alone."""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.spg.arms.material import Budget, Material
from MedEnhanceLib.spg.slices import Floats

#: Pieces among which is chosen, and the side to which they are reduced to be compared.
_CANDIDATES, _REDUCED = 256, 8
#: Of histograms by which pieces of the prior are chosen.
_BINS = 64


def random_coreset(material: Material, budget: Budget, seed: int) -> Floats:
    """Raw pieces by lot, [N, h, w]; with a budget per patient as many of each."""
    rng = np.random.default_rng((seed, 10))
    pools = list(material.training.values()) if budget.per_patient else [material.pool]
    return np.concatenate([material.cut(pool, budget.count, budget.side, rng) for pool in pools])


def k_centre(material: Material, budget: Budget, seed: int) -> Floats:
    """Raw pieces that lie far from each other: the one in the middle, then the farthest each time.

    Compared by their means over 8 × 8 fields and the spread within these. Source: the greedy
    choice of Sener and Savarese, ICLR 2018; what is compared is ours.
    """
    rng = np.random.default_rng((seed, 11))
    pieces = material.cut(material.pool, _CANDIDATES, budget.side, rng)
    points = _described(pieces)
    distance = np.linalg.norm(points - points.mean(axis=0), axis=1)
    chosen = [int(distance.argmin())]
    nearest = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < material.count(budget):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return pieces[chosen]


def public_prior(material: Material, budget: Budget, seed: int) -> Floats:
    """What the public has without any patient: the prior's own slices, or crops of them.

    A budget per patient gives the prior's images once: more of them there are not.
    """
    if budget.per_patient:
        return material.public
    rng = np.random.default_rng((seed, 12))
    return material.cut(material.public, budget.count, budget.side, rng)


def prior_alone(material: Material, budget: Budget, seed: int) -> Floats:
    """The same with the intensities of the training patients: where a distillation starts.

    Of few pieces those that together show these intensities best: a network that has seen dark
    ones alone does anything to bright ones.
    """
    if budget.per_patient:
        return material.prior
    rng = np.random.default_rng((seed, 12))
    candidates = max(_CANDIDATES if budget.side else len(material.prior), budget.count)
    pieces = material.cut(material.prior, candidates, budget.side, rng)
    wanted = _levels(material.pool)
    chosen: list[int] = []
    while len(chosen) < material.count(budget):
        together = [_levels(pieces[[*chosen, n]]) for n in range(len(pieces))]
        distance = np.abs(np.stack(together) - wanted).sum(axis=1)
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
    return pieces[chosen]


def _levels(images: Floats) -> Floats:
    """Shares of pixels in bins of intensity, added up."""
    found: Floats = np.cumsum(np.histogram(images, _BINS, (0, 1))[0] / images.size)
    return found


def _described(pieces: Floats) -> Floats:
    """[N, 128]: means over fields of an eighth of the side, and standard deviations in them."""
    count, side = len(pieces), pieces.shape[1] // _REDUCED
    kept = pieces[:, : side * _REDUCED, : side * _REDUCED]
    fields = kept.reshape(count, _REDUCED, side, _REDUCED, side)
    parts = fields.mean(axis=(2, 4)), fields.std(axis=(2, 4))
    described: Floats = np.concatenate([part.reshape(count, -1) for part in parts], axis=1)
    return described
