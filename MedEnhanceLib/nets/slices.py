"""Runs a 2.5D network over a volume: stacks, tiles, batches, and less of each as memory ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.errors import DeviceMemoryError
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.progress import Monitor

Floats = npt.NDArray[np.float32]

#: Slices are padded to a multiple of this: the grid of AdaLIN's local statistics, so that tiles
#: and whole slices share it.
GRID = 32
_SMALLEST_TILE = 256
#: Slices at once on a GPU. On a CPU several gain nothing, and a cancel would wait for them.
_GPU_BATCH = 4


@dataclass(frozen=True)
class Plan:
    """How much goes through the network at once, and where."""

    device: str
    batch: int
    tile: int
    overlap: float

    @classmethod
    def make(cls, device: str, *, batch: int | None, tile: int, overlap: float) -> Plan:
        """The plan to begin with; `batch` None takes what suits the device."""
        suitable = 1 if device == "cpu" else _GPU_BATCH
        return cls(device, batch or suitable, tile, overlap)

    def smaller(self) -> Plan | None:
        """The next rung of the ladder: smaller batch, smaller tile, CPU; None at its end."""
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        if self.tile > _SMALLEST_TILE:
            return replace(self, tile=max(self.tile // 2 // GRID * GRID, _SMALLEST_TILE))
        if self.device != "cpu":
            return replace(self, device="cpu")
        return None


@dataclass(frozen=True)
class SliceStacks:
    """A volume's slices with their neighbours, scaled when they are asked for.

    voxels: [K, J, I] in their units. context: neighbours on each side; at the ends the last
    slice is repeated.
    """

    voxels: npt.NDArray[Any]
    scaling: Scaling
    context: int

    def __len__(self) -> int:
        return int(self.voxels.shape[0])

    def take(self, centres: npt.NDArray[np.intp]) -> Tensor:
        """[B, 2k + 1, H, W], padded at the far edges to multiples of GRID by repetition."""
        offsets = np.arange(-self.context, self.context + 1)
        wanted = np.clip(centres[:, None] + offsets, 0, len(self) - 1)
        first, last = int(wanted.min()), int(wanted.max())
        scaled = self.scaling.apply(self.voxels[first : last + 1])[wanted - first]
        stacks = torch.from_numpy(scaled)
        rows, columns = stacks.shape[-2:]
        padding = (0, -columns % GRID, 0, -rows % GRID)
        return F.pad(stacks, padding, mode="replicate") if any(padding) else stacks

    def telling(self, count: int) -> npt.NDArray[np.intp]:
        """Up to `count` evenly spaced slices among the half that varies most."""
        spread = np.array([float(plane[::4, ::4].std()) for plane in self.voxels])
        shown = np.flatnonzero(spread >= np.median(spread))
        return np.unique(shown[np.linspace(0, len(shown) - 1, count).astype(np.intp)])


#: Takes [B, C, H, W] and where to run; returns [B, channels, H, W].
Network = Callable[[Tensor, Plan], Tensor]


def over_slices(
    network: Network,
    stacks: SliceStacks,
    plan: Plan,
    monitor: Monitor,
    stage: str,
    *,
    only: slice | None = None,
) -> Iterator[tuple[slice, Floats]]:
    """Apply `network` to slices in order; yields (where, values [b, channels, J, I]).

    only: from which slice to before which; None takes all. They go through in the batches in
    which all would, as a batch's size shows in the last bits.
    When memory runs out the plan becomes smaller, announced; at the end of the ladder
    DeviceMemoryError is raised. Each batch is a safe point for cancelling.
    """
    rows, columns = stacks.voxels.shape[-2:]
    first, last = (0, len(stacks)) if only is None else (only.start, only.stop)
    done = first // plan.batch * plan.batch
    while done < last:
        monitor.progress((done - first) / (last - first), stage)
        where = slice(done, min(done + plan.batch, len(stacks)))
        try:
            batch = stacks.take(np.arange(where.start, where.stop)).to(plan.device)
            result = _tiled(network, batch, plan)[..., :rows, :columns].float().cpu().numpy()
        except (MemoryError, RuntimeError) as cause:
            plan = _after(cause, plan, monitor)
            continue
        kept = slice(max(where.start, first), min(where.stop, last))
        yield kept, result[kept.start - where.start : kept.stop - where.start]
        done = where.stop


def _tiled(network: Network, batch: Tensor, plan: Plan) -> Tensor:
    """Whole slices where they fit, else tiles blended where they overlap (MONAI)."""
    if max(batch.shape[-2:]) <= plan.tile:
        return network(batch.contiguous(memory_format=torch.channels_last), plan)
    from monai.inferers.utils import sliding_window_inference

    def on_tiles(tiles: Tensor) -> Tensor:
        return network(tiles.contiguous(memory_format=torch.channels_last), plan)

    # The step between tiles has to keep to the grid of the local statistics.
    step = int(plan.tile * (1 - plan.overlap)) // GRID * GRID
    output: Tensor = sliding_window_inference(
        batch,
        roi_size=tuple(min(plan.tile, side) for side in batch.shape[-2:]),
        sw_batch_size=1,
        predictor=on_tiles,
        overlap=1 - step / plan.tile,
        mode="gaussian",
    )
    return output


def _after(cause: BaseException, plan: Plan, monitor: Monitor) -> Plan:
    """The plan to go on with when `cause` is memory running out; anything else is raised."""
    text = str(cause).lower()
    ran_out = isinstance(cause, torch.OutOfMemoryError | MemoryError) or any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory")
    )
    if not ran_out:
        raise cause
    smaller = plan.smaller()
    if smaller is None:
        raise DeviceMemoryError(
            f"memory ran out on {plan.device} even with the smallest tile",
            "Close other programs, or crop the volume.",
        ) from cause
    if plan.device.startswith("cuda"):
        torch.cuda.empty_cache()
    monitor.warn(
        f"memory ran out on {plan.device}; going on with {smaller.batch} slices of at most "
        f"{smaller.tile} pixels at once on {smaller.device}"
    )
    return smaller
