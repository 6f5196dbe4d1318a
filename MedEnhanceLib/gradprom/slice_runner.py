"""Runs a network over slices, some at once, and fewer when memory runs out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.arrays import Array, Floats
from MedEnhanceLib.errors import DeviceMemoryError, ModelError
from MedEnhanceLib.learning.intensity import Scaling
from MedEnhanceLib.runtime.device import is_out_of_memory, release_memory
from MedEnhanceLib.runtime.progress import Monitor

#: Slices are padded to a multiple of this, as networks halve their sides.
GRID = 32
#: Pixels at once on a CPU: a slice of 512². More is slower (1.7 times for 16 slices): features
#: leave the cache, and tensors beyond 32 MiB are allocated by the system each time, page by page.
_CPU_PIXELS = 512 * 512
#: A GPU needs 32 such slices to be busy.
_GPU_PIXELS = 32 * _CPU_PIXELS
#: Takes [B, 2k + 1, H, W] and the device; returns [B, channels, H, W].
Network = Callable[[Tensor, str], Tensor]


def over_slices(
    network: Network,
    voxels: Array,
    scaling: Scaling,
    context: int,
    device: str,
    monitor: Monitor,
) -> Iterator[tuple[slice, Floats]]:
    """Apply a network to slices with their neighbors, some slices at once.

    When memory runs out, it continues with fewer of them, and then on the CPU, with a warning.

    Args:
        network: computes some slices on a device.
        voxels: [K, J, I] in their units.
        scaling: to the network's scale.
        context: neighbors on each side; at the ends the last slice is repeated.
        device: to begin with, as torch names it.
        monitor: progress; each chunk is a safe point for cancelling.
    Yields:
        (where, values [n, channels, J, I]).
    Raises:
        DeviceMemoryError: memory ran out with one slice on the CPU.
        ModelError: values are not finite.
    """
    count, rows, columns = voxels.shape
    at_once = max(1, (_CPU_PIXELS if device == "cpu" else _GPU_PIXELS) // (rows * columns))
    first = 0
    while first < count:
        monitor.progress(first / count, "segmenting slices")
        where = slice(first, min(first + at_once, count))
        values = None
        try:
            stacks = stacks_of(voxels, scaling, context, where)
            batch = stacks.to(device, memory_format=torch.channels_last)
            values = network(batch, device)[..., :rows, :columns].float().cpu().numpy()
        except (MemoryError, RuntimeError) as cause:
            if not is_out_of_memory(cause):
                raise
        if values is None:
            release_memory(device)  # only here: in the handler the traceback still holds tensors
            if at_once == 1 and device == "cpu":
                raise DeviceMemoryError(
                    "memory ran out with one slice at once on the CPU",
                    "Close other programs, or crop the volume.",
                )
            at_once, device = (at_once // 2, device) if at_once > 1 else (1, "cpu")
            monitor.warn(f"memory ran out; going on with {at_once} slices at once on {device}")
            continue
        if not np.isfinite(values).all():
            raise ModelError(
                f"the model gives values that are not finite on {device}",
                "Use another model, or check the volume for values far outside the usual range.",
            )
        yield where, values
        first = where.stop


def stacks_of(voxels: Array, scaling: Scaling, context: int, where: slice) -> Tensor:
    """Stack each slice with its neighbors, on the network's scale: [B, 2k + 1, H, W].

    Args:
        voxels: [K, H, W], in their own units; beyond its ends the last slice is repeated.
        scaling: to the network's scale.
        context: number k of neighbors on either side.
        where: the B slices in the middle of the stacks, with start and stop.
    Returns H and W padded to multiples of GRID by repeating the far edges.
    """
    places = np.arange(where.start, where.stop)[:, None] + np.arange(-context, context + 1)
    places = np.clip(places, 0, len(voxels) - 1)
    first, last = int(places.min()), int(places.max())
    stacks = torch.from_numpy(scaling.apply(voxels[first : last + 1])[places - first])
    rows, columns = stacks.shape[-2:]
    padding = (0, -columns % GRID, 0, -rows % GRID)
    return F.pad(stacks, padding, mode="replicate") if any(padding) else stacks


@contextmanager
def stoppable(network: nn.Module, monitor: Monitor) -> Iterator[None]:
    """Make every layer of `network` check `monitor` for a cancel, within the context.

    Only for runs in this thread: another thread may run the same network for another job.
    """
    thread = threading.get_ident()

    def check(*_: object) -> None:
        if threading.get_ident() == thread:
            monitor.check()

    layers = [module for module in network.modules() if not list(module.children())]
    hooks = [layer.register_forward_pre_hook(check) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
