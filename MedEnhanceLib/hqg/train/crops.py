"""Crops of volumes, filtered and matched: what a training step learns from.

Clean volumes get fresh noise; real noisy ones are taken as they are. A crop depends on the seed,
the kind and its number alone. It is the same in another process, and after the training was stopped
and resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.degradation.lowdose import low_dose_noise
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.groups import STEP, Places
from MedEnhanceLib.hqg.train.guides import GuidePair, draw_guide
from MedEnhanceLib.hqg.train.targets import Target
from MedEnhanceLib.native import CELLS, SIDE
from MedEnhanceLib.nets import grouped
from MedEnhanceLib.nets.grouped_run import Stage
from MedEnhanceLib.nets.intensity import TISSUE
from MedEnhanceLib.nets.noise import measure_noise
from MedEnhanceLib.nets.rician import mean_magnitude
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
Where = tuple[slice, slice, slice]
#: With and without guides, with planted lesions too, and of real noisy volumes.
Kind = Literal["plain", "guided", "lesions", "real"]
#: What distinguishes the random numbers of a kind.
_KEYS: dict[Kind, tuple[int, ...]] = {
    "plain": (0, 0),
    "guided": (1, 0),
    "lesions": (1, 1),
    "real": (2,),
}
#: Voxels of a crop along slices, rows and columns.
SHAPE = (28, 72, 72)
#: Share of tissue that a crop should have, and how often another place is tried.
_LEAST_TISSUE, _TRIES = 0.5, 6
#: Share of labeled crops that contain a labeled voxel for sure.
_LABELED_SHARE = 0.8
#: σ of added noise as a share of the range.
_SIGMA = (0.02, 0.18)
_RICIAN_SHARE, _MAPPED_SHARE, _GAMMA_SHARE = 0.4, 0.3, 0.5
#: Photons per ray of simulated CT, uniform in the logarithm, electronic noise, and kernels.
_PHOTONS, _ELECTRONIC, _CUTOFFS = (3e3, 5e4), 5.0, (2.0, 2.0, 1.2)
#: Share of these photons where voxels were averaged: wide rays are too quiet otherwise.
_OF_WIDE_RAYS = 1 / 6
#: Draws of a slab of CT, and between their numbers, until its noise is above its own.
_ATTEMPTS, _APART = 20, 1_000_000
#: Least ratio of the noise to the clean volume's own: closer to it, keeping noise would be learned.
_OVER_OWN = 3.0
#: Crops out of one simulated slab of CT.
_OF_A_SLAB = 6


@dataclass(frozen=True, eq=False)
class Noisy:
    """What the filter made of a crop.

    Attributes:
        noisy, pilot, estimate: [K, J, I] on the network's scale.
        target: the same without noise; of magnitudes the mean that noise leaves of them. Of a real
            noisy volume the noisy one, which nothing learns from.
        places: of its groups.
    """

    noisy: Tensor
    pilot: Tensor
    estimate: Tensor
    target: Tensor
    places: Places


@dataclass(frozen=True, eq=False)
class Crop:
    """One crop.

    Attributes:
        plain: what the filter made of it.
        tissue: [K, J, I], whether there is tissue.
        guide: of the examination, with what is known about it; None without.
        planted: the same crop with a lesion in the input; None without.
        lesion: [K, J, I], the lesion's contrast in the input or in the guide; None without.
        labels: [K, J, I], indices of a task's labels; None without.
        subject: number among the task's subjects.
    """

    plain: Noisy
    tissue: Tensor
    guide: GuidePair | None = None
    planted: Noisy | None = None
    lesion: Tensor | None = None
    labels: Tensor | None = None
    subject: int = 0


@dataclass
class CropMaker:
    """Makes crops by number.

    Attributes:
        targets: volumes; examinations for crops with guides.
        modality: MR or CT.
        blocks: in a group.
        seed: of all.
        kind: of the crops.
        engine: of the filter and the search.
    """

    targets: Sequence[Target]
    modality: str
    blocks: int
    seed: int
    kind: Kind = "plain"
    engine: grouped.Engine = field(default_factory=lambda: grouped.engine_for("cpu", Monitor()))

    def make(self, number: int) -> list[Crop]:
        """The crops of this number: several of a slab of simulated CT, or one.

        Raises InputError where no dose of CT adds noise above the volumes' own.
        """
        if self.kind == "real":
            return [self._of_real(self._rng(number))]
        if self.modality != "CT":
            return [self._of_mr(self._rng(number))]
        for attempt in range(_ATTEMPTS):
            crops = self._of_slab(self._rng(number + attempt * _APART))
            if crops:
                return crops
        raise InputError(
            "no simulated dose adds noise that is well above the volumes' own",
            "Give CT with less noise, of bodies and not of air alone.",
        )

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *_KEYS[self.kind], number])

    def _drawn(self, rng: np.random.Generator) -> Target:
        """Half of the crops at the resolution of the files, where there are both."""
        raw = rng.random() < 0.5
        some = [target for target in self.targets if target.is_raw == raw] or self.targets
        return some[int(rng.integers(len(some)))]

    def _of_real(self, rng: np.random.Generator) -> Crop:
        target = self.targets[int(rng.integers(len(self.targets)))]
        assert target.measured is not None
        voxels, tissue = target.series[0], TISSUE[self.modality]
        where = _place_of(voxels, tissue, rng)
        noisy, spectrum = np.ascontiguousarray(voxels[where]), target.measured.spectrum
        sigma = np.ascontiguousarray(target.measured[:][where])
        filtered = self._filtered(noisy, noisy, sigma, spectrum, target.spacing)
        return Crop(filtered, torch.from_numpy(noisy > tissue))

    def _of_mr(self, rng: np.random.Generator) -> Crop:
        target = self._drawn(rng)
        where = _place_of(target.series[0], TISSUE["MR"], rng, target.labels)
        clean = np.maximum(target.series[0][where], 0)
        # A segmenter that does not learn knows the gray values of its own training alone.
        if target.labels is None and rng.random() < _GAMMA_SHARE:
            clean = clean ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
        tissue = clean > TISSUE["MR"]
        guide, lesion, planted_clean = None, None, None
        if self.kind != "plain":
            has_pairs = self.kind == "lesions"
            guide, lesion, planted_clean = draw_guide(
                self.targets, target, where, clean, tissue, rng, lesions=has_pairs
            )
            if planted_clean is not None and not has_pairs:
                clean, planted_clean = planted_clean, None
        sigma, add = _drawn_noise(clean.shape, rng, least=_OVER_OWN * target.noise)

        def made(image: Floats) -> Noisy:
            return self._filtered(*add(image), sigma, None, target.spacing)

        return Crop(
            made(clean),
            torch.from_numpy(tissue),
            guide,
            None if planted_clean is None else made(planted_clean),
            lesion,
            _cut_labels(target.labels, where),
            target.subject,
        )

    def _of_slab(self, rng: np.random.Generator) -> list[Crop]:
        """Crops of a slab of CT at a simulated dose, with noise measured as in use.

        Empty where the noise is not well above the volume's own.
        """
        target = self._drawn(rng)
        voxels = target.series[0]
        depth = min(SHAPE[0], len(voxels))
        first, labels = int(rng.integers(len(voxels) - depth + 1)), target.labels
        if labels is not None:
            first = _place_of(voxels, TISSUE["CT"], rng, labels)[0].start
            labels = labels[first : first + depth]
        clean = voxels[first : first + depth]
        tissue = torch.from_numpy(clean > TISSUE["CT"])
        photons = float(np.exp(rng.uniform(*np.log(_PHOTONS))))
        photons *= 1 if target.is_raw else _OF_WIDE_RAYS
        cutoff = float(rng.choice(_CUTOFFS))
        added = low_dose_noise(
            clean * 1000, target.spacing, photons, _ELECTRONIC, rng, cutoff=cutoff
        )
        noisy = clean + added / np.float32(1000)
        noise = measure_noise(noisy, modality="CT", spacing=target.spacing)
        if not noise.level > _OVER_OWN * target.noise:
            return []
        whole = self._filtered(noisy, clean, noise[:], noise.spectrum, target.spacing)
        places = [_place_of(clean, TISSUE["CT"], rng, labels) for _ in range(_OF_A_SLAB)]
        return [
            Crop(
                _cut(whole, where),
                tissue[where],
                labels=_cut_labels(labels, where),
                subject=target.subject,
            )
            for where in places
        ]

    def _filtered(
        self,
        noisy: Floats,
        target: Floats,
        sigma: Floats,
        spectrum: Floats | None,
        spacing: Sequence[float],
    ) -> Noisy:
        """What the filter makes of a noisy crop, and its groups; as in use."""
        spectrum = np.ones(CELLS, np.float32) if spectrum is None else spectrum.reshape(-1)
        filtered = partial(
            grouped.denoised, noisy, sigma, spectrum, spacing=spacing, engine=self.engine, threads=1
        )
        # The rounds before the network, as `hqg.denoise` has them.
        is_ct = self.modality == "CT"
        rounds = grouped.CT_ROUNDS if is_ct else grouped.MR_ROUNDS
        pilot = filtered(rounds=rounds[:-1] if is_ct else rounds, pilot=None)
        estimate = filtered(rounds=rounds[-1:], pilot=pilot)
        places = self._places(estimate, sigma, spectrum, spacing)
        images = [torch.from_numpy(image) for image in (noisy, pilot, estimate, target)]
        return Noisy(images[0], images[1], images[2], images[3], places)

    def _places(
        self, estimate: Floats, sigma: Floats, spectrum: Floats, spacing: Sequence[float]
    ) -> Places:
        """Groups of a whole crop."""
        shape = estimate.shape
        each = grouped.Round(step=STEP, keep=self.blocks)
        stage = Stage(shape, grouped.window_for(spacing), each)
        layers = []
        for number, first in enumerate(stage.firsts):
            layer = stage.layer(number)
            slab = slice(first, first + stage.tall)
            found = self.engine.match(
                layer,
                range(layer.rows(shape[1])),
                pilot=np.ascontiguousarray(estimate[slab]),
                level=np.ascontiguousarray(sigma[slab]),
            )
            places = Places.of(found, spectrum, shape)
            layers.append(replace(places, index=places.index.long() + first * shape[1] * shape[2]))
        return replace(
            layers[0],
            index=torch.cat([places.index for places in layers]),
            distance=torch.cat([places.distance for places in layers]),
            sigma=torch.cat([places.sigma for places in layers]),
        )


def _drawn_noise(
    shape: tuple[int, ...], rng: np.random.Generator, *, least: float
) -> tuple[Floats, Callable[[Floats], tuple[Floats, Floats]]]:
    """σ of one draw of noise, and what adds it: clean image → noisy image and its mean."""
    sigma = np.full(shape, max(least, rng.uniform(*_SIGMA)), np.float32)
    if rng.random() < _MAPPED_SHARE:
        sigma *= _smooth_field(shape, rng)
    real = sigma * rng.standard_normal(shape, np.float32)
    if rng.random() >= _RICIAN_SHARE:
        return sigma, lambda clean: (clean + real, clean)
    imaginary = sigma * rng.standard_normal(shape, np.float32)

    def add(clean: Floats) -> tuple[Floats, Floats]:
        mean = mean_magnitude(torch.from_numpy(clean), torch.from_numpy(sigma)).numpy()
        return np.hypot(clean + real, imaginary), mean

    return sigma, add


def _smooth_field(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """A factor of 0.6 to 1.6 that changes slowly."""
    field_ = np.zeros(shape, np.float32)
    for axis, side in enumerate(shape):
        wave = np.cos(np.linspace(0, np.pi * rng.uniform(0.5, 1.5), side) + rng.uniform(0, 6.3))
        field_ += wave.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    factor: Floats = np.exp(field_ * np.float32(rng.uniform(0.05, 0.15)))
    return factor


def _place_of(
    voxels: Floats,
    tissue: float,
    rng: np.random.Generator,
    labels: npt.NDArray[np.uint8] | None = None,
) -> Where:
    """Where a crop is cut; most of it tissue, or around a labeled voxel, if there is such a place.

    voxels, labels: [K, J, I].
    """
    if labels is not None and rng.random() < _LABELED_SHARE and labels.any():
        labeled = np.unravel_index(rng.choice(np.flatnonzero(labels)), labels.shape)
        starts = [
            int(np.clip(at - rng.integers(size), 0, max(0, side - size)))
            for at, side, size in zip(labeled, labels.shape, SHAPE, strict=True)
        ]
        return _at(starts)
    best, most = _at((0, 0, 0)), -1.0
    for _ in range(_TRIES):
        sides = zip(voxels.shape, SHAPE, strict=True)
        where = _at([int(rng.integers(max(1, side - size + 1))) for side, size in sides])
        share = float((voxels[where] > tissue).mean())
        if share > most:
            best, most = where, share
        if share > _LEAST_TISSUE:
            break
    return best


def _at(starts: Sequence[int]) -> Where:
    """The crop that begins there."""
    k, j, i = (slice(start, start + size) for start, size in zip(starts, SHAPE, strict=True))
    return k, j, i


def _cut_labels(labels: npt.NDArray[np.uint8] | None, where: Where) -> Tensor | None:
    return None if labels is None else torch.from_numpy(labels[where].astype(np.int64))


def _cut(whole: Noisy, where: Where) -> Noisy:
    """A part of a slab, with the groups that lie wholly in it."""
    images = [
        each[where].contiguous()
        for each in (whole.noisy, whole.pilot, whole.estimate, whole.target)
    ]
    k, j, i = images[0].shape
    at = whole.places.corners() - torch.tensor([side.start for side in where])
    inside = ((at >= 0) & (at <= torch.tensor([k, j, i]) - SIDE)).all(-1).all(-1)
    moved = (at[inside] * torch.tensor([j * i, i, 1])).sum(-1)
    places = replace(whole.places.part(inside), index=moved, shape=(k, j, i))
    return Noisy(images[0], images[1], images[2], images[3], places)
