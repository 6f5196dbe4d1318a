"""Canaries: is what one patient alone has still to be seen after the distillation?

A lesion of unique texture is planted in the raw slices of each training patient, and the planted
cohort is distilled. Then each planted lesion and its decoys, lesions that were drawn the same way
for the same place and planted nowhere, are looked for in the images. Without a leak any of them is
as likely to be the most visible as any other, whatever the images show: with 99 decoys a planted
lesion comes first once in a hundred times. The ranks of all lesions are combined after Fisher.

Source: Carlini et al., The Secret Sharer (USENIX Security 2019, arXiv 1802.08232), in images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit.audited import Audited, Images, check_redistilled
from MedEnhanceLib.spg.audit.config import AuditConfig
from MedEnhanceLib.spg.audit.findings import Finding
from MedEnhanceLib.spg.audit.membership import Redistill
from MedEnhanceLib.spg.audit.similarity import Floats, blur
from MedEnhanceLib.spg.audit.statistics import (
    combined_p,
    rate_interval,
    smallest_detectable_share,
)

#: Share of an image's side; of a range of [0, 1]; pixels. Coarser grains make lesions resemble
#: each other, and then a decoy is found wherever the planted one is.
_RADIUS, _AMPLITUDE, _GRAIN = 0.13, 0.35, 0.9
_SMALLEST_RADIUS = 8
#: Pixels by which a lesion may have moved.
_MOVED = 1
#: Details of lesions, in pixels, where anatomy has little; contrast below which nothing is shown.
_FINE, _COARSE, _EMPTY = 0.7, 3.0, 0.01
#: Mean grey levels of a lesion, between which its texture fits into [0, 1].
_LEVELS = (_AMPLITUDE, 1 - _AMPLITUDE)
#: Grey level of tissue, as opposed to air.
_TISSUE = 0.15


@dataclass(frozen=True)
class Canary:
    """A lesion to be looked for.

    lesions: [1 + decoys, S, S], around 0; the first one is planted. at: its middle.
    """

    patient: str
    lesions: Floats
    at: tuple[int, int]

    def planted(self, slices: Images) -> Images:
        """The patient's slices, the middle third with the lesion."""
        changed = slices.copy()
        third = len(slices) // 3
        where = slice(third, len(slices) - third)
        disc = _disc(self.lesions.shape[1])
        tissue = changed[where, *self._window(0)]
        level = (tissue * disc).sum(axis=(1, 2), keepdims=True) / disc.sum()
        # In place of the tissue, at about its brightness: added to it, bright ones would be cut.
        lesion = np.clip(level, *_LEVELS) + self.lesions[0]
        changed[where, *self._window(0)] = (1 - disc) * tissue + disc * lesion
        return changed

    def rank(self, images: Images) -> int:
        """How many lesions are at least as visible as the planted one in some image, itself too."""
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
    """One for each training patient, in tissue, its texture drawn."""
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
    """The best p that so many canaries allow."""
    return combined_p([1 / (config.decoys + 1)] * len(audited.tested_training))


def plant_canaries(
    audited: Audited, redistill: Redistill, config: AuditConfig, level: float, monitor: Monitor
) -> Finding:
    """Plant, distil, and look for what was planted."""
    monitor.progress(0.0, "distilling planted lesions")
    canaries = make_canaries(audited, config)
    planted = {c.patient: c.planted(audited.training[c.patient]) for c in canaries}
    # A lesion that cannot be told from its decoys where it was put proves nothing elsewhere.
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
            f"{first} of {count} planted lesions are more visible than all of their "
            f"{config.decoys} decoys, where chance makes it {chance:.0%}."
        ),
        p=combined_p([rank * chance for rank in ranks]) if ranks else 1.0,
        level=level,
        smallest_p=combined_p([chance] * count) if ranks else 1.0,
        detectable=detectable,
        power=(
            "With so few lesions it could find nothing: more patients or decoys are needed."
            if detectable is None
            else f"It is found if {detectable:.0%} of such lesions come through."
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
    """[count, S, S]: grains of a random texture in a disc whose rim fades."""
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
    """A place whose surroundings are tissue; the brightest surroundings where none are."""
    inner = (slice(margin, -margin), slice(margin, -margin))
    surroundings = blur(image[None], margin / 2)[0][inner]
    places = np.argwhere(surroundings > min(_TISSUE, float(surroundings.max())) - 1e-6)
    row, column = places[rng.integers(len(places))]
    return int(row) + margin, int(column) + margin


def _details(images: npt.NDArray[np.float32]) -> Floats:
    return blur(images, _FINE) - blur(images, _COARSE)
