"""The filter of `nets.grouped` on a CUDA device, that slices reach once and leave after all of it.

Each is copied up in the type that it has, and its result is rounded before it is copied back. In
between every stage keeps the slices that its windows reach. Groups are computed by Triton kernels
(`nets.grouped_kernels`) where Triton is there, else by PyTorch (`nets.grouped_torch`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib import native
from MedEnhanceLib.native import SIDE, Layer
from MedEnhanceLib.nets.grouped import Finish, Run, Stage, default_engine, ranges_of
from MedEnhanceLib.nets.grouped_torch import Groups, references
from MedEnhanceLib.nets.noise import LevelMap
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.slices import Uploads, download
from MedEnhanceLib.runtime.device import is_device_lost, is_out_of_memory
from MedEnhanceLib.runtime.locks import release_memory
from MedEnhanceLib.runtime.progress import Monitor

#: Slices that leave a stage together, and groups that PyTorch computes together, at most and least:
#: each operation then has work for longer. With less memory the CPU takes over.
_SLICES, _LEAST_SLICES = 32, 4
_GROUPS, _LEAST_GROUPS = 131072, 1024
#: Bytes of a group in PyTorch, and float32 values of a voxel of a chunk (Testing/Benchmarks/
#: cuda_counts.py), with a third for what cannot be used of cached memory.
_GROUP_BYTES, _VOXEL_BYTES = 100_000, 160
#: Types that go to a device as they are, and are made float32 there.
_SENT = (np.uint8, np.int8, np.int16, np.int32, np.float32)
#: Lists of references that are kept: three stages, and as the layers of a chunk are two of each.
_KEPT_REFERENCES = 8
#: Compute capability from which kernels are used: those that they are compiled for in tests.
_KERNELS_SINCE = (8, 0)
#: Places in a slab are numbers of 32 bits.
_MOST_PLACES = 1 << 31


@dataclass(frozen=True)
class CardPlan:
    """How much is computed together: slices of a stage, groups of blocks."""

    slices: int
    groups: int

    @classmethod
    def suited(cls, rows: int, columns: int, free: int) -> CardPlan:
        """For slices of that size in half of the free bytes."""
        free //= 2
        slices = _SLICES
        while slices > _LEAST_SLICES and 2 * (slices + 16) * rows * columns >= _MOST_PLACES:
            slices //= 2
        groups = _GROUPS
        while slices > _LEAST_SLICES and (slices + 16) * rows * columns * _VOXEL_BYTES > free // 2:
            slices //= 2
        while groups > _LEAST_GROUPS and groups * _GROUP_BYTES > free // 2:
            groups //= 2
        return cls(slices, groups)

    def smaller(self) -> CardPlan | None:
        """The next smaller plan; None after the smallest."""
        if self.groups <= _LEAST_GROUPS and self.slices <= _LEAST_SLICES:
            return None
        return CardPlan(max(self.slices // 2, _LEAST_SLICES), max(self.groups // 4, _LEAST_GROUPS))


class CardEngine:
    """Computes the filter on a CUDA device: less at once where its memory runs out, then on the
    CPU.
    """

    def __init__(
        self,
        device: str,
        monitor: Monitor | None = None,
        *,
        plan: CardPlan | None = None,
        wants_kernels: bool = True,
    ) -> None:
        self._device, self._monitor = device, monitor or Monitor()
        self._plan, self._gave_up = plan, False
        self._kernels: Any = None
        # None until they are first wanted.
        self._has_kernels: bool | None = None if wants_kernels else False

    def slabs(
        self,
        run: Run,
        stages: Sequence[Stage],
        wanted: slice,
        pilot: npt.NDArray[Any] | None,
        finish: Finish | None,
    ) -> Iterator[npt.NDArray[Any]]:
        """As `grouped.WholeEngine.slabs`."""
        done = wanted.start
        if not self._gave_up and 64 * math.prod(run.noisy.shape[1:]) >= _MOST_PLACES:
            self._gave_up = True
            self._monitor.warn("slices this large are not filtered on a card; the CPU does it")
        while not self._gave_up:
            self._plan = self._plan or self._suited(run)
            parts = self._parts(run, stages, slice(done, wanted.stop), pilot, finish)
            try:
                while (part := _next(parts)) is not None:
                    yield part
                    done += len(part)
                return
            except (MemoryError, RuntimeError) as cause:
                if not is_out_of_memory(cause):
                    raise
            del parts  # only now: the error held what it had
            self._use_less()
        rest = slice(done, wanted.stop)
        yield from run.stream(default_engine(self._monitor), stages, rest, pilot, finish)

    def _suited(self, run: Run) -> CardPlan:
        rows, columns = run.noisy.shape[1:]
        is_cuda = self._device.startswith("cuda")
        free = torch.cuda.mem_get_info(self._device)[0] if is_cuda else 1 << 31
        return CardPlan.suited(rows, columns, free)

    def _use_less(self) -> None:
        assert self._plan is not None
        smaller = self._plan.smaller()
        if smaller is None:
            self._gave_up, how = True, "the CPU, slower"
        else:
            self._plan = smaller
            how = f"{smaller.groups} groups and {smaller.slices} slices at once"
        self._monitor.warn(f"memory ran out on {self._device}; removing noise goes on with {how}")
        release_memory(self._device)

    def _parts(
        self,
        run: Run,
        stages: Sequence[Stage],
        wanted: slice,
        pilot: npt.NDArray[Any] | None,
        finish: Finish | None,
    ) -> Iterator[npt.NDArray[Any]]:
        """The wanted slices; one part is copied while the next one is computed."""
        assert self._plan is not None
        card = _Card(self._device, run, self._plan, self._add)
        ranges = ranges_of(stages, wanted)
        slices = card.slices(run.start(pilot), ranges[0]) if pilot is not None else iter(())
        for stage, needed in zip(stages, ranges[1:], strict=True):
            slices = card.results(stage, needed, slices, is_last=stage is stages[-1], finish=finish)
        coming: Callable[[], Tensor] | None = None
        for part in slices:
            wait = card.fetch(part)
            if coming is not None:
                yield coming().numpy()
            coming = wait
        if coming is not None:
            yield coming().numpy()

    def _add(self, stage: native.Stage, layer: Layer, at: Tensor, *inputs: Tensor) -> None:
        """Add what references make to the sums: by a kernel where there is one, else by PyTorch."""
        if self._has_kernels is None:
            self._kernels = kernels_for(self._device, self._monitor)
            self._has_kernels = self._kernels is not None
        if self._has_kernels:
            try:
                self._kernels.add(stage, layer, at, *inputs)
            except Exception as cause:
                if is_out_of_memory(cause) or is_device_lost(cause):
                    raise
                self._has_kernels = False
                why = str(cause).strip().partition("\n")[0][:200]
                _do_without(self._monitor, f"Triton cannot compile them here ({why})")
            else:
                return
        assert self._plan is not None
        groups = Groups(layer, True, *inputs)
        # In the first stage one block each, of 32 in a group.
        most = self._plan.groups * (1 if stage == "grouped" else 16)
        for some in torch.split(at, most):
            groups.add(stage, some)


def kernels_for(device: str, monitor: Monitor) -> Any:
    """The Triton kernels for a device; None where there are none, on CUDA devices with a notice."""
    if not device.startswith("cuda"):
        return None
    if torch.version.cuda is None:
        _do_without(monitor, "this PyTorch is not built for CUDA")
        return None
    if torch.cuda.get_device_capability(device) < _KERNELS_SINCE:
        _do_without(monitor, "the card is older than they are meant for")
        return None
    try:
        from MedEnhanceLib.nets.grouped_kernels import Kernels
    except Exception as cause:  # noqa: BLE001 - missing, or a version that lacks what they need
        _do_without(monitor, f"Triton is missing or too old ({cause})")
        return None
    return Kernels(device)


def _do_without(monitor: Monitor, why: str) -> None:
    monitor.log(f"removing noise goes on without its kernels, slower: {why}")


def _next(parts: Iterator[npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    with without_tf32(), torch.inference_mode():
        return next(parts, None)


class _Card:
    """The slices of a run that are on a device, and the stages over them."""

    def __init__(self, device: str, run: Run, plan: CardPlan, add: Callable[..., None]) -> None:
        self._device, self._run, self._plan, self._add = device, run, plan, add
        self._uploads, self._pinned = Uploads(device), list[Tensor]()
        self._spectrum, self._taper = self._sent(run.spectrum), self._sent(run.taper)
        line = torch.from_numpy(run.line)
        self._spread = torch.einsum("i,j,k->ijk", line, line, line)[None, None].to(device)
        self._level_at = self._level_maker()
        self._references_at = lru_cache(maxsize=_KEPT_REFERENCES)(self._references)
        self._first = -1
        self._noisy = self._level = torch.empty(0)

    def slices(self, volume: npt.NDArray[Any], part: slice) -> Iterator[Tensor]:
        """Some slices of a volume in memory, in float32."""
        for first in range(part.start, part.stop, self._plan.slices):
            yield self._floats(volume[first : min(first + self._plan.slices, part.stop)])

    def fetch(self, part: Tensor) -> Callable[[], Tensor]:
        """Start copying a result to the host; what is returned is valid until the next but one."""
        if not part.is_cuda:
            return download(part, part)
        if len(self._pinned) == 2:
            self._pinned.append(self._pinned.pop(0))
        else:
            self._pinned.append(torch.empty(part.numel(), dtype=part.dtype, pin_memory=True))
        if self._pinned[-1].numel() < part.numel():
            self._pinned[-1] = torch.empty(part.numel(), dtype=part.dtype, pin_memory=True)
        return download(part, self._pinned[-1][: part.numel()].view(part.shape))

    def results(
        self,
        stage: Stage,
        part: slice,
        pilots: Iterator[Tensor],
        *,
        is_last: bool,
        finish: Finish | None,
    ) -> Iterator[Tensor]:
        """Some slices after a stage, from the slices that it reads."""
        numbers, firsts, tall = stage.layers_of(part), stage.firsts, stage.tall
        shape = self._run.noisy.shape[1:]
        held_from, ready_to = stage.reads(part).start, part.start
        pilot, behind = torch.empty(0, *shape, device=self._device), SIDE - 1
        # Weights of blocks that start a little before count for the slices that they reach.
        sums = torch.zeros(2, behind, *shape, device=self._device)
        at_once = max(1, self._plan.slices // stage.step_z)
        for start in range(0, len(numbers), at_once):
            self._run.monitor.check()
            batch = numbers[start : start + at_once]
            gone, held_from = firsts[batch[0]] - held_from, firsts[batch[0]]
            end = firsts[batch[-1]] + tall
            if is_last:
                self._drop(min(held_from, ready_to))
            if stage.kind == "grouped":
                parts = [pilot[gone:]]
                while held_from + sum(map(len, parts)) < end:
                    parts.append(next(pilots))
                pilot = torch.cat(parts)
            noisy, level = self._taken(held_from, end)
            sums = F.pad(
                sums[:, gone:], (0, 0, 0, 0, 0, end - held_from + behind - sums.shape[1] + gone)
            )
            total, weight = sums[0, behind:], sums[1, behind:]
            here = pilot[: end - held_from] if stage.kind == "grouped" else noisy
            self._compute(stage, batch, held_from, here, noisy, level, total, weight)
            is_end = start + at_once >= len(numbers)
            ready = part.stop if is_end else min(firsts[numbers[start + at_once]], part.stop)
            if ready > ready_to:
                at = slice(ready_to - held_from, ready - held_from)
                made = self._means(sums, at, *self._taken(ready_to, ready))
                if is_last and finish is not None:
                    made = finish(made, *self._taken(ready_to, ready))
                ready_to = ready
                yield made

    def _compute(
        self,
        stage: Stage,
        batch: Sequence[int],
        held_from: int,
        pilot: Tensor,
        noisy: Tensor,
        level: Tensor,
        total: Tensor,
        weight: Tensor,
    ) -> None:
        """Add what some layers make to the sums."""
        layers = tuple(stage.layer(number) for number in batch)
        firsts = tuple(stage.firsts[number] - held_from for number in batch)
        phases = tuple((number % 4, layer.z) for number, layer in zip(batch, layers, strict=True))
        layer, at = layers[0], self._references_at(stage.kind, layers[0].step, firsts, phases)
        inputs = (noisy, pilot, level, self._spectrum, self._taper, total, weight)
        self._add(stage.kind, layer, at, *inputs)

    def _means(self, sums: Tensor, at: slice, noisy: Tensor, level: Tensor) -> Tensor:
        """The mean of the blocks over each voxel; the input where there is no noise."""
        behind = SIDE - 1
        rows, columns = noisy.shape[1:]
        weight = sums[1, at.start : at.stop + behind]
        over = F.conv3d(weight[None, None], self._spread, padding=(0, behind, behind))
        over = over[0, 0, :, :rows, :columns]
        total = sums[0, at.start + behind : at.stop + behind]
        return torch.where(over * level > 0, total / over, noisy)

    def _references(
        self,
        kind: native.Stage,
        step: int,
        firsts: Sequence[int],
        phases: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Of some layers, [n, 4]: the slice in which the window begins; slice, row and column.

        firsts: where the layers' slabs begin. phases: number of each, which repeats after four, and
        its slice in its slab. Most chunks of a volume have the same.
        """
        found = []
        shape = self._run.noisy.shape
        for first, (phase, z) in zip(firsts, phases, strict=True):
            layer = Layer(phase, z, (1, 1, 1), step, 1, 0, 1.0)
            rows = range(layer.rows(shape[1]))
            within = references(layer, rows, shape, is_grouped=kind == "grouped")
            place = np.broadcast_to(np.array([first, first + z]), within.shape)
            found.append(np.concatenate([place, within], axis=1).astype(np.int32))
        return self._sent(np.concatenate(found))

    def _taken(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Slices of the input and of its level, which come up when they are first wanted."""
        if self._first < 0:
            self._first = first
            self._noisy = self._level = torch.empty(
                0, *self._run.noisy.shape[1:], device=self._device
            )
        noisy, level = [self._noisy], [self._level]
        end = self._first + len(self._noisy)
        while end < last:
            stop = min(end + self._plan.slices, len(self._run.noisy))
            noisy.append(self._floats(self._run.noisy[end:stop]))
            level.append(self._level_at(end, stop))
            end = stop
        if len(noisy) > 1:
            self._noisy, self._level = torch.cat(noisy), torch.cat(level)
        here = slice(first - self._first, last - self._first)
        return self._noisy[here], self._level[here]

    def _drop(self, before: int) -> None:
        """Let slices go that no stage reads again."""
        if before > self._first >= 0:
            self._noisy = self._noisy[before - self._first :]
            self._level = self._level[before - self._first :]
            self._first = before

    def _level_maker(self) -> Callable[[int, int], Tensor]:
        """What gives the level of some slices: a map in cells is spread on the device."""
        level = self._run.level
        if not isinstance(level, LevelMap):
            louder = float(self._run.louder)
            return lambda first, last: self._floats(level[first:last]) * louder
        sigma = self._sent(level.noise.sigma)
        places = [
            (self._sent(low), self._sent(np.minimum(low + 1, count - 1)), self._sent(share))
            for (low, share), count in zip(
                level.noise.places(level.shape), level.noise.sigma.shape, strict=True
            )
        ]

        def spread(first: int, last: int) -> Tensor:
            values = sigma
            for axis, tables in enumerate(places):
                low, high, share = (t[first:last] for t in tables) if axis == 0 else tables
                share = share.view([-1 if other == axis else 1 for other in range(3)])
                below = values.index_select(axis, low)
                rise = values.index_select(axis, high).sub_(below)
                values = torch.addcmul(below, share, rise)
            return values

        return spread

    def _floats(self, values: npt.NDArray[Any]) -> Tensor:
        is_sent = values.dtype.isnative and values.dtype.type in _SENT
        return self._sent(values if is_sent else values.astype(np.float32)).float()

    def _sent(self, values: npt.NDArray[Any]) -> Tensor:
        return self._uploads.send(values)
