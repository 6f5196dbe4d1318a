"""How near the stages of enhancing come to what the processor can do.

The floor of a stage is the time of its arithmetic, counted, at the rate of a large product of
matrices on one thread: in single precision for the filter, in the precision of the networks for
these. The rate of copying is stated beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from _common import QUICK, Row

from MedEnhanceLib.filters.layers import Layer, LayerArrays, StageKind
from MedEnhanceLib.filters.native_engine import NativeEngine
from MedEnhanceLib.filters.torch_engine import references
from MedEnhanceLib.learning.native_unet import NativeUNet
from MedEnhanceLib.native import CELLS

_SIDE = 256 if QUICK else 2048
_TRIES = 3 if QUICK else 20


class Stages:
    """CPU time and counted operations of each stage, while it is the context."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.operations: dict[str, float] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count all calls into the compiled library; each runs in one thread."""
        run, network, change = NativeEngine.run, NativeEngine.run_network, NativeUNet.change
        stages = self

        def watched_run(engine: Any, kind: Any, layer: Layer, rows: range, arrays: Any) -> None:
            count = _groups(layer, rows, arrays, is_grouped=kind == "grouped")
            name = "first stage" if kind == "threshold" else "groups of blocks"
            work = _of_a_block() if kind == "threshold" else _of_a_group(layer)
            stages.add(name, count * work, lambda: run(engine, kind, layer, rows, arrays))

        def watched_network(
            engine: Any, weights: Any, top: float, layer: Any, rows: Any, a: Any
        ) -> None:
            count, keep = _groups(layer, rows, a, is_grouped=True), layer.round.keep
            of_groups = (3 * CELLS + 3) * weights.width  # once for all blocks of a group
            of_blocks = len(weights.values) - of_groups
            work = _of_matching(layer) + 2.0 * of_groups
            work += keep * (2.0 * of_blocks + 4 * _of_a_block())
            stages.add(
                "set network", count * work, lambda: network(engine, weights, top, layer, rows, a)
            )

        def watched_change(unet: Any, images: Any) -> Any:
            work = 2.0 * multiplications(unet) * images[0].size
            return stages.add("view network", work, lambda: change(unet, images))

        NativeEngine.run, NativeEngine.run_network = watched_run, watched_network  # type: ignore[method-assign, assignment]
        NativeUNet.change = watched_change  # type: ignore[method-assign]
        try:
            yield
        finally:
            NativeEngine.run, NativeEngine.run_network = run, network  # type: ignore[method-assign]
            NativeUNet.change = change  # type: ignore[method-assign]

    def add(self, name: str, operations: float, work: Callable[[], Any]) -> Any:
        """Do and count work of a stage."""
        begun = time.thread_time()
        result = work()
        spent = time.thread_time() - begun
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self.operations[name] = self.operations.get(name, 0.0) + operations
        return result

    def rows(self, model: str, total_s: float, voxels: int) -> list[Row]:
        """Return a row for each stage, and one for the rest.

        Args:
            model: that enhances.
            total_s: CPU time of everything.
            voxels: of the volume.
        """
        rates = {"single": rate_single(), "network": rate_of_networks()}
        rows: list[Row] = []
        floors = 0.0
        for name, seconds in self.seconds.items():
            work = self.operations[name] / 1e9
            floor = work / rates["network" if "network" in name else "single"]
            floors += floor
            row = {
                "gigaflop": round(work, 1),
                "cpu_s": round(seconds, 3),
                "floor_s": round(floor, 4),
            }
            row["cpu_s_per_mvoxel"] = round(seconds / voxels * 1e6, 3)
            rows.append({"model": model, "stage": name, **row})
        whole = {
            "cpu_s": round(total_s, 2), "floor_s": round(floors, 4),
            "rest_s": round(total_s - sum(self.seconds.values()), 2),
            "cpu_s_per_mvoxel": round(total_s / voxels * 1e6, 3),
            "single_gigaflop_a_s": round(rates["single"], 1),
            "network_gigaflop_a_s": round(rates["network"], 1),
            "copy_gib_a_s": round(copy_rate(), 1),
        }  # fmt: skip
        return [*rows, {"model": model, "stage": "all", **whole}]


def rate_single() -> float:
    """Measure 10⁹ operations a second of a product of matrices in single precision, one thread."""
    from MedEnhanceLib.runtime.machine import blas_on_one_thread

    a = np.ones((_SIDE, _SIDE), np.float32)
    out = np.empty_like(a)
    with blas_on_one_thread:
        return 2 * _SIDE**3 / _least(lambda: np.matmul(a, a, out=out)) / 1e9


def rate_of_networks() -> float:
    """Measure the same in the precision of the networks on this processor."""
    from MedEnhanceLib.learning.precision import cpu_has_bfloat16

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a = torch.ones((_SIDE, _SIDE), dtype=torch.bfloat16 if cpu_has_bfloat16() else torch.float32)
    out = torch.empty_like(a)
    rate = 2 * _SIDE**3 / _least(lambda: torch.matmul(a, a, out=out)) / 1e9
    torch.set_num_threads(threads)
    return rate


def copy_rate() -> float:
    """Measure GiB a second of copying, each byte counted once; one thread."""
    values = np.ones((8 if QUICK else 256) << 18, np.float32)
    out = np.empty_like(values)
    return values.nbytes / _least(lambda: np.copyto(out, values)) / 2**30


def _least(work: Callable[[], Any]) -> float:
    times = []
    for _try in range(_TRIES):
        begun = time.thread_time()
        work()
        times.append(time.thread_time() - begun)
    return max(min(times), 1e-9)


def _groups(layer: Layer, rows: range, arrays: LayerArrays, *, is_grouped: bool) -> int:
    """Count the references of some rows that have noise."""
    kind: StageKind = "grouped" if is_grouped else "threshold"
    return len(references(layer, kind, torch.from_numpy(arrays.level[layer.z + 1]), rows))


def _of_a_block() -> float:
    """Count the operations of a cosine transform: on each axis 16 lines of 4 voxels."""
    return 3 * 16 * 14.0


def _of_matching(layer: Layer) -> float:
    """Count those of the differences, squares and sums of all candidates of a reference."""
    return 3.0 * CELLS * float(np.prod(layer.window))


def _of_a_group(layer: Layer) -> float:
    """Count those of a group: its search, transforms, products, system and estimate."""
    n = float(layer.round.keep)
    products = (
        CELLS * n * (n + 1) + 2 * CELLS * n * n
    )  # of the pilot with itself, and with the noisy
    system = n**3 / 3 + 2 * n**3  # as many right sides as blocks
    return _of_matching(layer) + 3 * n * _of_a_block() + products + system + 2 * CELLS * n * n


def multiplications(unet: NativeUNet) -> float:
    """Count the multiplications of a U-Net for each pixel of its input."""
    widths, size, total = (
        unet.widths,
        1.0,
        9.0 * unet.channels * unet.widths[0] + 9.0 * unet.widths[0],
    )
    for level, width in enumerate(widths):
        ups = 0 if level == len(widths) - 1 else 1
        total += size * (unet.depth + ups) * 2 * 9 * width**2
        if ups:  # to the next level and back: four taps each, on a quarter of the pixels and on all
            total += size * width * widths[level + 1] * 2
        size /= 4
    return total
