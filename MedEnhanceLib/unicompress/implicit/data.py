"""Volumes to learn from, as blocks of one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.files import load
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.implicit.scale import LEAST_PART, TAILS, Scaling, is_thick

#: A block of training, in units: 4 × 8 × 8 cells.
BLOCK_UNITS = (32, 64, 64)
MODALITIES = ("CT", "MR", "EM")
#: Blocks of files are larger than those of training: so many of these pretend to be parts of one,
#: with so much of its spread at least.
_PARTS, _LEAST_SPREAD = 0.5, 0.35


@dataclass(frozen=True)
class Source:
    """A volume on the network's scale, [K, J, I], large enough for a block."""

    name: str
    modality: str
    voxels: npt.NDArray[np.float32]
    thick: bool


def block_shape(*, thick: bool) -> tuple[int, int, int]:
    """Voxels of a block of training."""
    slices, rows, columns = BLOCK_UNITS
    return slices // (2 if thick else 1), rows, columns


def read_sources(config: ImplicitConfig, folder: Path, monitor: Monitor) -> list[Source]:
    """The volumes that a configuration names; raises InputError where there are none."""
    held = {path for pattern in config.held_out for path in folder.glob(pattern)}
    paths = sorted({path for pattern in config.files for path in folder.glob(pattern)} - held)
    wanted = MODALITIES if config.modality == "all" else (config.modality,)
    sources = []
    for count, path in enumerate(paths, 1):
        volume = load(path)
        if volume.modality in wanted and volume.voxels.ndim == 3:
            name = path.relative_to(folder).as_posix()
            sources.append(make_source(volume, name))
        monitor.progress(count / len(paths), "reading volumes")
    if not sources:
        raise InputError(
            f"{folder}: no volumes of {config.modality} to learn from",
            "Check `files`, patterns relative to the data folder, and the modality.",
        )
    return sources


def make_source(volume: Volume, name: str) -> Source:
    """A volume as training sees it."""
    scaled = Scaling.of(volume.voxels, volume.modality).apply(volume.voxels)
    thick = is_thick(volume.geometry.spacing)
    pads = [
        (0, max(0, least - extent))
        for extent, least in zip(scaled.shape, block_shape(thick=thick), strict=True)
    ]
    return Source(name, volume.modality, np.pad(scaled, pads, mode="edge"), thick)


class Blocks:
    """Draws blocks: a modality, each as often; of it a volume by size; of that a place and turn."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        groups = ([s for s in sources if s.modality == modality] for modality in MODALITIES)
        self._groups = [group for group in groups if group]

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, bool]:
        """Blocks [count, 1, K, J, I] of one modality and kind of slices, and that kind."""
        group = self._groups[int(rng.integers(len(self._groups)))]
        first = group[int(rng.choice(len(group), p=_by_size(group)))]
        alike = [source for source in group if source.thick == first.thick]
        chosen = rng.choice(len(alike), size=count, p=_by_size(alike))
        crops = [_crop(alike[int(one)], rng) for one in chosen]
        return torch.from_numpy(np.stack(crops)[:, None]), first.thick


def _by_size(sources: Sequence[Source]) -> npt.NDArray[np.float64]:
    """In proportion to the root of the voxels: large volumes are much of the same."""
    roots = np.sqrt([source.voxels.size for source in sources])
    shares: npt.NDArray[np.float64] = roots / roots.sum()
    return shares


def _crop(source: Source, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    shape = block_shape(thick=source.thick)
    start = [int(rng.integers(n - m + 1)) for n, m in zip(source.voxels.shape, shape, strict=True)]
    block = source.voxels[tuple(slice(s, s + m) for s, m in zip(start, shape, strict=True))]
    block = block[tuple(slice(None, None, int(step)) for step in rng.choice((-1, 1), size=3))]
    if rng.random() < 0.5:
        block = block.transpose(0, 2, 1)
    return np.ascontiguousarray(_rescaled(block, rng))


def _rescaled(block: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A block on its own scale, as a file has it; half of them as parts of a larger one's."""
    low, high = np.percentile(block[::2, ::2, ::2], TAILS)
    block = (block - (low + high) / 2) / max((high - low) / 2, 1 / LEAST_PART)
    if rng.random() < _PARTS:
        part = rng.uniform(_LEAST_SPREAD, 1)
        block = part * block + (1 - part) * rng.uniform(-1, 1)
    return block.astype(np.float32)
