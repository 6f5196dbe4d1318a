"""Evaluates a network over the slices of a volume chunk by chunk, each stage once for each slice.

Where slices exchange features, a chunk of a stage needs the chunks beside it of the stage before.
Stages are computed when they are asked for and forgotten when they are passed. So there are no
slabs with borders: nothing is computed twice, where slabs of D slices with a halo would make
(D + 2 · reach) / D of the work; no result depends on where a slab began; and memory holds a few
chunks, however many slices there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from MedEnhanceLib.nets.shift import exchange_with


class Stage:
    """A stage's features by chunk, [n, …] each, n the slices at once.

    make: computes the chunk of that number. reads: the stages that it asks for the same chunk, and
    through `beside` for the ones beside it. behind: slices before a chunk that it asks for, of
    each of them. count, size: of chunks, and the slices of each but the last; as in what it reads.
    check: a safe point before each chunk is computed, as in what it reads: one chunk of the last
    stage can take so many of the others that who cancels would wait for seconds.
    Chunks are asked for in ascending order, by `make` as well; the first may be any. One is kept
    until every stage that reads it has gone on. A stage knows its readers by number only: a
    reference back would be a cycle, and features would stay in memory until the garbage collector
    comes by.
    """

    def __init__(
        self,
        make: Callable[[int], Tensor],
        *reads: Stage,
        behind: int = 0,
        count: int = 0,
        size: int = 0,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._check: Callable[[], None] | None = check or (reads[0]._check if reads else None)
        self.count: int = count or reads[0].count
        self.size: int = size or reads[0].size
        self._behind = self._chunks_of(behind)
        self._make = make
        self._made: dict[int, Tensor] = {}
        self._passed: list[int] = []
        self._reads = [(stage, stage._new_reader()) for stage in reads]

    def __getitem__(self, chunk: int) -> Tensor:
        if chunk in self._made:
            return self._made[chunk]
        if self._check:
            self._check()
        features = self._make(chunk)
        if self._passed:
            self._made[chunk] = features
        for stage, reader in self._reads:
            stage._was_read(reader, chunk - self._behind)
        return features

    def _new_reader(self) -> int:
        self._passed.append(-1)
        return len(self._passed) - 1

    def _was_read(self, by: int, chunk: int) -> None:
        """What lies before `chunk` goes once all have read it; that one is beside the next."""
        self._passed[by] = chunk
        for made in [made for made in self._made if made < min(self._passed)]:
            del self._made[made]

    def beside(self, chunk: int) -> tuple[Tensor, Tensor]:
        """The slices before and after a chunk, [1, …]; at the volume's ends the chunk's own."""
        before = self[chunk - 1][-1:] if chunk > 0 else None
        here = self[chunk]
        before = here[:1] if before is None else before
        after = self[chunk + 1][:1] if chunk + 1 < self.count else here[-1:]
        return before, after

    def before(self, chunk: int, count: int) -> Tensor:
        """Up to `count` slices before a chunk, [≤ count, …]: fewer where the volume begins."""
        parts = self.parts_before(chunk, count)
        return torch.cat(parts) if parts else self[chunk][:0]

    def parts_before(self, chunk: int, count: int) -> list[Tensor]:
        """As `before`, by chunks: nothing is copied."""
        first = max(0, chunk - self._chunks_of(count))
        parts = [self[number] for number in range(first, chunk)]
        if parts:
            parts[0] = parts[0][max(0, len(parts) * self.size - count) :]
        return parts

    def after(self, chunk: int, count: int) -> Tensor:
        """Up to `count` slices after a chunk, as `before`."""
        last = min(self.count, chunk + 1 + self._chunks_of(count))
        parts = [self[number] for number in range(chunk + 1, last)]
        return torch.cat(parts)[:count] if parts else self[chunk][:0]

    def _chunks_of(self, slices: int) -> int:
        return -(-slices // self.size)

    def exchanged(self, chunk: int) -> Tensor:
        """[n, C, H, W], a part of the features from the neighbouring slices (`exchange`)."""
        before, after = self.beside(chunk)
        return exchange_with(self[chunk], before, after)


class Uploads:
    """Brings slices to a device; to a CUDA device while it still computes on earlier ones.

    Pinned memory and a stream of its own let the copy run beside the kernels.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device) if device.startswith("cuda") else None  # type: ignore[no-untyped-call]

    def send(self, host: Tensor) -> Tensor:
        """The same values on the device; what is computed next waits for them."""
        if self._stream is None:
            return host.to(self._device)
        with torch.cuda.stream(self._stream):
            here = host.pin_memory().to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._stream)
        here.record_stream(computing)
        return here


def download(result: Tensor) -> Callable[[], Tensor]:
    """Start to bring a result to the CPU; calling what is returned waits for it, in float32."""
    if not result.is_cuda:
        return result.float().cpu
    host = torch.empty(result.shape, dtype=torch.float32, pin_memory=True)
    host.copy_(result, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def wait() -> Tensor:
        arrived.synchronize()
        return host

    return wait
