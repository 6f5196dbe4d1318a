"""Refines the latents of one block by gradient steps, then codes them anew.

The network stays as it is. Source: arXiv 2405.16850 fits nothing for each block; this is ours,
for whoever has seconds to spare.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.implicit.losses import positions_of
from MedEnhanceLib.unicompress.implicit.scale import Scaling
from MedEnhanceLib.unicompress.implicit.writer import Codes, ImplicitCode, Writer

_COORDINATES = 4096
_LEARNING_RATE = 0.02
_CHECK_EVERY = 20


def fit_codes(
    writer: Writer,
    block: Voxels,
    scaling: Scaling,
    code: ImplicitCode,
    *,
    thick: bool,
    seconds: float,
    monitor: Monitor,
) -> ImplicitCode:
    """The code of a block after `seconds` of refinement; `code` where nothing better is found.

    Gradients pass through the quantiser as they do in training. Of the codes that are met, those
    with the smallest sum of losses over all layers are kept, as the integer decoder gives them.
    """
    start = writer.latents(block, scaling, thick=thick)
    best = code
    latents = [grid.clone().requires_grad_() for grid in start]
    optimiser = torch.optim.Adam(latents, lr=_LEARNING_RATE)
    rng = np.random.default_rng(0)
    ends = time.monotonic() + seconds
    number = 0
    while time.monotonic() < ends:
        monitor.check()
        loss = _loss(writer, block, scaling, (latents[0], latents[1]), rng, thick=thick)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        number += 1
        if number % _CHECK_EVERY == 0:
            best = _better(writer, block, scaling, (latents[0], latents[1]), best, thick=thick)
    return _better(writer, block, scaling, (latents[0], latents[1]), best, thick=thick)


def _better(
    writer: Writer,
    block: Voxels,
    scaling: Scaling,
    latents: tuple[Tensor, Tensor],
    best: ImplicitCode,
    *,
    thick: bool,
) -> ImplicitCode:
    codes: Codes = writer.quantise(latents)
    found = writer.losses(block, codes, scaling, range(1, len(codes) + 1), thick=thick)
    if sum(found) >= sum(best.losses):
        return best
    return writer.pack(block, codes, scaling, thick=thick)


def _loss(
    writer: Writer,
    block: Voxels,
    scaling: Scaling,
    latents: tuple[Tensor, Tensor],
    rng: np.random.Generator,
    *,
    thick: bool,
) -> Tensor:
    """Squared error at random voxels, from a random number of layers."""
    chosen = rng.integers(block.size, size=_COORDINATES)
    voxels = torch.from_numpy(np.stack(np.unravel_index(chosen, block.shape), axis=-1))
    wanted = torch.from_numpy(scaling.apply(block.ravel()[chosen]))
    layers = int(rng.integers(1, writer.reader.layers + 1))
    tokens = writer.tokeniser.quantise(latents, torch.full((1,), layers))
    positions = positions_of(voxels, thick=thick)[None]
    values = writer.student(tokens.low, tokens.high, positions).values[0]
    return torch.mean((values - wanted) ** 2) + 0.25 * tokens.commitment
