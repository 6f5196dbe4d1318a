"""Runs the enhancer over a volume's slices, with one content vector for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.hqg.bundle import EnhancerModel
from MedEnhanceLib.hqg.findings import Findings
from MedEnhanceLib.nets.precision import move
from MedEnhanceLib.nets.slices import Plan, SliceStacks, over_slices
from MedEnhanceLib.progress import Monitor

Floats = npt.NDArray[np.float32]
_CONTENT_SLICES = 16
#: Their middle is enough, and does not depend on the tile.
_CONTENT_SIDE = 512


def predict_slices(
    model: EnhancerModel,
    stacks: SliceStacks,
    cue: Tensor,
    plan: Plan,
    monitor: Monitor,
    *,
    findings: Findings | None = None,
    only: slice | None = None,
    flips: tuple[int, ...] = (),
    wants_error: bool = False,
) -> Iterator[tuple[slice, Floats, Floats | None]]:
    """Enhance all slices, or `only` some, in order.

    Yields (where, scaled values [b, J, I], expected absolute error in the same shape or None).
    cue: [1, cue_size]. findings: where the content vector may be known already. flips: axes of
    [B, C, H, W] to mirror before and after (for uncertainty). wants_error: see Estimate.
    Raises DeviceMemoryError and Cancelled, see over_slices.
    """
    contents = (findings or Findings()).contents

    def network(batch: Tensor, plan: Plan) -> Tensor:
        move(model.enhancer, plan.device)
        key = model.bundle.sha256, plan.device
        if key not in contents:
            contents[key] = volume_content(model, stacks, plan, monitor)
        condition = (
            vector.to(plan.device).expand(len(batch), -1) for vector in (cue, contents[key])
        )
        middle = model.config.context
        kept = slice(middle, middle + 1)
        if not wants_error:
            output: Tensor = model.enhancer(batch.flip(flips), *condition)
            return output[:, kept].flip(flips)
        both = model.enhancer.estimate(batch.flip(flips), *condition)
        return torch.cat([part[:, kept] for part in both], dim=1).flip(flips)

    for where, values in over_slices(network, stacks, plan, monitor, "enhancing slices", only=only):
        yield where, values[:, 0], values[:, 1] if wants_error else None


def volume_content(
    model: EnhancerModel, stacks: SliceStacks, plan: Plan, monitor: Monitor
) -> Tensor:
    """v_y of the whole volume, [1, content_size]: the mean over up to 16 slices that show most.

    One vector for all slices makes neighbours agree; the paper takes each image's own.
    """
    vectors = []
    for centre in stacks.telling(_CONTENT_SLICES):
        monitor.check()
        stack = _middle(stacks.take(np.array([centre]))).to(plan.device)
        stack = stack.contiguous(memory_format=torch.channels_last)
        vectors.append(model.enhancer.content_vector(stack))
    return torch.cat(vectors).mean(dim=0, keepdim=True)


def _middle(stack: Tensor) -> Tensor:
    """At most _CONTENT_SIDE rows and columns from the middle of [1, C, H, W]."""
    rows, columns = (
        slice(
            max(0, (side - _CONTENT_SIDE) // 2), max(0, (side - _CONTENT_SIDE) // 2) + _CONTENT_SIDE
        )
        for side in stack.shape[-2:]
    )
    return stack[..., rows, columns]
