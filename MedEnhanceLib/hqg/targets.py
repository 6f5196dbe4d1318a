"""Targets without noise of their own, and the noise's spectrum that a training begins with.

A network that is taught with noisy targets learns to give noise back: of what it cannot tell from
the target's own, in proportion to the two variances. On subjects with less noise that is noise
for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.hqg.network import STRIDE, Enhancer, noise_level
from MedEnhanceLib.nets.shrinkage import BLOCK, BlockShrinkage

Floats = npt.NDArray[np.float32]
#: Of the noise of a volume, so many slices tell its spectrum.
_TELLING = 12
_MOST_VOLUMES = 8


def without_noise(voxels: Floats, noise: npt.NDArray[np.float16] | None) -> Floats:
    """A high-quality volume after the shrinkage of blocks, at the level of its own noise.

    voxels: [K, J, I] on the network's scale. noise: a realisation of the noise of such images,
    for its spectrum; None takes it as white.
    """
    rows, columns = voxels.shape[1:]
    if min(rows, columns) <= STRIDE:
        return voxels
    shrinkage = BlockShrinkage().requires_grad_(False)
    if noise is not None:
        _measure(shrinkage, [noise])
    padding = (0, -columns % STRIDE, 0, -rows % STRIDE)
    slab = torch.nn.functional.pad(torch.from_numpy(voxels)[None], padding, mode="reflect")
    with torch.inference_mode():
        shrunk: Tensor = shrinkage(slab, noise_level(slab, reach=0))
    return np.ascontiguousarray(shrunk[0, :, :rows, :columns].numpy())


def begin_with_spectrum(enhancer: Enhancer, noises: Sequence[npt.NDArray[np.float16]]) -> None:
    """Let an enhancer's shrinkage begin with the spectrum of known noise, where there is any."""
    if enhancer.shrinkage is not None and noises:
        _measure(enhancer.shrinkage, noises)


def _measure(shrinkage: BlockShrinkage, noises: Sequence[npt.NDArray[np.float16]]) -> None:
    spectra = []
    for noise in noises[:: -(-len(noises) // _MOST_VOLUMES)]:
        first = max(0, (len(noise) - _TELLING) // 2)
        slab = torch.from_numpy(noise[first : first + _TELLING].astype(np.float32))[None]
        sides = [side // STRIDE * STRIDE for side in slab.shape[-2:]]
        slab = slab[..., : sides[0], : sides[1]].contiguous()
        if min(sides) > 0 and slab.shape[1] >= BLOCK:
            spectra.append(shrinkage.spectrum(slab, noise_level(slab, reach=0)))
    if spectra:
        shrinkage.begin_with(torch.stack(spectra).log().mean(dim=0).exp())
