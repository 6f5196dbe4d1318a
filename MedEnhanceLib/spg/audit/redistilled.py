"""The attacks that distill again: membership inference with shadows, and canaries.

Shadows: random halves of all patients are distilled, each half and its complement. The audit itself
draws the halves, so that the first test is exact on few patients: of the two sets of a pair, is the
one made from a patient nearer to that patient? Every patient in every pair is one trial, and more
shadows find smaller leaks. The second test (LiRA) is about the real set: compared with the shadows
with and without each patient, does it look as if it was made from the patient?

Canaries: a lesion of unique texture is planted in the raw slices of each training patient, and the
planted cohort is distilled. Then each planted lesion is searched in the images, and with it decoys:
lesions drawn in the same way for the same place and planted nowhere. Without a leak each of them is
equally likely to be the most visible: with 99 decoys a planted lesion comes first once in a hundred
times. The ranks of all lesions are combined after Fisher.

Source: LiRA, Carlini et al., IEEE S&P 2022 (arXiv 2112.03570), with one variance for all patients
as there for few shadows, and one effect for all; the pairs and the exact tests are ours. Canaries:
Carlini et al., The Secret Sharer (USENIX Security 2019, arXiv 1802.08232), in images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit.nearest import Gallery, Nearest, compare_groups
from MedEnhanceLib.spg.audit.records import AuditConfig, Audited, Finding, Images, check_redistilled
from MedEnhanceLib.spg.audit.significance import (
    OFTEN,
    Doubles,
    combined_p,
    permutation_p,
    rate_interval,
    smallest_detectable_rate,
    smallest_detectable_share,
)
from MedEnhanceLib.spg.audit.similarity import Floats, blur

Flags = npt.NDArray[np.bool_]
#: Distills slices by patient with a seed; returns images [N, H, W].
Redistill = Callable[[dict[str, Images], int], Images]

#: Smallest spread of shadows: without spread a likelihood ratio has no scale.
_LEAST_SPREAD = 1e-3
#: Share of an image's side; of a range of [0, 1]; pixels. With coarser grains decoys resemble the
#: planted lesion.
_RADIUS, _AMPLITUDE, _GRAIN = 0.13, 0.35, 0.9
_SMALLEST_RADIUS = 8
#: Pixels by which a lesion may be displaced.
_MOVED = 1
#: σ in pixels of a band in which anatomy has few details; contrast that counts as empty.
_FINE, _COARSE, _EMPTY = 0.7, 3.0, 0.01
#: Range of the mean gray level of a lesion in which its texture fits into [0, 1].
_LEVELS = (_AMPLITUDE, 1 - _AMPLITUDE)
#: Gray level of tissue, as opposed to air.
_TISSUE = 0.15


@dataclass(frozen=True)
class Shadows:
    """The results of the shadow distillations.

    Args:
        first: [pairs, C], each patient's nearness (Fisher's scale) to the first set of a pair.
        second: [pairs, C], the same for the second set.
        is_first: [pairs, C], whether the first set was made from the patient.
    """

    first: Doubles
    second: Doubles
    is_first: Flags

    @property
    def inside(self) -> Doubles:
        """Nearness to the sets made from the patient."""
        return np.where(self.is_first, self.first, self.second)

    @property
    def outside(self) -> Doubles:
        """Nearness to the other sets."""
        return np.where(self.is_first, self.second, self.first)

    def log_ratio(self, nearness: Doubles) -> Doubles:
        """The log likelihood ratio, member to non-member, of the nearness [C] to another set."""
        inside, outside = self.inside, self.outside
        effect = float((inside - outside).mean())
        center = (inside.mean(axis=0) + outside.mean(axis=0)) / 2
        left = np.concatenate([inside - center - effect / 2, outside - center + effect / 2])
        spread = max(_LEAST_SPREAD, float(left.std()))
        ratio: Doubles = effect * (nearness - center) / spread**2
        return ratio


def shadow_count(config: AuditConfig) -> int:
    """The number of pairs of shadow distillations."""
    return config.shadows // 2


def smallest_shadow_p(patients: int, config: AuditConfig) -> float:
    """The smallest p possible with as many pairs."""
    halves = math.comb(patients, patients // 2)
    return max(float(halves) ** -shadow_count(config), 1 / (config.permutations + 1))


def distill_shadows(
    audited: Audited, gallery: Gallery, redistill: Redistill, config: AuditConfig, monitor: Monitor
) -> Shadows:
    """Distill random halves of the patients, each with its complement and the same seed."""
    rng = np.random.default_rng([config.seed, 1])
    names = list(audited.patients)
    pairs = shadow_count(config)
    first, second, drawn = [], [], []
    for pair in range(pairs):
        is_first = _halved(len(names), rng)
        sets = []
        for number, chosen in enumerate((is_first, ~is_first)):
            monitor.progress((pair + number / 2) / pairs, "shadow distillations")
            members = {n: audited.patients[n] for n, c in zip(names, chosen, strict=True) if c}
            images = check_redistilled(redistill(members, config.seed + 1 + pair), audited)
            sets.append(gallery.nearest(images).z.max(axis=0))
        first.append(sets[0])
        second.append(sets[1])
        drawn.append(is_first)
    return Shadows(np.array(first), np.array(second), np.array(drawn))


def shadow_finding(shadows: Shadows, config: AuditConfig, level: float) -> Finding:
    """Test whether sets are nearer to the patients that they were made from."""
    pairs, patients = shadows.is_first.shape
    trials = pairs * patients
    differences = shadows.inside - shadows.outside
    right = float(np.mean((differences > 0) + 0.5 * (differences == 0)))
    smallest_p = smallest_shadow_p(patients, config)
    detectable = smallest_detectable_rate(trials, 0.5, level) if smallest_p <= level else None
    return Finding(
        attack="shadows",
        title="Which of two sets was made from a patient? (shadow distillations)",
        sentence=(
            f"Right in {right:.0%} of {trials} trials ({patients} patients in {pairs} pairs of "
            "sets); guessing is right in 50 %."
        ),
        p=_shadow_p(shadows, config),
        level=level,
        smallest_p=smallest_p,
        detectable=detectable,
        power=(
            "It cannot notice any leak, however large: more shadows are needed."
            if detectable is None
            else f"A leak that gives right answers in {detectable:.0%} of trials is noticed in "
            f"{OFTEN} audits, a weaker one less often."
        ),
        measured={
            "right": right,
            "interval": list(rate_interval(round(right * trials), trials)),
            "interval_method": "Clopper-Pearson over trials",
            "trials": trials,
            "mean_effect": float(differences.mean()),
        },
    )


def lira_finding(audited: Audited, nearest: Nearest, shadows: Shadows, level: float) -> Finding:
    """Test whether the real set looks as if it was made from the training patients."""
    nearness = nearest.z.max(axis=0)
    ratios = dict(zip(nearest.patients, shadows.log_ratio(nearness).tolist(), strict=True))
    return compare_groups(
        audited,
        ratios,
        level,
        attack="lira",
        title="Who were the used patients? (LiRA, against the shadows)",
    )


def _halved(count: int, rng: np.random.Generator) -> Flags:
    chosen = np.zeros(count, bool)
    chosen[rng.permutation(count)[: count // 2]] = True
    return chosen


def _shadow_p(shadows: Shadows, config: AuditConfig) -> float:
    """The p of the mean difference, among halves that might have been drawn instead."""
    rng = np.random.default_rng([config.seed, 2])
    difference = shadows.first - shadows.second
    sign = np.where(shadows.is_first, 1.0, -1.0)
    # With an odd number of patients, which of the two sets is the smaller one stays.
    drawn = np.zeros(config.permutations)
    for pair, signs in zip(difference, sign, strict=True):
        drawn += rng.permuted(np.tile(signs, (config.permutations, 1)), axis=1) @ pair
    return permutation_p(float(np.sum(difference * sign)), drawn)


@dataclass(frozen=True)
class Canary:
    """A lesion to be searched, and its decoys.

    Args:
        patient: who gets the lesion.
        lesions: [1 + decoys, S, S], around 0; the first one is planted.
        at: row and column of its center.
    """

    patient: str
    lesions: Floats
    at: tuple[int, int]

    def planted(self, slices: Images) -> Images:
        """The patient's slices with the lesion in the middle third."""
        changed = slices.copy()
        third = len(slices) // 3
        where = slice(third, len(slices) - third)
        disc = _disc(self.lesions.shape[1])
        tissue = changed[where, *self._window(0)]
        level = (tissue * disc).sum(axis=(1, 2), keepdims=True) / disc.sum()
        # Replaces the tissue at about its brightness: added to it, bright lesions would be clipped.
        lesion = np.clip(level, *_LEVELS) + self.lesions[0]
        changed[where, *self._window(0)] = (1 - disc) * tissue + disc * lesion
        return changed

    def rank(self, images: Images) -> int:
        """The rank of the planted lesion by its visibility in the images; 1: the most visible."""
        visible = self._visible(images)
        return int(np.count_nonzero(visible >= visible[0]))

    def _visible(self, images: Images) -> Floats:
        """The highest correlation of each lesion's details with any image near its place."""
        side = self.lesions.shape[1]
        disc = _disc(side) > 0
        wanted = _details(np.pad(self.lesions, ((0, 0), (side, side), (side, side))))
        wanted = wanted[:, side:-side, side:-side][:, disc]
        wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        floor = _EMPTY * np.sqrt(np.count_nonzero(disc))
        highest = np.full(len(wanted), -1.0, np.float32)
        for image in images:
            shown = _details(image[None])[0][self._window(_MOVED)]
            places = np.lib.stride_tricks.sliding_window_view(shown, (side, side))[..., disc]
            size = np.maximum(np.linalg.norm(places, axis=-1), floor)
            scores = (places @ wanted.T) / size[..., None]
            highest = np.maximum(highest, scores.max(axis=(0, 1)))
        return highest

    def _window(self, margin: int) -> tuple[slice, slice]:
        reach = self.lesions.shape[1] // 2 + margin
        row, column = self.at
        return slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1)


def make_canaries(audited: Audited, config: AuditConfig) -> list[Canary]:
    """Draw a canary for each training patient, in tissue."""
    rng = np.random.default_rng([config.seed, 4])
    canaries = []
    for name in audited.tested_training:
        slices = audited.training[name]
        side = min(slices.shape[1:])
        radius = min(max(_SMALLEST_RADIUS, round(_RADIUS * side)), side // 4)
        at = _in_tissue(slices[len(slices) // 2], radius + _MOVED, rng)
        canaries.append(Canary(name, _lesions(1 + config.decoys, radius, rng), at))
    return canaries


def smallest_canary_p(audited: Audited, config: AuditConfig) -> float:
    """The smallest p possible with as many canaries."""
    return combined_p([1 / (config.decoys + 1)] * len(audited.tested_training))


def plant_canaries(
    audited: Audited, redistill: Redistill, config: AuditConfig, level: float, monitor: Monitor
) -> Finding:
    """Plant lesions, distill, and search them."""
    monitor.progress(0.0, "distilling planted lesions")
    canaries = make_canaries(audited, config)
    planted = {c.patient: c.planted(audited.training[c.patient]) for c in canaries}
    # A lesion that does not stand out from its decoys where it was planted proves nothing.
    legible = [c for c in canaries if c.rank(planted[c.patient]) == 1]
    images = check_redistilled(redistill(dict(planted), config.seed), audited)
    ranks = [canary.rank(images) for canary in legible]
    return _finding(ranks, config, level)


def _finding(ranks: list[int], config: AuditConfig, level: float) -> Finding:
    count, chance = len(ranks), 1 / (config.decoys + 1)
    first = sum(rank == 1 for rank in ranks)
    detectable = smallest_detectable_share(count, chance, level)
    return Finding(
        attack="canaries",
        title="Are planted lesions still to be seen?",
        sentence=(
            f"{first} of {count} planted lesions are more visible than all {config.decoys} "
            f"others that were not planted; by chance {chance:.0%} are."
        ),
        p=combined_p([rank * chance for rank in ranks]) if ranks else 1.0,
        level=level,
        smallest_p=combined_p([chance] * count) if ranks else 1.0,
        detectable=detectable,
        power=(
            "With as few lesions it cannot notice any leak, however large: more patients or "
            "decoys are needed."
            if detectable is None
            else f"A leak that lets {detectable:.0%} of such lesions through is noticed in "
            f"{OFTEN} audits, a weaker one less often."
        ),
        measured={
            "recovered": first,
            "planted": count,
            "interval": list(rate_interval(first, count)) if count else [0.0, 1.0],
            "interval_method": "Clopper-Pearson over lesions",
            "ranks": ranks,
            "decoys": config.decoys,
        },
    )


def _lesions(count: int, radius: int, rng: np.random.Generator) -> Floats:
    """[count, S, S]: random grains in a disc with a soft rim."""
    side = 2 * radius + 1
    grains = blur(rng.standard_normal((count, side, side), np.float32), _GRAIN)
    disc = _disc(side)
    grains = grains - (grains * disc).sum(axis=(1, 2), keepdims=True) / disc.sum()
    spread = np.sqrt((grains**2 * disc).sum(axis=(1, 2), keepdims=True) / disc.sum())
    lesions: Floats = (_AMPLITUDE * disc * np.clip(grains / spread, -2, 2) / 2).astype(np.float32)
    return lesions


def _disc(side: int) -> Floats:
    row, column = np.mgrid[:side, :side] - side // 2
    disc: Floats = np.clip(side / 2 - np.hypot(row, column), 0, 1).astype(np.float32)
    return disc


def _in_tissue(image: Images, margin: int, rng: np.random.Generator) -> tuple[int, int]:
    """A random place in tissue; if there is none, the place with the brightest surroundings."""
    inner = (slice(margin, -margin), slice(margin, -margin))
    surroundings = blur(image[None], margin / 2)[0][inner]
    places = np.argwhere(surroundings > min(_TISSUE, float(surroundings.max())) - 1e-6)
    row, column = places[rng.integers(len(places))]
    return int(row) + margin, int(column) + margin


def _details(images: npt.NDArray[np.float32]) -> Floats:
    return blur(images, _FINE) - blur(images, _COARSE)
