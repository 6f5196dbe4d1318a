"""Runs the enhancer over a volume's slices, with one content vector for all of them.

`predict_oriented` enhances along each of the three axes and averages. Slices along one axis see
five neighbors on each side but differ from slice to slice; averaged over three axes they agree
better, and some of the remaining noise is removed. The network's start (after the shrinkage) is
the same along all axes and computed once. [ours]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.hqg.bundle import EnhancerModel
from MedEnhanceLib.hqg.cache import VolumeCache
from MedEnhanceLib.hqg.stream import Stage, enhanced, started
from MedEnhanceLib.nets.intensity import TISSUE, Scaling
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
#: Which axis of the volume becomes slices, rows and columns.
_AXES = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
_CHUNK = 16


@dataclass(frozen=True)
class SliceRun:
    """One run of the enhancer over the slices of a volume.

    Attributes:
        model: the networks.
        stacks: the slices, scaled when they are read.
        cue: [1, cue_size], or with the request as `GuidanceEncoder.asking` returns it.
        plan: device, tile and number of slices at once.
        only: the slices along K that are wanted.
        cache: where the content vector may be known already.
        start: what `shrunk` made of the same slices; None computes it along with the rest.
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


def predict_oriented(
    run: SliceRun, monitor: Monitor, *, orientations: int, wants_error: bool
) -> Iterator[tuple[slice, Floats, Floats | None]]:
    """As `predict_slices`; with three orientations the mean of images and expected errors."""
    if orientations == 1:
        yield from predict_slices(run, monitor, wants_error=wants_error)
        return
    image = np.zeros(run.stacks.voxels.shape, np.float32)
    error = np.zeros_like(image) if wants_error else None
    for number, axes in enumerate(_AXES):
        along = _turned(run, axes)
        image_turned = image.transpose(axes)
        error_turned = None if error is None else error.transpose(axes)
        part = monitor.part(number / len(_AXES), (number + 1) / len(_AXES))
        for where, scaled, expected in predict_slices(along, part, wants_error=wants_error):
            image_turned[where] += scaled / len(_AXES)
            if error_turned is not None and expected is not None:
                error_turned[where] += expected / len(_AXES)
    for first in range(run.only.start, run.only.stop, _CHUNK):
        where = slice(first, min(first + _CHUNK, run.only.stop))
        yield where, image[where], None if error is None else error[where]


def _turned(run: SliceRun, axes: tuple[int, int, int]) -> SliceRun:
    """All slices along another axis. Their start loses its padding, which differs by axis."""
    stacks = replace(run.stacks, voxels=run.stacks.voxels.transpose(axes))
    if axes == _AXES[0]:
        return replace(run, stacks=stacks, only=run.all_slices)
    start = run.start
    if start is not None:
        _, rows, columns = run.stacks.voxels.shape
        start = replace(start, voxels=start.voxels[:, :rows, :columns].transpose(axes))
    turned = replace(run, stacks=stacks, start=start, cache=VolumeCache())
    return replace(turned, only=turned.all_slices)


def predict_slices(
    run: SliceRun, monitor: Monitor, *, flips: tuple[int, ...] = (), wants_error: bool = False
) -> Iterator[tuple[slice, Floats, Floats | None]]:
    """Enhance the wanted slices, in order.

    Args:
        run: model, slices, cue and plan.
        monitor: progress; a safe point for cancelling before each chunk of a stage.
        flips: axes of [B, C, H, W] to mirror before and after (for uncertainty).
        wants_error: whether the expected error is computed too.

    Yields:
        (where, scaled values [b, J, I], expected absolute error in the same shape or None).

    Raises:
        DeviceMemoryError, Cancelled: see `in_chunks`.
    """
    model, stacks, contents = run.model, run.stacks, run.cache.contents
    cue, asked = model.enhancer.split(run.cue)

    def begin(plan: Plan, window: Window) -> Stage:
        key = model.bundle.sha256, plan.device if plan.half else f"{plan.device}, single precision"
        if key not in contents:
            contents[key] = volume_content(model, stacks, plan, monitor)
        return enhanced(
            model.enhancer,
            _planes(stacks, window, plan, monitor, flips),
            torch.cat([cue.to(plan.device), contents[key]], dim=1),
            depth=len(stacks),
            asked=None if asked is None else asked.to(plan.device),
            start=None if run.start is None else _planes(run.start, window, plan, monitor, flips),
            wants_error=wants_error,
        )

    streams = _Streams(run, begin, lambda made: made.flip(flips).transpose(0, 1))
    for where, values in in_chunks(
        streams.run, stacks, run.plan, monitor, "enhancing slices", only=run.only
    ):
        yield where, values[:, 0], values[:, 1] if wants_error else None


def shrunk(run: SliceRun, monitor: Monitor) -> SliceStacks | None:
    """What the network starts from, computed once for several runs over the same slices.

    Args:
        run: its `only` names the slices that will be enhanced.
        monitor: as for `predict_slices`.

    Returns:
        The wanted slices and those they depend on, other slices 0; sides padded to multiples of
        GRID, as they enter the network. None where the network starts from its input, or where
        each tile has a start of its own.

    Raises:
        DeviceMemoryError, Cancelled: see `in_chunks`.
    """
    model, stacks, plan = run.model, run.stacks, run.plan
    if model.enhancer.shrinkage is None or max(stacks.voxels.shape[1:]) > plan.tile:
        return None

    def begin(plan: Plan, window: Window) -> Stage:
        return started(model.enhancer, _planes(stacks, window, plan, monitor), len(stacks))

    depth, rows, columns = stacks.voxels.shape
    plan = plan.suited(rows, columns)  # not for the padded sides: chunks are the network's own
    reach = model.config.context
    # Whole chunks: the other slices of a chunk enter the network too and have to be images.
    first = max(0, run.only.start - reach) // plan.slices * plan.slices
    needed = slice(first, min(depth, -(-(run.only.stop + reach) // plan.slices) * plan.slices))
    voxels = np.zeros((depth, rows + -rows % GRID, columns + -columns % GRID), np.float32)
    made = SliceStacks(voxels, Scaling(0.0, 1.0), stacks.context)
    streams = _Streams(run, begin, lambda planes: planes[:, None])
    for where, values in in_chunks(
        streams.run, made, plan, monitor, "removing noise from blocks", only=needed
    ):
        voxels[where] = values[:, 0]
    return made


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


def _planes(
    stacks: SliceStacks, window: Window, plan: Plan, monitor: Monitor, flips: tuple[int, ...] = ()
) -> Stage:
    """The slices in chunks on request, in the window of the tile, mirrored."""
    uploads = Uploads(plan.device)
    axes = tuple(axis - 4 for axis in flips)

    def make(chunk: int) -> Tensor:
        first = chunk * plan.slices
        planes = uploads.send(stacks.planes(slice(first, first + plan.slices), window))
        return planes.flip(axes) if axes else planes

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
