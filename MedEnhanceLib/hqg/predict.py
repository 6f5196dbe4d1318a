"""Runs the enhancer over a volume's slices: stacks, tiles, batches, and less of each when memory
runs out.
"""

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
from MedEnhanceLib.hqg.bundle import EnhancerModel
from MedEnhanceLib.hqg.intensity import Scaling
from MedEnhanceLib.nets.precision import move
from MedEnhanceLib.progress import Monitor

Floats = npt.NDArray[np.float32]

#: Slices are padded to a multiple of this: the grid of AdaLIN's local statistics, so that tiles
#: and whole slices share it.
GRID = 32
_CONTENT_SLICES = 16


@dataclass(frozen=True)
class Plan:
    """How much goes through the network at once, and where."""

    device: str
    batch: int
    tile: int
    overlap: float

    def smaller(self) -> Plan | None:
        """The next rung of the ladder: smaller batch, smaller tile, CPU; None at its end."""
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        if self.tile > 256:
            return replace(self, tile=self.tile // 2)
        if self.device != "cpu":
            return replace(self, device="cpu", tile=1024, batch=4)
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


def volume_content(model: EnhancerModel, stacks: SliceStacks, plan: Plan) -> Tensor:
    """v_y of the whole volume, [1, content_size]: the mean over up to 16 slices that show most.

    One vector for all slices makes neighbours agree; the paper takes each image's own.
    """
    spread = np.array([float(plane[::4, ::4].std()) for plane in stacks.voxels])
    candidates = np.flatnonzero(spread >= np.median(spread))
    chosen = candidates[np.linspace(0, len(candidates) - 1, _CONTENT_SLICES).astype(np.intp)]
    vectors = []
    for centre in np.unique(chosen):
        stack = stacks.take(np.array([centre]))[..., : plan.tile, : plan.tile].to(plan.device)
        vectors.append(model.enhancer.content_vector(model.enhancer.encode(stack)))
    return torch.cat(vectors).mean(dim=0, keepdim=True)


def predict_slices(
    model: EnhancerModel,
    stacks: SliceStacks,
    cue: Tensor,
    plan: Plan,
    monitor: Monitor,
    *,
    flips: tuple[int, ...] = (),
) -> Iterator[tuple[slice, Floats]]:
    """Enhance all slices, in order.

    cue: [1, cue_size]. flips: axes of [B, C, H, W] to mirror before and after (for uncertainty).
    Yields (where, scaled values [b, J, I]). Memory running out makes the plan smaller, announced;
    at the end of the ladder DeviceMemoryError is raised.
    """
    rows, columns = stacks.voxels.shape[-2:]
    content: Tensor | None = None
    done = 0
    while done < len(stacks):
        monitor.progress(done / len(stacks), "enhancing slices")
        where = slice(done, min(done + plan.batch, len(stacks)))
        try:
            move(model.enhancer, plan.device)
            if content is None:
                content = volume_content(model, stacks, plan)
            batch = stacks.take(np.arange(where.start, where.stop)).to(plan.device)
            enhanced = _run(model, batch, cue.to(plan.device), content.to(plan.device), plan, flips)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as cause:
            plan = _after(cause, plan, monitor)
            continue
        yield where, enhanced[:, 0, :rows, :columns].cpu().numpy()
        done = where.stop


def _run(
    model: EnhancerModel,
    batch: Tensor,
    cue: Tensor,
    content: Tensor,
    plan: Plan,
    flips: tuple[int, ...],
) -> Tensor:
    def network(stacks: Tensor) -> Tensor:
        count = len(stacks)
        stacks = stacks.contiguous(memory_format=torch.channels_last)
        output: Tensor = model.enhancer(stacks, cue.expand(count, -1), content.expand(count, -1))
        return output

    if flips:
        batch = batch.flip(flips)
    enhanced = tiled(network, batch, plan.tile, plan.overlap)
    return enhanced.flip(flips) if flips else enhanced


def tiled(network: Callable[[Tensor], Tensor], batch: Tensor, tile: int, overlap: float) -> Tensor:
    """Apply `network` to [B, C, H, W], whole where it fits, else in blended tiles (MONAI)."""
    if max(batch.shape[-2:]) <= tile:
        return network(batch)
    from monai.inferers.utils import sliding_window_inference

    sides = tuple(min(tile, side) for side in batch.shape[-2:])
    # The step between tiles has to keep to the grid of the local statistics.
    on_grid = 1 - (int(tile * (1 - overlap)) // GRID * GRID) / tile
    output: Tensor = sliding_window_inference(
        batch, roi_size=sides, sw_batch_size=1, predictor=network, overlap=on_grid, mode="gaussian"
    )
    return output


def _after(cause: BaseException, plan: Plan, monitor: Monitor) -> Plan:
    """The plan to go on with when `cause` is memory running out; anything else is raised."""
    text = str(cause).lower()
    if not isinstance(cause, torch.OutOfMemoryError | MemoryError) and not (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    ):
        raise cause
    smaller = plan.smaller()
    if smaller is None:
        raise DeviceMemoryError(
            f"memory ran out on {plan.device} with the smallest tile",
            "Close other programs, or crop the volume.",
        ) from cause
    if plan.device.startswith("cuda"):
        torch.cuda.empty_cache()
    monitor.warn(
        f"memory ran out on {plan.device}; going on with {smaller.batch} slices of at most "
        f"{smaller.tile} pixels at once on {smaller.device}"
    )
    return smaller
