"""Shared parts of the compression modes: the task, its size limit and the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.ordered import ordered_map
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.blocks import Grid
from MedEnhanceLib.unicompress.codec_models import CodecModel, DecodeContext
from MedEnhanceLib.unicompress.codecs.predictor.learned import Predictor
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import Chunk, bytes_of
from MedEnhanceLib.unicompress.verify import Tally

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

#: Bytes of a chunk's row in the deflated head, and the most that deflating the head may add.
ROW_BYTES, SLACK = 20, 32


@dataclass(frozen=True)
class CodingTask:
    """A volume to code, and the means.

    Attributes:
        voxels: [T,] K, J, I.
        context: what a reader has.
        predictors: learned ones that may suit the volume.
    """

    voxels: Voxels
    context: DecodeContext
    speed: Speed
    threads: int
    monitor: Monitor
    predictors: Sequence[Predictor] = ()

    def part(self, start: float, stop: float) -> Self:
        """Return the task with the part of the progress from `start` to `stop`, 0 to 1."""
        return self.at(self.monitor.part(start, stop))

    def at(self, monitor: Monitor) -> Self:
        """Return the task with another monitor."""
        return replace(self, monitor=monitor)

    def map(
        self, function: Callable[[Item], Outcome], items: Iterable[Item], most: int = 1 << 10
    ) -> Iterator[Outcome]:
        """Yield function(item) in the order of the items, in threads.

        Args:
            function: called in threads.
            items: taken in the calling thread.
            most: threads at most, where each takes much memory.
        """
        threads = min(self.threads, most)
        return ordered_map(function, items, threads=threads, monitor=self.monitor)


@dataclass(frozen=True)
class CodedBlocks:
    """All chunks of a file, and what a reader will make of them.

    Attributes:
        tally: of the voxels that the chunks decode to.
        models: that the chunks need.
        tuned: those of them that no release has.
        exact: whether every machine decodes the same.
    """

    grid: Grid
    chunks: list[Chunk]
    tally: Tally
    models: tuple[CodecModel, ...] = ()
    tuned: tuple[CodecModel, ...] = ()
    exact: bool = True

    @classmethod
    def of(
        cls, task: CodingTask, grid: Grid, coded: Iterable[tuple[Chunk, Voxels]], **facts: Any
    ) -> CodedBlocks:
        """Collect chunks with what they decode to.

        Args:
            task: its voxels are compared with those decoded; its monitor gets the progress.
            grid: of the blocks.
            coded: one pair for each block, in the order of their numbers.
            facts: models, tuned and exact.
        """
        tally, chunks = Tally(task.voxels, grid), []
        for chunk, decoded in coded:
            tally.add(decoded)
            chunks.append(chunk)
            task.monitor.progress(len(chunks) / len(grid), "compressing the volume")
        return cls(grid, chunks, tally, **facts)

    @property
    def bytes(self) -> int:
        """Bytes of all chunks together, without models."""
        return bytes_of(self.chunks)

    def with_models(self, *, embed: bool = True) -> list[Chunk]:
        """List the chunks of the file.

        A tuned model is stored at both ends: without it all blocks would be lost. Of another one a
        release has a copy, so the file holds one at most.

        embed: also models that releases have.
        """
        last = self.models if embed else self.tuned
        first, last_chunks = ([model.chunk for model in each] for each in (self.tuned, last))
        return [*first, *self.chunks, *last_chunks]


@dataclass(frozen=True)
class Room:
    """Space that a ratio leaves in a file.

    Attributes:
        bytes: for chunks and their rows.
    """

    ratio: float
    bytes: int

    def for_chunks(self, count: int) -> int:
        """Compute the bytes left for the data of `count` chunks."""
        return self.bytes - ROW_BYTES * count - SLACK

    def out_of_reach(self) -> ConfigError:
        """Make the error for a ratio that not even the coarsest code reaches."""
        return ConfigError(
            f"ratio {self.ratio:g} cannot be reached for this volume",
            "Choose a smaller ratio; small volumes, and voxels that are not finite, limit it.",
        )
