"""Runs a network over slices: in chunks, in tiles, with smaller ones when memory runs out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.errors import DeviceMemoryError, ModelError
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.runtime.device import is_out_of_memory
from MedEnhanceLib.runtime.locks import release_memory
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
#: Slices are padded to a multiple of this, which networks halve, and tiles begin at multiples.
GRID = 32
_SMALLEST_TILE = 256
#: Pixels at once on a CPU: a slice of 512². More is slower (1.7 times for 16 slices): features
#: leave the cache, and beyond 32 MiB every tensor comes from the system anew, page by page.
_CPU_PIXELS = 512 * 512
#: On a GPU 32 of them keep it busy, given that much memory. Bytes of the tensors alive at once for
#: each pixel of a chunk were counted on the CPU; twice as much allows for cuDNN's workspace and
#: what cannot be used of cached memory.
_GPU_PIXELS = 32 * _CPU_PIXELS
_GPU_BYTES = 2 * 1756
#: Takes [B, 2k + 1, H, W] and where to run; returns [B, channels, H, W].
Network = Callable[[Tensor, "Plan"], Tensor]


@dataclass(frozen=True)
class Plan:
    """Device, tile size and number of slices at once.

    batch: slices at once; None until the size of a slice is known (`suited`).
    """

    device: str
    batch: int | None
    tile: int
    overlap: float

    def suited(self, rows: int, columns: int) -> Plan:
        """With the batch for slices of that size, where none is stated."""
        if self.batch is not None:
            return self
        pixels = min(rows, self.tile) * min(columns, self.tile)
        at_once = _CPU_PIXELS
        if self.device != "cpu":
            at_once = _GPU_PIXELS
            if self.device.startswith("cuda"):
                free, _ = torch.cuda.mem_get_info(self.device)
                at_once = min(at_once, free // _GPU_BYTES)
        batch = max(1, at_once // pixels)
        if self.device.startswith("cuda"):  # the same where a little more or less is free
            batch = 1 << batch.bit_length() - 1
        return replace(self, batch=batch)

    @property
    def slices(self) -> int:
        """Slices at once."""
        return self.batch or 1

    def smaller(self) -> Plan | None:
        """The next smaller plan: smaller batch, then smaller tile, then CPU; None after that."""
        if self.slices > 1:
            return replace(self, batch=self.slices // 2)
        if self.tile > _SMALLEST_TILE:
            return replace(self, tile=max(self.tile // 2 // GRID * GRID, _SMALLEST_TILE))
        if self.device != "cpu":
            return replace(self, device="cpu")
        return None


@dataclass(frozen=True)
class SliceStacks:
    """A volume's slices with their neighbors, scaled when they are asked for.

    voxels: [K, J, I] in their units. context: neighbors on each side; at the ends the last
    slice is repeated.
    """

    voxels: npt.NDArray[Any]
    scaling: Scaling
    context: int

    def __len__(self) -> int:
        return int(self.voxels.shape[0])

    def take(self, where: slice) -> Tensor:
        """[B, 2k + 1, H, W], padded at the far edges to multiples of GRID by repetition."""
        offsets = np.arange(-self.context, self.context + 1)
        places = np.arange(where.start, where.stop)[:, None] + offsets
        places = np.clip(places, 0, len(self) - 1)
        first, last = int(places.min()), int(places.max())
        scaled = self.scaling.apply(self.voxels[first : last + 1])[places - first]
        stacks = torch.from_numpy(scaled)
        rows, columns = stacks.shape[-2:]
        padding = (0, -columns % GRID, 0, -rows % GRID)
        return F.pad(stacks, padding, mode="replicate") if any(padding) else stacks


def over_slices(
    network: Network, stacks: SliceStacks, plan: Plan, monitor: Monitor, stage: str
) -> Iterator[tuple[slice, Floats]]:
    """Apply a network that takes each slice with its neighbors, in chunks.

    When memory runs out, the plan becomes smaller, with a warning.

    Args:
        network: computes some slices, or tiles of them.
        stacks: the slices.
        plan: the initial plan.
        monitor: each chunk is a safe point for cancelling.
        stage: name of the step, for progress.
    Yields:
        (where, values [n, channels, J, I]).
    Raises:
        DeviceMemoryError: memory ran out with the smallest plan.
        ModelError: values are not finite.
    """
    rows, columns = stacks.voxels.shape[-2:]
    plan = plan.suited(rows, columns)
    first = 0
    while first < len(stacks):
        monitor.progress(first / len(stacks), stage)
        where = slice(first, min(first + plan.slices, len(stacks)))
        smaller = None
        try:
            result = _in_tiles(network, stacks.take(where).to(plan.device), plan)
            values = result[..., :rows, :columns].float().cpu().numpy()
        except (MemoryError, RuntimeError) as cause:
            smaller = _after(cause, plan, monitor)
        if smaller is not None:
            release_memory(plan.device)  # only now: the traceback held what was computed
            plan = smaller
            continue
        if not np.isfinite(values).all():
            raise ModelError(
                f"the model gives values that are not finite on {plan.device}",
                "Use another model, or look at the volume: values far outside the usual range.",
            )
        yield where, values
        first = where.stop


@contextmanager
def stoppable(network: nn.Module, monitor: Monitor) -> Iterator[None]:
    """Within it, every layer of `network` begins with a safe point of `monitor` for cancelling.

    Large slices take seconds on a CPU. Only for runs in this thread: another thread may run the
    same network for another job.
    """
    thread = threading.get_ident()

    def look(*_: object) -> None:
        if threading.get_ident() == thread:
            monitor.check()

    layers = [module for module in network.modules() if not list(module.children())]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _in_tiles(network: Network, batch: Tensor, plan: Plan) -> Tensor:
    """[n, channels, H, W]: whole slices where they fit into the tile, else tiles that overlap."""

    def run(part: Tensor) -> Tensor:
        return network(part.contiguous(memory_format=torch.channels_last), plan)

    rows, columns = batch.shape[-2:]
    if max(rows, columns) <= plan.tile:
        return run(batch)
    from monai.inferers.utils import sliding_window_inference

    tile = min(plan.tile, rows), min(plan.tile, columns)  # all begin at multiples of GRID
    result = sliding_window_inference(batch, tile, 1, run, overlap=plan.overlap, mode="gaussian")
    assert isinstance(result, Tensor)
    return result


def _after(cause: BaseException, plan: Plan, monitor: Monitor) -> Plan:
    """The plan to go on with when `cause` is memory running out; anything else is raised."""
    if not is_out_of_memory(cause):
        raise cause
    smaller = plan.smaller()
    if smaller is None:
        raise DeviceMemoryError(
            f"memory ran out on {plan.device} even with the smallest tile",
            "Close other programs, or crop the volume.",
        ) from cause
    monitor.warn(
        f"memory ran out on {plan.device}; going on with {smaller.slices} slices of at most "
        f"{smaller.tile} pixels at once on {smaller.device}"
    )
    return smaller
