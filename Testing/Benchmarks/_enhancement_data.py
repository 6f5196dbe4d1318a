"""What enhancement is measured on: volumes and the damage that is done to them.

Slabs are cropped to the body, because BM4D takes minutes per million voxels and air has no signal.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import REPOSITORY

from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import LowDose, Rician
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]

#: The span that PSNR and SSIM refer to in CT: −1000 to 1000 HU.
CT_RANGE_HU = 2000.0
ELECTRONIC_PHOTONS = 5.0
#: Of slow arms, so that a new measure does not run them again.
KEPT_RESULTS = REPOSITORY / "runs" / "enhancement-results"
TEMPLATE = "sample template"
MR_SUBJECTS = ("mr/open_ms/C07/T1.nii.gz", "mr/studyforrest/T1.nii.gz")
CT_SUBJECTS = ("ct/abdomen/CT.nii.gz", "ct/sts/STS_013/CT.nii.gz", "ct/sts/STS_037/CT.nii.gz")
_MARGIN = 8
#: Side of the middle that is measured of a CT, in pixels.
_CT_SIDE = 160


@dataclass(frozen=True, eq=False)
class Subject:
    """A reference slab, the span that figures refer to, and where it shows tissue.

    lesion: real ones. whole, window: of a CT, whole slices, in which noise has to be simulated, and
    where the volume lies in them.
    """

    name: str
    volume: Volume
    span: float
    inside: Mask
    lesion: Mask | None = None
    whole: Volume | None = None
    window: Box = (slice(None), slice(None), slice(None))

    @property
    def modality(self) -> str:
        return self.volume.modality

    def damaged(self, case: Case, seed: int) -> Volume:
        if self.whole is None:
            return case.damage(self.volume, seed)
        return self.volume.with_voxels(case.damage(self.whole, seed).voxels[self.window])


@dataclass(frozen=True)
class Case:
    """One kind of damage.

    damage: (volume, seed) → damaged volume. planted: lesions are planted and looked for here.
    noise: of damage that is white noise alone, its σ as a share of the robust maximum.
    """

    name: str
    damage: Callable[[Volume, int], Volume]
    planted: bool = False
    noise: float | None = None


def _by(kind: Callable[[int], Any]) -> Callable[[Volume, int], Volume]:
    return lambda volume, seed: kind(seed).apply(volume)


CASES: dict[str, tuple[Case, ...]] = {
    "MR": (
        Case("Rician 10 %", _by(partial(Rician, 0.10)), planted=True, noise=0.10),
        Case("Rician 3 %", _by(partial(Rician, 0.03)), noise=0.03),
        Case("Rician 5 %", _by(partial(Rician, 0.05)), noise=0.05),
        Case("Rician 15 %", _by(partial(Rician, 0.15)), noise=0.15),
    ),
    "CT": (
        Case("low dose 5e3", _by(partial(LowDose, 5e3, ELECTRONIC_PHOTONS)), planted=True),
        Case("low dose 2e4", _by(partial(LowDose, 2e4, ELECTRONIC_PHOTONS))),
        Case("low dose 1e5", _by(partial(LowDose, 1e5, ELECTRONIC_PHOTONS))),
    ),
}


def subject_names(data: Path) -> list[str]:
    """The volumes; without the open volumes beside the project, the sample alone."""
    names = [TEMPLATE, *MR_SUBJECTS, *CT_SUBJECTS]
    return [name for name in names if name == TEMPLATE or (data / name).is_file()]


def modality_of(name: str) -> str:
    return "CT" if name.startswith("ct/") else "MR"


@lru_cache(maxsize=8)
def subject(name: str, data: Path, slices: int) -> Subject:
    """The central slices of a subject, cropped to the body; all slices where `slices` is 0."""
    volume = sample_volume() if name == TEMPLATE else load(data / name, modality=modality_of(name))
    lesion = (data / name).with_name("lesion.nii.gz")
    marked = load(lesion, modality="SEG") if lesion.is_file() else None
    if volume.modality == "CT":
        box = _box(volume, gaussian_blur(volume.voxels, 1.5) > -300, slices)
        return ct_subject(name, cropped(volume, box))
    top = robust_max(volume.voxels)
    inside = volume.voxels > 0.1 * top
    box = _box(volume, inside, slices)
    return Subject(
        name,
        cropped(volume, box),
        top,
        inside[box],
        None if marked is None else marked.voxels[box] > 0,
    )


def ct_subject(name: str, whole: Volume) -> Subject:
    window = (
        slice(None),
        *(
            slice(max(0, (n - _CT_SIDE) // 2), max(0, (n - _CT_SIDE) // 2) + _CT_SIDE)
            for n in whole.shape[1:]
        ),
    )
    start = 0, window[1].start, window[2].start
    volume = replace(
        whole,
        voxels=np.ascontiguousarray(whole.voxels[window]),
        geometry=whole.geometry.cropped(start),
    )
    body = gaussian_blur(volume.voxels, 1.5) > -300
    return Subject(name, volume, CT_RANGE_HU, body, whole=whole, window=window)


def sample_volume() -> Volume:
    return load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")


def _box(volume: Volume, inside: Mask, slices: int) -> Box:
    """The central slices, and around what is inside them a margin."""
    count = volume.shape[0]
    depth = min(slices or count, count)
    first = (count - depth) // 2
    parts = [slice(first, first + depth)]
    for axis in (1, 2):
        shown = np.flatnonzero(inside[parts[0]].any(axis=tuple({0, 1, 2} - {axis})))
        parts.append(slice(max(0, int(shown[0]) - _MARGIN), int(shown[-1]) + 1 + _MARGIN))
    return parts[0], parts[1], parts[2]


def cropped(volume: Volume, box: Box) -> Volume:
    start = box[0].start, box[1].start, box[2].start
    return replace(
        volume,
        voxels=np.ascontiguousarray(volume.voxels[box]),
        geometry=volume.geometry.cropped(start),
        history=(),
    )


def fingerprint(volume: Volume) -> str:
    """A hash of voxels and spacing."""
    digest = hashlib.sha256(repr((volume.shape, volume.geometry.spacing)).encode())
    digest.update(np.ascontiguousarray(volume.voxels))
    return digest.hexdigest()[:32]


def run_kept(
    run: Callable[[Volume], Volume], settings: str, volume: Volume, *, keep: bool
) -> tuple[Floats, float]:
    """The result's voxels and the CPU seconds it took, from the shelf where it is there."""
    key = json.dumps([settings, fingerprint(volume)]).encode()
    path = KEPT_RESULTS / f"{hashlib.sha256(key).hexdigest()[:32]}.npz"
    if keep and path.is_file():
        stored = np.load(path)
        return stored["voxels"], float(stored["cpu_s"])
    began = time.process_time()
    voxels = run(volume).voxels.astype(np.float32)
    seconds = time.process_time() - began
    if keep:
        KEPT_RESULTS.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".part.npz")
        np.savez(staged, voxels=voxels, cpu_s=seconds)
        staged.replace(path)
    return voxels, seconds
