"""References with thin slices for the benchmark of slices, and how they are made thick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load
from MedEnhanceLib.learning.intensity import TISSUE, scaling_for
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.slices.profile import Shape, SliceStack

Floats = npt.NDArray[np.float32]
#: Pixels kept along both axes of a slice, around the middle, so that a run takes minutes.
CROP = 32 if QUICK else 128
#: Slices kept where rows take the place of slices.
SLICES = 12 if QUICK else 24
#: Rows of the abdomen that show the patient; above them lie the two thin plates of the table.
BODY = slice(96, 352)


@dataclass(frozen=True)
class Reference:
    """Thin slices [M, A, B] on the network's scale.

    site: where it was acquired, and what the shipped model has seen of it. thin_mm: between
    slices. across_mm: pixel size along A and B. times: thicknesses to test, in thin slices.
    """

    name: str
    site: str
    modality: str
    voxels: Floats
    thin_mm: float
    across_mm: tuple[float, float]
    times: tuple[int, ...] = (2, 3, 4, 6)

    @property
    def tissue(self) -> npt.NDArray[np.bool_]:
        """Where errors are measured."""
        return np.asarray(self.voxels > TISSUE[self.modality])

    @property
    def profile(self) -> Shape:
        """As `enhance_slices` assumes it."""
        return "box" if self.modality == "CT" else "gaussian"


def references() -> Iterator[Reference]:
    """All references, one after the other."""
    if QUICK:
        yield _brain("C07", "", "mr/open_ms/C07/T1.nii.gz")
        yield _rows("abdomen CT", "", "ct/abdomen/CT.nii.gz", "CT")
        return
    yield _brain("template", "average of 152, unseen", "sample/mni152_t1.nii.gz")
    yield replace(_studyforrest(), times=(3, 4, 6))
    c07 = _brain("C07", "open_ms, other patients seen", "mr/open_ms/C07/T1.nii.gz")
    yield replace(c07, times=(3, 4))
    yield _rows("STS_005 MR", "STS, other patients seen", "mr/sts/STS_005/MR_T1.nii.gz", "MR")
    yield _rows("STS_037 CT", "STS, other patients seen", "ct/sts/STS_037/CT.nii.gz", "CT")
    abdomen = _rows("abdomen CT, table", "TotalSegmentator, unseen", "ct/abdomen/CT.nii.gz", "CT")
    yield replace(abdomen, name="abdomen CT", voxels=abdomen.voxels[BODY])
    yield abdomen
    yield _cubes("STS_013 CT, 3 mm", "STS, other patients seen", "ct/sts/STS_013/CT.nii.gz")


def thickened(
    reference: Reference, times: int, noise: float, seed: int
) -> tuple[SliceStack, Floats, Floats]:
    """The stack, its thick slices [K, A, B] with noise, and the thin slices that they cover."""
    thick = len(reference.voxels) // times
    thin = reference.voxels[: thick * times]
    spacing = times * reference.thin_mm
    stack = SliceStack(thick, spacing, spacing, len(thin), reference.profile)
    slices = along(stack.thicken(), thin)
    if noise:
        rng = np.random.default_rng(seed)
        parts = rng.standard_normal((2, *slices.shape)).astype(np.float32) * np.float32(noise)
        # Magnitudes of MR have Rician noise.
        slices = (
            np.hypot(slices + parts[0], parts[1])
            if reference.modality == "MR"
            else (slices + parts[0])
        )
    return stack, slices, thin


def along(matrix: npt.NDArray[np.float64], slices: npt.NDArray[Any]) -> Floats:
    """A matrix [N, K] applied to slices [K, A, B] along the first axis."""
    return np.tensordot(matrix.astype(np.float32), slices, axes=1)


def _scaled(volume: Volume) -> Floats:
    return scaling_for(volume).apply(volume.voxels)


def _middle(voxels: Floats) -> Floats:
    for axis in (1, 2):
        first = max(0, (voxels.shape[axis] - CROP) // 2)
        voxels = np.take(voxels, range(first, min(first + CROP, voxels.shape[axis])), axis=axis)
    return np.ascontiguousarray(voxels)


def _brain(name: str, site: str, file: str) -> Reference:
    volume = load(SHARED_DATA / file, modality="MR")
    return Reference(name, site, "MR", _middle(_scaled(volume)), 1.0, (1.0, 1.0))


def _studyforrest() -> Reference:
    """Averaged from 0.7 to 1 mm, which lowers its noise."""
    sitk = require("SimpleITK", purpose="Resampling")
    volume = load(SHARED_DATA / "mr/studyforrest/T1.nii.gz", modality="MR")
    image = sitk.GetImageFromArray(_scaled(volume))
    image.SetSpacing(volume.geometry.spacing)
    widths = [float(np.sqrt(1 - s * s)) / 2.355 for s in image.GetSpacing()]
    size = [int(n * s) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetOrigin([(1 - s) / 2 for s in image.GetSpacing()])
    smooth = sitk.SmoothingRecursiveGaussian(image, widths)
    voxels = sitk.GetArrayFromImage(sitk.Resample(smooth, grid, sitk.Transform(), sitk.sitkLinear))
    return Reference("studyforrest", "Magdeburg, unseen", "MR", _middle(voxels), 1.0, (1.0, 1.0))


def _rows(name: str, site: str, file: str, modality: str) -> Reference:
    """Rows take the place of slices, as their pixels are fine."""
    volume = load(SHARED_DATA / file, modality=modality)
    voxels = _scaled(volume).transpose(1, 0, 2)
    i, j, k = volume.geometry.spacing
    first = max(0, (voxels.shape[1] - SLICES) // 2)
    part = voxels[:, first : first + SLICES]
    return Reference(name, site, modality, _middle(part), j, (k, i))


def _cubes(name: str, site: str, file: str) -> Reference:
    """Pixels averaged to about the distance of the slices: a real through-plane direction."""
    volume = load(SHARED_DATA / file, modality="CT")
    voxels = _scaled(volume)
    k, j, i = voxels.shape
    binned = voxels[:, : j // 3 * 3, : i // 3 * 3].reshape(k, j // 3, 3, i // 3, 3)
    pixel = 3 * volume.geometry.spacing[0]
    return Reference(
        name,
        site,
        "CT",
        np.ascontiguousarray(binned.mean(axis=(2, 4))),
        volume.geometry.spacing[2],
        (pixel, pixel),
        times=(2, 3),
    )
