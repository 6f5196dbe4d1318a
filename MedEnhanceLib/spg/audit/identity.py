"""Re-identification: can distilled images be assigned to the patients they were made from?

A verifier estimates how likely two images show one person, from shared details, coarse shape, gray
levels and texture. It is trained on the held-out patients, then compares every distilled image with
every training patient. What a patient has in common with all images is no identity and is
subtracted.

The verifier is a logistic regression on four features, fitted by Newton's method: with a handful of
patients anything larger would overfit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.spg.audit.records import AuditConfig, Audited, Finding
from MedEnhanceLib.spg.audit.significance import (
    OFTEN,
    Doubles,
    permutation_p,
    rate_interval,
    smallest_detectable_rate,
)
from MedEnhanceLib.spg.audit.similarity import Floats, blur, fingerprints, match

TITLE = "Can images be assigned to their patients?"

_THUMBNAIL = 12
_BINS = 16
_BANDS = 8
_RIDGE = 1.0
_NEWTON_STEPS = 30
#: Slices of a patient that the verifier is trained on.
_LEARNED_FROM = 12
#: Patients up to which all permutations are counted; above, some are drawn.
_COUNTED_UP_TO = 7


@dataclass(frozen=True)
class Traits:
    """Features of images [N, H, W].

    Args:
        prints: fingerprints, see `similarity`.
        coarse: [N, 144], thumbnails of norm 1.
        grays: [N, 15], shares of gray levels.
        texture: [N, 8], log power by frequency.
    """

    prints: Floats
    coarse: Floats
    grays: Floats
    texture: Floats

    @classmethod
    def of(cls, images: Floats) -> Traits:
        """Compute the features of images in [0, 1]."""
        return cls(fingerprints(images), _coarse(images), _grays(images), _texture(images))

    def __getitem__(self, rows: npt.NDArray[np.intp]) -> Traits:
        return Traits(self.prints[rows], self.coarse[rows], self.grays[rows], self.texture[rows])

    def against(self, other: Traits) -> Doubles:
        """Four similarities for each pair, [N, R, 4]."""
        details = np.arctanh(np.clip(match(self.prints, other.prints).score, -0.999, 0.999))
        coarse = self.coarse @ other.coarse.T
        grays = np.minimum(self.grays[:, None], other.grays[None]).sum(axis=-1)
        texture = -np.abs(self.texture[:, None] - other.texture[None]).mean(axis=-1)
        return np.stack([details, coarse, grays, texture], axis=-1).astype(np.float64)


class Verifier:
    """Estimates how likely two images show one person; trained on people who are not tested."""

    def __init__(self, people: dict[str, Floats]) -> None:
        figures, is_same, weights = _lesson(people)
        self._center, self._scale = figures.mean(axis=0), figures.std(axis=0) + 1e-6
        self.weights = _fit(self._scaled(figures), is_same, weights)

    def __call__(self, figures: Doubles) -> Doubles:
        """Log odds of "one person" for similarities [..., 4]."""
        odds: Doubles = self._scaled(figures) @ self.weights
        return odds

    def _scaled(self, figures: Doubles) -> Doubles:
        scaled = (figures - self._center) / self._scale
        return np.concatenate([scaled, np.ones((*scaled.shape[:-1], 1))], axis=-1)


def why_not(audited: Audited) -> str:
    """Why the attack cannot run; empty if it can."""
    if audited.owners is None:
        return "No image is of one patient alone, or whose it is was not given."
    if len(_owners_in_question(audited)) < 2:
        return "The distilled images are of fewer than two patients."
    several = [name for name in audited.tested_held_out if len(audited.held_out[name]) > 1]
    if not several:
        return (
            "Every held-out patient has one slice: there are no pairs of one person to learn from."
        )
    return ""


def smallest_identity_p(audited: Audited, config: AuditConfig) -> float:
    """The smallest p possible with as many patients."""
    count = len(_owners_in_question(audited))
    return max(1 / math.factorial(min(count, 20)), 1 / (config.permutations + 1))


def identify(audited: Audited, config: AuditConfig, level: float) -> Finding:
    """Test whether distilled images can be assigned to their patients. Needs `owners`."""
    names = _owners_in_question(audited)
    count = len(names)
    table = _votes(audited, names)
    hits = int(np.count_nonzero(table.argmax(axis=1) == np.arange(count)))
    low, high = rate_interval(hits, count)
    smallest_p = smallest_identity_p(audited, config)
    can_alarm = smallest_p <= level
    detectable = smallest_detectable_rate(count, 1 / count, level) if can_alarm else None
    return Finding(
        attack="identity",
        title=TITLE,
        sentence=(
            f"{hits} of {count} patients were recognized ({hits / count:.0%}, 95 % interval "
            f"{low:.0%} to {high:.0%}); guessing recognizes {1 / count:.0%}."
        ),
        p=_matching_p(table, config),
        level=level,
        smallest_p=smallest_p,
        detectable=detectable,
        power=(
            f"With {count} used patients it cannot notice any leak, however large: more patients "
            "are needed."
            if detectable is None
            else f"A leak by which {detectable:.0%} of them can be recognized is noticed in "
            f"{OFTEN} audits, a weaker one less often."
        ),
        measured={
            "rank_1": hits / count,
            "hits": hits,
            "patients": count,
            "chance": 1 / count,
            "interval": [low, high],
            "interval_method": "Clopper-Pearson over patients",
        },
    )


def _owners_in_question(audited: Audited) -> list[str]:
    return [name for name in audited.tested_training if name in set(audited.owners or ())]


def _votes(audited: Audited, names: list[str]) -> Doubles:
    """[P, P]: mean log odds of the images of each owner (row) for each patient (column)."""
    verify = Verifier({name: audited.held_out[name] for name in audited.tested_held_out})
    ours = Traits.of(audited.distilled)
    odds = np.stack(
        [verify(ours.against(Traits.of(audited.training[name]))).max(axis=1) for name in names],
        axis=1,
    )
    odds = odds - odds.mean(axis=0)
    owners = np.array(audited.owners)
    return np.stack([odds[owners == name].mean(axis=0) for name in names])


def _matching_p(table: Doubles, config: AuditConfig) -> float:
    """The p of the votes for the true patients, among all permutations of the owners."""
    count = len(table)
    rows = np.arange(count)
    if count <= _COUNTED_UP_TO:
        sums = np.array([table[rows, list(order)].sum() for order in permutations(range(count))])
        return float(np.mean(sums >= np.trace(table) - 1e-9))
    rng = np.random.default_rng([config.seed, 3])
    orders = rng.permuted(np.tile(rows, (config.permutations, 1)), axis=1)
    return permutation_p(float(np.trace(table)), table[rows, orders].sum(axis=1))


def _lesson(people: dict[str, Floats]) -> tuple[Doubles, Doubles, Doubles]:
    """Similarities [n, 4] of pairs of slices, whether they are of one person, and their weight.

    Both classes have the same total weight; so has every pair of people in a class.
    """
    traits = []
    for images in people.values():
        places = np.unique(np.linspace(0, len(images) - 1, _LEARNED_FROM).round().astype(int))
        traits.append(Traits.of(images[places]))
    figures, same, weights = [], [], []
    for is_same, pair in _pairs_of_people(traits):
        figures.append(pair)
        same.append(np.full(len(pair), float(is_same)))
        weights.append(np.full(len(pair), 1 / len(pair)))
    all_same, all_weights = np.concatenate(same), np.concatenate(weights)
    for value in (0.0, 1.0):
        chosen = all_same == value
        all_weights[chosen] *= 50 / max(all_weights[chosen].sum(), 1e-12)
    return np.concatenate(figures), all_same, all_weights


def _pairs_of_people(traits: list[Traits]) -> Iterator[tuple[bool, Doubles]]:
    for i, one in enumerate(traits):
        for j, other in enumerate(traits[: i + 1]):
            figures = one.against(other)
            if i == j:  # not a slice with itself
                figures = figures[~np.eye(len(figures), dtype=bool)]
            figures = figures.reshape(-1, figures.shape[-1])
            if len(figures):
                yield i == j, figures


def _fit(inputs: Doubles, is_same: Doubles, weights: Doubles) -> Doubles:
    """The weights of a ridge logistic regression, by Newton's method."""
    found = np.zeros(inputs.shape[1])
    ridge = _RIDGE * np.eye(inputs.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(inputs @ found, -30, 30)))
        gradient = inputs.T @ (weights * (is_same - chance)) - ridge @ found
        curvature = (inputs * (weights * chance * (1 - chance))[:, None]).T @ inputs + ridge
        found = found + np.linalg.solve(curvature, gradient)
    return found


def _coarse(images: Floats) -> Floats:
    height, width = images.shape[1:]
    rows = np.linspace(0, height - 1, _THUMBNAIL).round().astype(int)
    columns = np.linspace(0, width - 1, _THUMBNAIL).round().astype(int)
    smooth = blur(images, max(height, width) / _THUMBNAIL / 2)
    small = smooth[:, rows[:, None], columns[None]].reshape(len(images), -1)
    small = small - small.mean(axis=1, keepdims=True)
    unit: Floats = small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-3)
    return unit


def _grays(images: Floats) -> Floats:
    """Shares of gray levels outside the background."""
    level = np.clip(images * _BINS, 0, _BINS - 1).astype(np.intp).reshape(len(images), -1)
    counts = np.stack([np.count_nonzero(level == b, axis=1) for b in range(1, _BINS)], axis=1)
    shares: Floats = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    return shares


def _texture(images: Floats) -> Floats:
    """Log power in eight rings of frequency: the noise and sharpness of a scan."""
    height, width = images.shape[1:]
    power = np.abs(np.fft.rfft2(images - images.mean(axis=(1, 2), keepdims=True))) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    ring = np.minimum((radius / 0.5 * _BANDS).astype(int), _BANDS)
    rings = np.stack([power[:, ring == band].mean(axis=1) for band in range(_BANDS)], axis=1)
    texture: Floats = np.log(rings / (height * width) + 1e-8).astype(np.float32)
    return texture
