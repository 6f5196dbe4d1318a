"""Runs the enhancer over a volume's slices, with one content vector for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.hqg.bundle import EnhancerModel
from MedEnhanceLib.hqg.cache import VolumeCache
from MedEnhanceLib.hqg.stream import Stage, enhanced
from MedEnhanceLib.nets.intensity import TISSUE
from MedEnhanceLib.nets.precision import inference_precision, move
from MedEnhanceLib.nets.slices import (
    GRID,
    Plan,
    SliceStacks,
    Uploads,
    Window,
    blended,
    in_chunks,
    windows,
)
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
#: The content vector is measured on 4 slabs of 4 slices, in a window of 128 pixels. It does not
#: depend on the tile, and is what a preview waits for. Small windows gave the same as whole slices
#: within 0.03 dB (C19, 10 % noise).
_CONTENT_SLABS = 4
_CONTENT_DEPTH = 4
_CONTENT_SIDE = 128


@dataclass(frozen=True)
class SliceRun:
    """One run of the enhancer over the slices of a volume.

    Attributes:
        model: the networks.
        stacks: the slices, scaled when they are read.
        cue: [1, cue_size].
        plan: device, tile and number of slices at once.
        only: the slices along K that are wanted.
        cache: where the content vector may be known already.
        start: what the filter made of the same slices; None: the network's own start.
    """

    model: EnhancerModel
    stacks: SliceStacks
    cue: Tensor
    plan: Plan
    only: slice
    cache: VolumeCache = field(default_factory=VolumeCache)
    start: SliceStacks | None = None

    @property
    def all_slices(self) -> slice:
        """Every slice, whatever `only` says."""
        return slice(0, len(self.stacks))


def predict_slices(
    run: SliceRun, monitor: Monitor, *, wants_error: bool = False
) -> Iterator[tuple[slice, Floats, Floats | None]]:
    """Enhance the wanted slices, in order.

    Args:
        run: model, slices, cue and plan.
        monitor: progress; a safe point for cancelling before each chunk of a stage.
        wants_error: whether the expected error is computed too.

    Yields:
        (where, scaled values [b, J, I], expected absolute error in the same shape or None).

    Raises:
        DeviceMemoryError, Cancelled: see `in_chunks`.
    """
    model, stacks, contents = run.model, run.stacks, run.cache.contents

    def begin(plan: Plan, window: Window) -> Stage:
        key = model.bundle.sha256, plan.device if plan.half else f"{plan.device}, single precision"
        if key not in contents:
            contents[key] = volume_content(model, stacks, plan, monitor)
        return enhanced(
            model.enhancer,
            _planes(stacks, window, plan, monitor),
            torch.cat([run.cue.to(plan.device), contents[key]], dim=1),
            depth=len(stacks),
            start=None if run.start is None else _planes(run.start, window, plan, monitor),
            wants_error=wants_error,
        )

    streams = _Streams(run, begin, lambda made: made.transpose(0, 1))
    for where, values in in_chunks(
        streams.run, stacks, run.plan, monitor, "enhancing slices", only=run.only
    ):
        yield where, values[:, 0], values[:, 1] if wants_error else None


class _Streams:
    """A network's stages over slices, in each tile; started again where the plan changes.

    begin: makes the last stage in a window; shape: its chunk → [n, channels, H, W].
    """

    def __init__(
        self,
        run: SliceRun,
        begin: Callable[[Plan, Window], Stage],
        shape: Callable[[Tensor], Tensor],
    ) -> None:
        self._model, self._begin, self._shape = run.model, begin, shape
        rows, columns = run.stacks.voxels.shape[-2:]
        self._size = rows + -rows % GRID, columns + -columns % GRID
        self._streams: dict[Plan, list[tuple[Window, Stage]]] = {}

    def run(self, where: slice, plan: Plan) -> Tensor:
        """Some slices, for `in_chunks`."""
        try:
            if plan not in self._streams:
                self._streams.clear()
                move(self._model.enhancer, plan.device)
                tiles = windows(*self._size, plan)
                self._streams[plan] = [(tile, self._begin(plan, tile)) for tile in tiles]
            chunk = where.start // plan.slices
            with inference_precision(plan.device, half=plan.half):
                results = [self._shape(stream[chunk]) for _, stream in self._streams[plan]]
            return blended(results, [window for window, _ in self._streams[plan]])
        except (MemoryError, RuntimeError):
            self._streams.clear()  # frees what they hold before the next try
            raise


def _planes(stacks: SliceStacks, window: Window, plan: Plan, monitor: Monitor) -> Stage:
    """The slices in chunks on request, in the window of the tile."""
    uploads = Uploads(plan.device)

    def make(chunk: int) -> Tensor:
        first = chunk * plan.slices
        return uploads.send(stacks.planes(slice(first, first + plan.slices), window))

    count = -(-len(stacks) // plan.slices)
    return Stage(make, count=count, size=plan.slices, check=monitor.check)


def volume_content(
    model: EnhancerModel, stacks: SliceStacks, plan: Plan, monitor: Monitor
) -> Tensor:
    """v_y of the whole volume, [1, content_size]: the mean over informative slabs.

    One vector for all slices makes neighbors agree; the paper takes each image's own.
    """
    depth = min(_CONTENT_DEPTH, len(stacks))
    centers = stacks.informative(_CONTENT_SLABS)
    slices = [stacks.planes(slice(center, center + 1)) for center in centers]
    window = _fullest(slices, TISSUE[model.bundle.modality])
    vectors = []
    with inference_precision(plan.device, half=plan.half):
        for center in centers:
            monitor.check()
            first = int(np.clip(center - depth // 2, 0, len(stacks) - depth))
            slab = stacks.planes(slice(first, first + depth))[..., window.rows, window.columns]
            vectors.append(model.enhancer.content_vector(slab[None].to(plan.device)).float())
    return torch.cat(vectors).mean(dim=0, keepdim=True)


def _fullest(slices: Sequence[Tensor], least: float) -> Window:
    """Where most of slices [1, H, W] is above `least`: full of tissue, as training patches are."""
    shown = (torch.stack(list(slices)) > least).float().mean(dim=0)
    rows, columns = (min(_CONTENT_SIDE, side) for side in shown.shape[-2:])
    filled = torch.nn.functional.avg_pool2d(shown, (rows, columns), stride=GRID)[0]
    row, column = divmod(int(filled.argmax()), filled.shape[1])
    return Window(
        slice(row * GRID, row * GRID + rows), slice(column * GRID, column * GRID + columns)
    )
