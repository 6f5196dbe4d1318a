"""Patients with outlined tumours, their simulated low-quality scans, and batches of both."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from _common import REPOSITORY, SHARED_DATA
from _enhancement_cache import code_hash, key_of
from torch import Tensor

from MedEnhanceLib.degrade import low_dose_noise, rician_noise, robust_max
from MedEnhanceLib.io import load

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
One = TypeVar("One")

FOLDER = REPOSITORY / "runs" / "gradprom"
#: Image and outline below a patient's folder.
FILES = {
    "CT": ("ct/sts", "CT.nii.gz", "CT_gtv.nii.gz"),
    "MR": ("mr/sts", "MR_T1.nii.gz", "MR_T1_gtv.nii.gz"),
}
#: A soft-tissue window: its lower end is 0, its upper end 1. What is far outside says nothing
#: about a tumour in muscle, and would be most of every loss.
WINDOW_HU = (-160.0, 240.0)
CLIPPED = (-0.5, 1.5)
#: Pixels of a CT are averaged 2 × 2, so that a network of this size sees a whole limb.
REDUCED = {"CT": 2, "MR": 1}
#: Above this a voxel is body, on the network's scale: −260 HU, a tenth of the brightest tissue.
BODY = {"CT": -0.25, "MR": 0.1}
FOLDS = 3
#: Neighboring slices are nearly the same: splits of a patient are blocks of slices.
_BLOCK = 4
#: Slices beyond each end of a tumour that are used: a head of this size that trains for seconds
#: learns what a tumour looks like, not whether there is one anywhere.
MARGIN = 2
#: Eight patients are soon known by heart: contrast and brightness of what is trained on vary.
_GAIN, _SHIFT = (0.8, 1.25), (-0.15, 0.15)
_WITH_TUMOUR = 0.7


@dataclass(frozen=True)
class Damage:
    """Strength of the simulated noise.

    photons: per ray and pixel, CT. rician: σ as a share of the brightest tissue, MR.
    """

    photons: float = 1500.0
    electronic: float = 5.0
    rician: float = 0.15

    def of(self, modality: str) -> str:
        if modality == "CT":
            return f"low dose, {self.photons:g} photons per ray, electronic noise {self.electronic}"
        return f"Rician noise, σ {self.rician:.0%} of the brightest tissue"


@dataclass(frozen=True)
class Case:
    """One patient on the network's scale: all arrays [K, J, I], noisy versions [N, K, J, I].

    The first noisy version is what a test uses; the others are for training.
    """

    subject: str
    clean: Floats
    noisy: Floats
    tumour: Bytes
    body: Mask


def load_cases(modality: str, damage: Damage, versions: int, *, most: int = 0) -> list[Case]:
    """All patients, or the first `most`; kept on disk, for simulation takes longer than reading."""
    folder, image, outline = FILES[modality]
    found = sorted((SHARED_DATA / folder).glob(f"*/{image}"))
    if not found:
        raise SystemExit(f"no {image} below {SHARED_DATA / folder}: the open volumes are not there")
    code = code_hash("_gradprom_data.py", "MedEnhanceLib/degrade/lowdose.py")
    cases = []
    for path in found[: most or None]:
        key = key_of(modality, damage, versions, path.parent.name, code)
        kept = FOLDER / "data" / f"{key}.npz"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            arrays = simulated(path, path.with_name(outline), modality, damage, versions)
            # NumPy adds ".npz" to any other ending.
            partial = kept.with_suffix(".partial.npz")
            np.savez(partial, **arrays)
            partial.replace(kept)
        stored = np.load(kept)
        body = stored["clean"] > BODY[modality]
        cases.append(
            Case(path.parent.name, stored["clean"], stored["noisy"], stored["tumour"], body)
        )
    return cases


def simulated(
    image: Path, outline: Path, modality: str, damage: Damage, versions: int
) -> dict[str, npt.NDArray[np.float32] | Bytes]:
    volume = load(image, modality=modality)
    outlined = load(outline, modality="SEG").voxels > 0
    near = around(outlined)
    tumour = outlined[near]
    times = REDUCED[modality]
    voxels = reduced(volume.voxels[near].astype(np.float32), times)
    spacing = [side * times for side in volume.geometry.spacing[:2]]
    name = zlib.crc32(image.parent.name.encode())
    noisy = []
    for version in range(versions):
        rng = np.random.default_rng([name, version])
        if modality == "CT":
            noise = low_dose_noise(
                voxels,
                [*spacing, volume.geometry.spacing[2]],
                damage.photons,
                damage.electronic,
                rng,
            )
            noisy.append(scaled_ct(voxels + noise))
        else:
            bright = robust_max(voxels)
            noisy.append(rician_noise(voxels, damage.rician * bright, rng) / np.float32(bright))
    clean = scaled_ct(voxels) if modality == "CT" else voxels / np.float32(robust_max(voxels))
    return {
        "clean": np.clip(clean, *CLIPPED).astype(np.float32),
        "noisy": np.clip(np.stack(noisy), *CLIPPED).astype(np.float32),
        "tumour": (reduced(tumour.astype(np.float32), times) >= 0.5).astype(np.uint8),
    }


def around(tumour: Mask) -> slice:
    """The slices with the tumour, and a few beyond it."""
    shown = np.flatnonzero(tumour.any(axis=(1, 2)))
    return slice(max(int(shown[0]) - MARGIN, 0), int(shown[-1]) + 1 + MARGIN)


def reduced(voxels: Floats, times: int) -> Floats:
    """Mean of `times` × `times` pixels within slices; a last odd row or column is left out."""
    if times == 1:
        return voxels
    depth, rows, columns = voxels.shape
    rows, columns = rows // times, columns // times
    blocks = voxels[:, : rows * times, : columns * times].reshape(
        depth, rows, times, columns, times
    )
    mean: Floats = blocks.mean(axis=(2, 4))
    return mean


def scaled_ct(hu: Floats) -> Floats:
    low, high = WINDOW_HU
    return (hu - np.float32(low)) / np.float32(high - low)


def split(cases: list[One], seed: int) -> tuple[list[One], list[One]]:
    """Patients for training and for testing: seeds 0, 1, 2 test all patients once between them."""
    order = np.random.default_rng(seed // FOLDS).permutation(len(cases))
    tested = {int(place) for place in np.array_split(order, FOLDS)[seed % FOLDS]}
    return (
        [case for place, case in enumerate(cases) if place not in tested],
        [case for place, case in enumerate(cases) if place in tested],
    )


@dataclass(frozen=True)
class Batch:
    """noisy: [B, 3, P, P], a slice between its neighbors. clean, tumour: [B, 1, P, P]."""

    noisy: Tensor
    clean: Tensor
    tumour: Tensor


class Slices:
    """Draws batches of one half of the training patients' slices: "A" for the head, "B"."""

    def __init__(self, cases: list[Case], half: str) -> None:
        self._cases = cases
        kept = "AB".index(half)
        self._own = [
            np.array([k for k in range(len(case.clean)) if k // _BLOCK % 2 == kept])
            for case in cases
        ]
        self._with_tumour = [
            own[case.tumour[own].any(axis=(1, 2))]
            for case, own in zip(cases, self._own, strict=True)
        ]

    def draw(self, count: int, side: int, rng: np.random.Generator) -> Batch:
        drawn = [self._one(side, rng) for _ in range(count)]
        noisy, clean, tumour = (
            torch.from_numpy(np.stack(part)) for part in zip(*drawn, strict=True)
        )
        return Batch(noisy, clean, tumour)

    def _one(self, side: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
        place = int(rng.integers(len(self._cases)))
        case = self._cases[place]
        wanted = self._with_tumour[place] if rng.random() < _WITH_TUMOUR else self._own[place]
        index = int(rng.choice(wanted if len(wanted) else self._own[place]))
        version = int(rng.integers(1, len(case.noisy)))
        stack = case.noisy[version][neighbors(index, len(case.clean))]
        arrays = (stack, case.clean[index][None], case.tumour[index][None].astype(np.float32))
        rows, columns = (
            int(rng.integers(max(length - side, 0) + 1)) for length in case.clean.shape[1:]
        )
        flips = tuple(slice(None, None, int(step)) for step in rng.choice((-1, 1), size=2))
        turned = (0, 2, 1) if rng.random() < 0.5 else (0, 1, 2)
        gain, shift = np.float32(rng.uniform(*_GAIN)), np.float32(rng.uniform(*_SHIFT))
        found = []
        for array, mode in zip(arrays, ("edge", "edge", "constant"), strict=True):
            cut = array[:, rows : rows + side, columns : columns + side]
            short = [(0, 0), *((0, side - length) for length in cut.shape[1:])]
            found.append(np.pad(cut, short, mode=mode)[:, *flips].transpose(turned))
        # Clean and noisy alike, so that what an enhancer has to learn stays the same.
        found[:2] = [gain * image + shift for image in found[:2]]
        arrays = tuple(np.ascontiguousarray(array) for array in found)
        return arrays[0], arrays[1], arrays[2]


def neighbors(index: int, depth: int) -> list[int]:
    """A slice between the two beside it; at an end it stands in for the missing one."""
    return [max(index - 1, 0), index, min(index + 1, depth - 1)]
