"""Volumes of speed.py: real ones, tiled to a size, or phantoms where these are not at hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from _common import QUICK, SHARED_DATA

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load

SIDE = 64 if QUICK else 512
HEAD = (8, 64, 64) if QUICK else (160, 256, 256)
#: Size of pixels.
PIXEL_MM = 0.8
#: Standard deviation of noise: of phantoms and tiled frames in percent of white; in HU, of a CT.
_MR_NOISE, _CT_NOISE = 5.0, 20.0


def tiled_ct(slices: int) -> Volume:
    """[slices, 512, 512] int16: a real CT mirrored and tiled, or shapes, with noise on it."""
    return _volume("ct/abdomen/CT.nii.gz", "CT", (slices, SIDE, SIDE))


def head_mr() -> Volume:
    """A real MR mirrored and tiled, or shapes with noise on them."""
    return _volume("mr/studyforrest/T1.nii.gz", "MR", HEAD)


def thick_head(thick: int) -> Volume:
    """The head with slices so many times as thick as its pixels are wide."""
    mr = head_mr()
    means = mr.voxels.reshape(-1, thick, *HEAD[1:]).mean(1).astype(np.int16)
    return replace(mr, voxels=means, geometry=geometry(thick * PIXEL_MM))


def _volume(path: str, modality: str, shape: tuple[int, int, int]) -> Volume:
    """A volume whose source says what it is: a file, or a phantom."""
    rng, is_ct = np.random.default_rng(0), modality == "CT"
    if (SHARED_DATA / path).is_file():
        voxels = _tiled(load(SHARED_DATA / path, modality=modality).voxels, shape)
        source, noise = f"{path}, mirrored and tiled", _CT_NOISE if is_ct else 0.0
    else:
        j, i = np.mgrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
        tissue = np.sin(9 * i) * np.cos(7 * j)
        tissue = 40 + 100 * tissue if is_ct else 600 + 300 * tissue
        plane = np.where(j**2 + i**2 < 0.7, tissue, -1000 if is_ct else 0).astype(np.int16)
        voxels = np.repeat(plane[None], shape[0], axis=0)
        source, noise = "phantom", _CT_NOISE if is_ct else _MR_NOISE * 10
    for plane in voxels if noise else ():
        plane[:] = _noisy(plane, noise, rng, is_magnitude=not is_ct)
    return Volume(voxels, geometry(1.0), modality=modality, source=source)


def diffusion_scan(shape: tuple[int, int, int, int]) -> Volume:
    """Frames of a real diffusion scan, tiled if it is smaller, or of a phantom."""
    from _sequence_data import DWI, gradients_of, opened

    rng, gradients = np.random.default_rng(0), gradients_of(((0, 2), (1000, 40)))
    if DWI.is_file() or QUICK:
        real = opened(DWI)
        if real.shape == shape:
            return replace(real, source=f"{DWI.parent.name}/{DWI.name}")
        frames, gradients = real.voxels, real.gradients
        source = f"{DWI.parent.name}/{DWI.name}, tiled, with noise"
    else:
        still, decay = _volume("", "MR", shape[1:]).voxels, rng.uniform(0.3, 0.7, 42)
        frames, source = still * decay[:, None, None, None], "phantom"
    noise = _MR_NOISE / 100 * float(np.percentile(frames, 99))
    voxels = np.empty(shape, np.int16)
    for number, frame in enumerate(voxels):
        seen = _tiled(frames[number % len(frames)], shape[1:])
        frame[:] = _noisy(seen, noise, rng, is_magnitude=True)
    repeated = tuple(gradients[n % len(frames)] for n in range(len(voxels)))
    return Volume(voxels, geometry(2.0), modality="MR", source=source, gradients=repeated)


def _tiled(voxels: Any, shape: tuple[int, ...]) -> Any:
    missing = [(0, max(0, size - have)) for size, have in zip(shape, voxels.shape, strict=True)]
    whole = np.pad(voxels, missing, mode="symmetric")[tuple(map(slice, shape))]
    return whole.astype(np.int16)


def _noisy(image: Any, sigma: float, rng: Any, *, is_magnitude: bool) -> Any:
    """Add normal noise; of a magnitude image to both of its channels."""
    real = image + rng.normal(0, sigma, image.shape)
    return np.hypot(real, rng.normal(0, sigma, image.shape)) if is_magnitude else real


def geometry(thickness: float) -> Geometry:
    """Pixels of PIXEL_MM in slices of a thickness in mm."""
    return Geometry((PIXEL_MM, PIXEL_MM, thickness))
