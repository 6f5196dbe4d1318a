"""Runs the enhancer over a volume's slices, with one content vector for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.hqg.bundle import EnhancerModel
from MedEnhanceLib.hqg.findings import Findings
from MedEnhanceLib.hqg.stream import enhanced, started
from MedEnhanceLib.nets.intensity import TISSUE, Scaling
from MedEnhanceLib.nets.precision import inference_precision, move
from MedEnhanceLib.nets.slices import GRID, Plan, SliceStacks, Window, blended, in_chunks, windows
from MedEnhanceLib.nets.stream import Stage, Uploads
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
#: What v_y is measured on: so many slabs of so many slices, and of them a window of that side. It
#: does not depend on the tile, and is a preview's wait. Small windows gave what whole slices did to
#: 0.03 dB (C19, 10 % noise).
_CONTENT_SLABS = 4
_CONTENT_DEPTH = 4
_CONTENT_SIDE = 128


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
    start: SliceStacks | None = None,
    wants_error: bool = False,
) -> Iterator[tuple[slice, Floats, Floats | None]]:
    """Enhance all slices, or `only` some, in order.

    Yields (where, scaled values [b, J, I], expected absolute error in the same shape or None).
    cue: [1, cue_size], or with what is asked (`GuidanceEncoder.asking`). findings: where the
    content vector may be known already. flips: axes of [B, C, H, W] to mirror before and after
    (for uncertainty). start: what `shrunk` made of these slices, where it is known. wants_error:
    see Estimate.
    Raises DeviceMemoryError and Cancelled, see in_chunks.
    """
    contents = (findings or Findings()).contents
    cue, asked = model.enhancer.split(cue)

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
            start=None if start is None else _planes(start, window, plan, monitor, flips),
            wants_error=wants_error,
        )

    streams = _Streams(model, stacks, begin, lambda made: made.flip(flips).transpose(0, 1))
    for where, values in in_chunks(
        streams.run, stacks, plan, monitor, "enhancing slices", only=only
    ):
        yield where, values[:, 0], values[:, 1] if wants_error else None


def shrunk(
    model: EnhancerModel, stacks: SliceStacks, plan: Plan, monitor: Monitor, *, only: slice
) -> SliceStacks | None:
    """What the network starts from, for several runs over the same slices.

    only: slices that are to be enhanced; those they depend on come out too, others are 0. Sides
    are padded to multiples of GRID, as they go into the network. None where the network starts
    from its input, or each tile from a start of its own. Raises DeviceMemoryError and Cancelled.
    """
    if model.enhancer.shrinkage is None or max(stacks.voxels.shape[1:]) > plan.tile:
        return None

    def begin(plan: Plan, window: Window) -> Stage:
        return started(model.enhancer, _planes(stacks, window, plan, monitor), len(stacks))

    depth, rows, columns = stacks.voxels.shape
    plan = plan.suited(rows, columns)  # not for the padded sides: chunks are the network's own
    reach = model.config.context
    # Whole chunks: what else is in one goes through the network as well, and has to be an image.
    first = max(0, only.start - reach) // plan.slices * plan.slices
    needed = slice(first, min(depth, -(-(only.stop + reach) // plan.slices) * plan.slices))
    voxels = np.zeros((depth, rows + -rows % GRID, columns + -columns % GRID), np.float32)
    made = SliceStacks(voxels, Scaling(0.0, 1.0), stacks.context)
    streams = _Streams(model, stacks, begin, lambda planes: planes[:, None])
    for where, values in in_chunks(
        streams.run, made, plan, monitor, "removing noise from blocks", only=needed
    ):
        voxels[where] = values[:, 0]
    return made


class _Streams:
    """A network's stages over slices, in each tile; begun anew where the plan changes.

    begin: makes the last stage in a window; shape: what it gives → [n, channels, H, W].
    """

    def __init__(
        self,
        model: EnhancerModel,
        stacks: SliceStacks,
        begin: Callable[[Plan, Window], Stage],
        shape: Callable[[Tensor], Tensor],
    ) -> None:
        self._model, self._begin, self._shape = model, begin, shape
        rows, columns = stacks.voxels.shape[-2:]
        self._size = rows + -rows % GRID, columns + -columns % GRID
        self._streams: dict[Plan, list[tuple[Window, Stage]]] = {}

    def run(self, where: slice, plan: Plan) -> Tensor:
        """Some slices, as `in_chunks` wants them."""
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
            self._streams.clear()  # what they hold is what is missing
            raise


def _planes(
    stacks: SliceStacks, window: Window, plan: Plan, monitor: Monitor, flips: tuple[int, ...] = ()
) -> Stage:
    """The slices by chunks as they are asked for, in the window of the tile, mirrored."""
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
    """v_y of the whole volume, [1, content_size]: the mean over slabs that show much.

    One vector for all slices makes neighbours agree; the paper takes each image's own.
    """
    depth = min(_CONTENT_DEPTH, len(stacks))
    centres = stacks.telling(_CONTENT_SLABS)
    slices = [stacks.planes(slice(centre, centre + 1)) for centre in centres]
    window = _fullest(slices, TISSUE[model.bundle.modality])
    vectors = []
    with inference_precision(plan.device, half=plan.half):
        for centre in centres:
            monitor.check()
            first = int(np.clip(centre - depth // 2, 0, len(stacks) - depth))
            slab = stacks.planes(slice(first, first + depth))[..., window.rows, window.columns]
            vectors.append(model.enhancer.content_vector(slab[None].to(plan.device)).float())
    return torch.cat(vectors).mean(dim=0, keepdim=True)


def _fullest(slices: Sequence[Tensor], least: float) -> Window:
    """Where most of slices [1, H, W] is above `least`: full of tissue, as what is learned from."""
    shown = (torch.stack(list(slices)) > least).float().mean(dim=0)
    rows, columns = (min(_CONTENT_SIDE, side) for side in shown.shape[-2:])
    filled = torch.nn.functional.avg_pool2d(shown, (rows, columns), stride=GRID)[0]
    row, column = divmod(int(filled.argmax()), filled.shape[1])
    return Window(
        slice(row * GRID, row * GRID + rows), slice(column * GRID, column * GRID + columns)
    )
