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
from MedEnhanceLib.nets.precision import computes_in_half
from MedEnhanceLib.runtime.device import is_out_of_memory
from MedEnhanceLib.runtime.locks import release_memory
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
#: Slices are padded to a multiple of this: the grid of AdaLIN's local statistics, so that tiles
#: and whole slices share it.
GRID = 32
_SMALLEST_TILE = 256
#: Pixels at once on a CPU: a slice of 512². More is slower (1.7 times for 16 slices): features
#: leave the cache, and beyond 32 MiB every tensor comes from the system anew, page by page.
_CPU_PIXELS = 512 * 512
#: On a GPU 32 of them keep it busy, given that much memory. Bytes of the tensors alive at once for
#: each pixel of a chunk were counted on the CPU; twice as much allows for cuDNN's workspace, the
#: chunk ahead and what cannot be used of cached memory.
_GPU_PIXELS = 32 * _CPU_PIXELS
_GPU_BYTES = 2 * 1756
#: Computes some slices with a plan: [n, channels, H, W], on the plan's device.
Run = Callable[[slice, "Plan"], Tensor]
#: Chunks that a device computes before the first of them is waited for.
_AHEAD = {"cuda": 1}
#: Takes [B, 2k + 1, H, W] and where to run; returns [B, channels, H, W].
Network = Callable[[Tensor, "Plan"], Tensor]


@dataclass(frozen=True)
class Plan:
    """Device, tile size and number of slices at once.

    batch: slices at once; None until the size of a slice is known (`suited`). half: whether half
    precision may be used.
    """

    device: str
    batch: int | None
    tile: int
    overlap: float
    half: bool = True

    @classmethod
    def make(cls, device: str, *, batch: int | None, tile: int, overlap: float) -> Plan:
        """The initial plan; `batch` None takes what suits the device."""
        return cls(device, batch, tile, overlap)

    def suited(self, rows: int, columns: int) -> Plan:
        """With the batch for slices of that size, the same for a part as for all of a volume."""
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
class Window:
    """A part of a slice that goes through the network at once; whole numbers of GRID."""

    rows: slice
    columns: slice


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

    def take(self, centers: npt.NDArray[np.intp]) -> Tensor:
        """[B, 2k + 1, H, W], padded at the far edges to multiples of GRID by repetition."""
        offsets = np.arange(-self.context, self.context + 1)
        wanted = np.clip(centers[:, None] + offsets, 0, len(self) - 1)
        first, last = int(wanted.min()), int(wanted.max())
        scaled = self.scaling.apply(self.voxels[first : last + 1])[wanted - first]
        stacks = torch.from_numpy(scaled)
        rows, columns = stacks.shape[-2:]
        padding = (0, -columns % GRID, 0, -rows % GRID)
        return F.pad(stacks, padding, mode="replicate") if any(padding) else stacks


def over_slices(
    network: Network,
    stacks: SliceStacks,
    plan: Plan,
    monitor: Monitor,
    stage: str,
    *,
    only: slice | None = None,
) -> Iterator[tuple[slice, Floats]]:
    """Apply a network that takes each slice with its neighbors; yields as `in_chunks`."""

    def run(where: slice, plan: Plan) -> Tensor:
        batch = stacks.take(np.arange(where.start, where.stop)).to(plan.device)
        rows, columns = batch.shape[-2:]
        tiles = windows(rows, columns, plan)
        parts = [batch[..., tile.rows, tile.columns] for tile in tiles]
        results = [
            network(part.contiguous(memory_format=torch.channels_last), plan) for part in parts
        ]
        return blended(results, tiles)

    yield from in_chunks(run, stacks, plan, monitor, stage, only=only)


def in_chunks(
    run: Run,
    stacks: SliceStacks,
    plan: Plan,
    monitor: Monitor,
    stage: str,
    *,
    only: slice | None = None,
) -> Iterator[tuple[slice, Floats]]:
    """Compute slices in order, in chunks.

    When memory runs out, the plan becomes smaller, with a warning. Values that are not finite are
    computed again in single precision. A GPU computes the next chunk while the caller has the last
    one.

    Args:
        run: computes some slices with a plan.
        stacks: the slices.
        plan: the initial plan.
        monitor: each chunk is a safe point for cancelling.
        stage: name of the step, for progress.
        only: the slices to compute; None takes all. They are computed in the same chunks as all
            would be, as the size of a chunk can show in the last bits.
    Yields:
        (where, values [n, channels, J, I]).
    Raises:
        DeviceMemoryError: memory ran out with the smallest plan.
        ModelError: values are not finite in single precision either.
    """
    rows, columns = stacks.voxels.shape[-2:]
    plan = plan.suited(rows, columns)
    first, last = (0, len(stacks)) if only is None else (only.start, only.stop)
    begun = given = first
    coming: list[tuple[slice, Callable[[], Tensor]]] = []
    while given < last:
        if begun < last:
            monitor.progress((given - first) / (last - first), stage)
            start = begun // plan.slices * plan.slices
            where = slice(start, min(start + plan.slices, len(stacks)))
            smaller = None
            try:
                coming.append((where, download(run(where, plan)[..., :rows, :columns])))
            except (MemoryError, RuntimeError) as cause:
                smaller = _after(cause, plan, monitor)
            if smaller is not None:
                release_memory(plan.device)  # only now: the traceback held what was computed
                plan = smaller
                continue
            begun = where.stop
        if len(coming) <= _AHEAD.get(plan.device.partition(":")[0], 0) and begun < last:
            continue
        where, wait = coming.pop(0)
        values = wait().numpy()
        if not np.isfinite(values).all():
            plan = _in_full_precision(plan, monitor)
            coming.clear()
            begun = given
            continue
        kept = slice(given, min(where.stop, last))
        given = kept.stop
        yield kept, values[kept.start - where.start : kept.stop - where.start]


def download(result: Tensor) -> Callable[[], Tensor]:
    """Start copying a result to the CPU; call the returned function to wait for it."""
    if not result.is_cuda:
        return result.float().cpu
    host = torch.empty(result.shape, dtype=torch.float32, pin_memory=True)
    into = host.copy_(result, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(torch.cuda.current_stream(result.device))

    def wait() -> Tensor:
        arrived.synchronize()
        return into

    return wait


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


def windows(rows: int, columns: int, plan: Plan) -> list[Window]:
    """Whole slices where they fit into the tile, else tiles that overlap.

    rows, columns: padded to GRID. The step between tiles keeps to GRID, which the local statistics
    need.
    """
    if max(rows, columns) <= plan.tile:
        return [Window(slice(0, rows), slice(0, columns))]
    from monai.data.utils import dense_patch_slices

    step = max(int(plan.tile * (1 - plan.overlap)) // GRID, 1) * GRID
    tile = min(plan.tile, rows), min(plan.tile, columns)
    return [Window(*found) for found in dense_patch_slices((rows, columns), tile, (step, step))]


def blended(results: list[Tensor], where: list[Window]) -> Tensor:
    """Tiles [n, channels, h, w] to slices: where they overlap, the nearer center counts more."""
    if len(results) == 1:
        return results[0]
    from monai.data.utils import compute_importance_map

    first = results[0]
    weight = compute_importance_map(
        tuple(first.shape[-2:]), mode="gaussian", device=first.device, dtype=torch.float32
    )
    size = max(window.rows.stop for window in where), max(window.columns.stop for window in where)
    total = torch.zeros((*first.shape[:2], *size), device=first.device)
    weights = torch.zeros(size, device=first.device)
    for result, window in zip(results, where, strict=True):
        total[..., window.rows, window.columns] += weight * result
        weights[window.rows, window.columns] += weight
    return total.div_(weights)


def _in_full_precision(plan: Plan, monitor: Monitor) -> Plan:
    if not plan.half:
        raise ModelError(
            f"the model gives values that are not finite on {plan.device}",
            "Use another model, or look at the volume: values far outside the usual range.",
        )
    if computes_in_half(plan.device):
        monitor.warn(
            f"values beyond half precision on {plan.device}; going on in single precision, slower"
        )
    return replace(plan, half=False)


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
