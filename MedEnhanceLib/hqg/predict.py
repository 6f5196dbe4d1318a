"""Runs the enhancer over a volume's slices, with one content vector for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.hqg.bundle import EnhancerModel
from MedEnhanceLib.hqg.findings import Findings
from MedEnhanceLib.hqg.stream import enhanced
from MedEnhanceLib.nets.precision import inference_precision, move
from MedEnhanceLib.nets.slices import GRID, Plan, SliceStacks, Window, blended, in_chunks, windows
from MedEnhanceLib.nets.stream import Stage, Uploads
from MedEnhanceLib.progress import Monitor

Floats = npt.NDArray[np.float32]
#: What v_y is measured on: so many slabs of so many slices, and of them the middle. It does not
#: depend on the tile, and is a preview's wait.
_CONTENT_SLABS = 4
_CONTENT_DEPTH = 4
_CONTENT_SIDE = 384


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
    Raises DeviceMemoryError and Cancelled, see in_chunks.
    """
    contents = (findings or Findings()).contents
    rows, columns = stacks.voxels.shape[-2:]
    streams: dict[Plan, list[tuple[Window, Stage]]] = {}

    def run(where: slice, plan: Plan) -> Tensor:
        try:
            if plan not in streams:
                streams.clear()
                streams[plan] = begin(plan)
            chunk = where.start // plan.slices
            with inference_precision(plan.device, half=plan.half):
                results = [stream[chunk].flip(flips).transpose(0, 1) for _, stream in streams[plan]]
            return blended(results, [window for window, _ in streams[plan]])
        except (MemoryError, RuntimeError):
            streams.clear()  # what they hold is what is missing
            raise

    def begin(plan: Plan) -> list[tuple[Window, Stage]]:
        move(model.enhancer, plan.device)
        key = model.bundle.sha256, plan.device if plan.half else f"{plan.device}, single precision"
        if key not in contents:
            contents[key] = volume_content(model, stacks, plan, monitor)
        condition = torch.cat([cue.to(plan.device), contents[key]], dim=1)
        return [
            (
                window,
                enhanced(
                    model.enhancer,
                    _planes(stacks, window, plan, flips),
                    condition,
                    depth=len(stacks),
                    wants_error=wants_error,
                ),
            )
            for window in windows(rows + -rows % GRID, columns + -columns % GRID, plan)
        ]

    for where, values in in_chunks(run, stacks, plan, monitor, "enhancing slices", only=only):
        yield where, values[:, 0], values[:, 1] if wants_error else None


def _planes(stacks: SliceStacks, window: Window, plan: Plan, flips: tuple[int, ...]) -> Stage:
    """The slices by chunks as they are asked for, in the window of the tile, mirrored."""
    uploads = Uploads(plan.device)
    axes = tuple(axis - 4 for axis in flips)

    def make(chunk: int) -> Tensor:
        first = chunk * plan.slices
        planes = uploads.send(stacks.planes(slice(first, first + plan.slices), window))
        return planes.flip(axes) if axes else planes

    return Stage(make, count=-(-len(stacks) // plan.slices), size=plan.slices)


def volume_content(
    model: EnhancerModel, stacks: SliceStacks, plan: Plan, monitor: Monitor
) -> Tensor:
    """v_y of the whole volume, [1, content_size]: the mean over slabs that show much.

    One vector for all slices makes neighbours agree; the paper takes each image's own.
    """
    depth = min(_CONTENT_DEPTH, len(stacks))
    window = Window(*(_middle(side) for side in stacks.voxels.shape[-2:]))
    vectors = []
    with inference_precision(plan.device, half=plan.half):
        for centre in stacks.telling(_CONTENT_SLABS):
            monitor.check()
            first = int(np.clip(centre - depth // 2, 0, len(stacks) - depth))
            slab = stacks.planes(slice(first, first + depth), window).to(plan.device)
            vectors.append(model.enhancer.content_vector(slab[None]).float())
    return torch.cat(vectors).mean(dim=0, keepdim=True)


def _middle(side: int) -> slice:
    first = max(0, (side - _CONTENT_SIDE) // 2)
    return slice(first, min(side, first + _CONTENT_SIDE))
