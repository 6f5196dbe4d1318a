"""Clean volumes that a training learns from, at several resolutions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.native import SIDE
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.noise import measure_noise
from MedEnhanceLib.runtime.progress import Monitor, attend

Floats = npt.NDArray[np.float32]
#: Voxels that are averaged along an axis where the volume is learned from at half its resolution.
_HALF = 2
#: Axes whose voxels are at most this much longer than the shortest are averaged.
_NEARLY_SHORTEST = 1.5
#: Least voxels along an axis that are left by averaging.
_LEAST_SIDE = 24
#: Noise of a target as a share of its range, above which it is learned from at half its resolution
#: alone.
_MOST_NOISE = 0.02
#: Confidence below which measured noise may be anatomy.
_CERTAIN = 0.5


@dataclass(frozen=True, eq=False)
class Target:
    """One clean volume, or several series of one examination on one grid.

    Attributes:
        series: [K, J, I] each; MR with bright tissue at 1, CT in units of 1000 HU with water at 0.
        spacing: mm along i, j, k.
        name: of the file that it comes from.
        is_raw: whether it has the resolution of its file.
        is_usable: which of the series are clean enough to be a target; all can be guides.
        labels: [K, J, I] indices of a task's labels, 0 for the background; None without.
        subject: number among the task's subjects.
    """

    series: tuple[Floats, ...]
    spacing: tuple[float, float, float]
    name: str
    is_raw: bool
    is_usable: tuple[bool, ...]
    labels: npt.NDArray[np.uint8] | None = None
    subject: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of each series."""
        slices, rows, columns = self.series[0].shape
        return slices, rows, columns


def files_of(data: Path, patterns: Sequence[str], leave_out: Sequence[str] = ()) -> list[Path]:
    """Files below `data` that a pattern names and none of `leave_out` does, in order of names.

    Raises InputError for a pattern that names nothing.
    """
    left_out = {path for pattern in leave_out for path in data.glob(pattern)}
    files: set[Path] = set()
    for pattern in patterns:
        named = {path for path in data.glob(pattern) if path.exists()}
        if not named:
            raise InputError(
                f"{data}: no file is named {pattern}", "Correct the pattern or the folder."
            )
        files |= named
    return sorted(path for path in files if not is_below(path, left_out))


def is_below(path: Path, folders: set[Path]) -> bool:
    """Whether a path is one of the folders, or in one."""
    return path in folders or any(parent in folders for parent in path.parents)


def load_targets(files: Sequence[Path], modality: str, monitor: Monitor) -> list[Target]:
    """Each volume at its own and at half its resolution."""
    targets: list[Target] = []
    for path in files:
        volume = attend(lambda path=path: load(path, modality=modality), monitor)
        targets += resolutions([volume], path.name)
    return targets


def load_labeled(
    subjects: Iterable[tuple[Path, Volume, npt.NDArray[np.uint8]]],
    data: Path,
    leave_out: Sequence[str],
) -> list[Target]:
    """A task's labeled volumes at their own resolution alone, as its segmenter meets them.

    Raises InputError where all of them are left out.
    """
    left_out = {path for pattern in leave_out for path in data.glob(pattern)}
    targets = [
        Target(
            (_scaled(volume),), volume.geometry.spacing, path.name, True, (True,), labels, number
        )
        for number, (path, volume, labels) in enumerate(subjects)
        if not is_below(path, left_out)
    ]
    if not targets:
        raise InputError(
            f"{data}: all labeled images are left out", "Leave out fewer (leave_out, held_out)."
        )
    return targets


def load_examinations(
    patterns: Sequence[str],
    data: Path,
    leave_out: Sequence[str],
    modality: str,
    monitor: Monitor,
) -> list[Target]:
    """Examinations, one a pattern: each series with the others registered onto its grid.

    Series on one grid stay as they are; others are aligned to each of them in turn.
    """
    targets: list[Target] = []
    for pattern in patterns:
        files = files_of(data, (pattern,), leave_out)
        volumes = [load(path, modality=modality) for path in files]
        if len(volumes) < 2:
            continue
        for grid in _grids(volumes):
            aligned = [
                grid,
                *(_on_grid(other, grid, monitor) for other in volumes if other is not grid),
            ]
            series = [volume for volume in aligned if volume is not None]
            if len(series) > 1:
                targets += resolutions(series, pattern, only_first=not _share_grid(volumes))
    return targets


def _share_grid(volumes: Sequence[Volume]) -> bool:
    first = volumes[0]
    return all(
        volume.shape == first.shape and volume.geometry == first.geometry for volume in volumes
    )


def _grids(volumes: Sequence[Volume]) -> Sequence[Volume]:
    """The volumes onto whose grids the others are brought."""
    return volumes[:1] if _share_grid(volumes) else volumes


def _on_grid(volume: Volume, grid: Volume, monitor: Monitor) -> Volume | None:
    """A series on the grid of another one of its examination; None where it does not fit."""
    if volume.shape == grid.shape and volume.geometry == grid.geometry:
        return volume
    from MedEnhanceLib.hqg.guide import align

    aligned = align(volume, grid, monitor)
    return grid.with_voxels(aligned.voxels) if aligned.is_usable else None


def resolutions(
    volumes: Sequence[Volume], name: str, *, only_first: bool = False
) -> Iterator[Target]:
    """Volumes on one grid as targets: as they are, and averaged over two voxels.

    only_first: whether the first one alone is a target, as the others were interpolated.
    """
    scaled = [_scaled(volume) for volume in volumes]
    spacing = volumes[0].geometry.spacing
    is_target = [index == 0 or not only_first for index in range(len(volumes))]
    clean = [
        is_used and not _is_noisy(volume, voxels)
        for volume, voxels, is_used in zip(volumes, scaled, is_target, strict=True)
    ]
    if any(clean) and min(scaled[0].shape) >= SIDE:
        yield Target(tuple(scaled), spacing, name, True, tuple(clean))
    factors = _factors(scaled[0].shape, spacing)
    if max(factors) > 1:
        coarse = tuple(_averaged(voxels, factors) for voxels in scaled)
        wide = [mm * factor for mm, factor in zip(spacing, reversed(factors), strict=True)]
        yield Target(coarse, (wide[0], wide[1], wide[2]), name, False, tuple(is_target))


def _scaled(volume: Volume) -> Floats:
    """On the network's scale; NaN, where an aligned series shows nothing, stays."""
    if np.isnan(volume.voxels).any():
        return volume.voxels.astype(np.float32)
    return scaling_for(volume).apply(volume.voxels)


def _is_noisy(volume: Volume, scaled: Floats) -> bool:
    if np.isnan(scaled).any():
        return True
    noise = measure_noise(scaled, modality=volume.modality, spacing=volume.geometry.spacing)
    return noise.level > _MOST_NOISE and noise.confidence > _CERTAIN


def _factors(shape: tuple[int, ...], spacing: Sequence[float]) -> tuple[int, ...]:
    """Voxels that become one along slices, rows and columns."""
    least = min(spacing)
    return tuple(
        _HALF if mm <= _NEARLY_SHORTEST * least and side // _HALF >= _LEAST_SIDE else 1
        for side, mm in zip(shape, reversed(spacing), strict=True)
    )


def _averaged(voxels: Floats, factors: tuple[int, ...]) -> Floats:
    ends = tuple(
        slice(0, side // factor * factor)
        for side, factor in zip(voxels.shape, factors, strict=True)
    )
    k, j, i = factors
    whole = voxels[ends]
    slices, rows, columns = (
        side // factor for side, factor in zip(whole.shape, factors, strict=True)
    )
    mean: Floats = whole.reshape(slices, k, rows, j, columns, i).mean((1, 3, 5)).astype(np.float32)
    return mean
