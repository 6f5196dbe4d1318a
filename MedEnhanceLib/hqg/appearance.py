"""Measures the appearance of volumes: the sharpness and noise texture of a scanner.

What is measured are power spectra of blocks of tissue, at frequencies in cycles per mm: one of the
smoothest fifth of the blocks, which is noise, and one of the most detailed fifth, which is anatomy
and noise. `matching` compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Direction = Literal["in_plane", "through_plane"]
DIRECTIONS: tuple[Direction, ...] = ("in_plane", "through_plane")

#: Side of a block in voxels, and the distance between blocks.
_BLOCK, _STEP = 24, 12
#: Side of the cells whose means decide what is tissue, and the means of tissue, on the network's
#: scale. Means, because noise must not decide it.
_CELL = 4
_TISSUE = {"CT": (-0.2, 0.25), "MR": (0.08, 2.5)}
#: Planes that are measured, and blocks at most.
_PLANES, _MOST_BLOCKS, _FEWEST_BLOCKS = 48, 20_000, 24
#: Share of the blocks in each class, and below which frequency (cycles per voxel) they are sorted.
_CLASS, _SORTED_BELOW = 0.2, 0.15
#: Parts of a volume, of successive planes, whose spread is its uncertainty.
PARTS = 4
#: Through-plane resolution is compared up to this ratio of slice distance to pixel: thicker slices
#: are sampled too coarsely to have a transfer function.
_MOST_ANISOTROPIC = 1.6
#: Added before logarithms.
TINY = 1e-12


@dataclass(frozen=True)
class Spectra:
    """Power spectra of a volume's tissue in one direction.

    voxel_mm: distance of voxels in that direction, the larger one of two.
    frequencies: [F], cycles per mm, ascending.
    smooth: [parts, F], natural logarithm of the power density in the smoothest blocks.
    detailed: [parts, F], the same in the most detailed blocks.
    """

    voxel_mm: float
    frequencies: Doubles
    smooth: Doubles
    detailed: Doubles

    def at(self, frequencies: Doubles) -> tuple[Doubles, Doubles]:
        """Both classes at other frequencies, [parts, F] each."""
        smooth, detailed = (
            np.stack([np.interp(frequencies, self.frequencies, part) for part in parts])
            for parts in (self.smooth, self.detailed)
        )
        return smooth, detailed


@dataclass(frozen=True)
class Appearance:
    """Sharpness and noise of one volume, or of several of the same kernel or scanner.

    patients: the spectra of each volume by direction; `through_plane` is missing where slices are
        thick.
    """

    modality: str
    patients: tuple[dict[Direction, Spectra], ...]


def measure_appearance(volume: Volume, monitor: Monitor | None = None) -> Appearance:
    """Measure sharpness and noise in a volume's tissue.

    Args:
        volume: CT or MR, any grid; of a sequence the first frame is measured. At most 48 planes
            in each direction are looked at.
        monitor: a safe point for cancelling in each plane.
    Returns:
        An appearance of one patient.
    Raises:
        InputError: another modality, or too little tissue.
    """
    name = volume.source or "volume"
    if volume.modality not in _TISSUE:
        raise InputError(
            f"{name}: an appearance is measured in CT and MR, not in {volume.modality}",
            "Leave the look out, or state the modality.",
        )
    volume = volume.frame(0)
    voxels, (di, dj, dk) = volume.voxels, volume.geometry.spacing
    scaling, monitor = scaling_for(volume), monitor or Monitor()

    def measure(planes: npt.NDArray[Any], mm: tuple[float, float], *, is_radial: bool) -> Spectra:
        chosen = np.unique(np.linspace(0, len(planes) - 1, min(len(planes), _PLANES)).round())
        blocks = []
        for place in chosen.astype(int):
            monitor.check()
            plane = scaling.apply(planes[place])
            blocks.append(_tissue_blocks(plane, volume.modality, len(chosen)))
        return _spectra(np.concatenate(blocks), name, mm, is_radial=is_radial)

    spectra = {DIRECTIONS[0]: measure(voxels, (dj, di), is_radial=True)}
    if dk <= _MOST_ANISOTROPIC * min(di, dj) and len(voxels) >= 2 * _BLOCK:
        spectra[DIRECTIONS[1]] = measure(voxels.swapaxes(0, 1), (dk, di), is_radial=False)
    return Appearance(volume.modality, (spectra,))


def combine(appearances: Sequence[Appearance]) -> Appearance:
    """One appearance of several patients, of one modality; raises InputError for none."""
    if not appearances:
        raise InputError("the look has no volume", "Give volumes of one kernel and scanner.")
    patients = tuple(patient for each in appearances for patient in each.patients)
    return Appearance(appearances[0].modality, patients)


def _spectra(
    blocks: Floats, name: str, spacing_mm: tuple[float, float], *, is_radial: bool
) -> Spectra:
    """Spectra of blocks of tissue [N, side, side] of a volume, in the order of planes.

    is_radial: whether all directions in the plane count, or those near that of its rows.
    """
    if len(blocks) < _FEWEST_BLOCKS:
        raise InputError(
            f"{name}: {len(blocks)} blocks of {_BLOCK} × {_BLOCK} voxels lie wholly in tissue, "
            f"{_FEWEST_BLOCKS} are needed to measure sharpness and noise",
            "Leave the look out, or choose a volume that shows more tissue.",
        )
    voxel = max(spacing_mm) if is_radial else spacing_mm[0]
    bins, frequencies = _bins(spacing_mm, voxel, is_radial=is_radial)
    density = _power(blocks) @ bins.T * (spacing_mm[0] * spacing_mm[1])
    edge = frequencies * max(spacing_mm) < _SORTED_BELOW
    coarse = density[:, edge if edge.any() else [0]].mean(axis=1)
    logs = np.log(density + TINY)
    # Parts of equal numbers of blocks, in the order of planes; each with its own classes.
    smooth, detailed = [], []
    for part in np.array_split(np.arange(len(blocks)), PARTS):
        ranked = part[np.argsort(coarse[part], kind="stable")]
        size = max(1, round(_CLASS * len(part)))
        smooth.append(logs[ranked[:size]].mean(axis=0))
        detailed.append(logs[ranked[-size:]].mean(axis=0))
    return Spectra(voxel, frequencies, np.array(smooth, float), np.array(detailed, float))


def _tissue_blocks(plane: Floats, modality: str, planes: int) -> Floats:
    """Blocks of one of some planes that lie in tissue, [N, side, side]."""
    rows, columns = (side // _CELL for side in plane.shape)
    if min(rows, columns) * _CELL < _BLOCK:
        return np.empty((0, _BLOCK, _BLOCK), np.float32)
    cells = plane[: rows * _CELL, : columns * _CELL]
    means = cells.reshape(rows, _CELL, columns, _CELL).mean(axis=(1, 3))
    low, high = _TISSUE[modality]
    is_tissue = (means > low) & (means < high)
    side, step = _BLOCK // _CELL, _STEP // _CELL
    whole = np.lib.stride_tricks.sliding_window_view(is_tissue, (side, side))
    where = np.argwhere(whole[::step, ::step].all(axis=(2, 3))) * _STEP
    most = max(1, _MOST_BLOCKS // planes)
    if len(where) > most:
        where = where[np.linspace(0, len(where) - 1, most).astype(int)]
    blocks = np.lib.stride_tricks.sliding_window_view(plane, (_BLOCK, _BLOCK))
    return blocks[where[:, 0], where[:, 1]]


def _power(blocks: Floats) -> Floats:
    """|DFT|² of each block per voxel, without its quadratic trend; [N, side · (side / 2 + 1)]."""
    at = (np.arange(_BLOCK) + 0.5) / _BLOCK - 0.5
    y, x = np.meshgrid(at, at, indexing="ij")
    trend = np.linalg.qr(np.stack([x**0, x, y, x * x, y * y, x * y]).reshape(6, -1).T)[0]
    trend = trend.astype(np.float32)
    flat = blocks.reshape(len(blocks), -1)
    flat = flat - (flat @ trend) @ trend.T
    line: Doubles = np.hanning(_BLOCK + 2)[1:-1]
    line /= np.sqrt((line**2).mean())
    window = np.outer(line, line).astype(np.float32)
    spectrum = np.fft.rfft2(flat.reshape(blocks.shape) * window)
    power: Floats = (np.abs(spectrum) ** 2 / _BLOCK**2).astype(np.float32)
    return power.reshape(len(blocks), -1)


def _bins(
    spacing_mm: tuple[float, float], voxel_mm: float, *, is_radial: bool
) -> tuple[Floats, Doubles]:
    """Weights of the means over frequencies, [F, side · (side / 2 + 1)], and these frequencies."""
    rows = np.fft.fftfreq(_BLOCK, spacing_mm[0])[:, None]
    columns = np.fft.rfftfreq(_BLOCK, spacing_mm[1])[None]
    radius = np.hypot(rows, columns)
    number = np.rint(radius * _BLOCK * voxel_mm).astype(int)
    if not is_radial:
        number[2 * np.abs(columns) > np.abs(rows) + 0 * columns] = 0
    twice = np.full(radius.shape, 2.0)
    twice[:, [0, -1]] = 1
    weights = np.stack([np.where(number == k, twice, 0).ravel() for k in range(1, _BLOCK // 2 + 1)])
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32), weights @ radius.ravel()
