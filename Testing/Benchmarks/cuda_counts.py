"""What a GPU would have to do for a slice: operations, bytes and FLOP, counted without one.

    python Testing/Benchmarks/cuda_counts.py --before COMMIT

writes docs/benchmarks/cuda_counts, with an earlier commit beside the present one. Every operation
that is not a view counts as one launch, which reads its arguments and writes its results once:
kernels that are joined would need less. The network runs in float32 on tensors without memory
(PyTorch's device "meta"), over a whole volume; the filter on the CPU as on a GPU, each of its
stages for one band of a slab of full size, as its groups depend on values. What is copied between
host and card follows from the sizes of arrays. The least time on a card follows from the speed of
its memory, of computing, of launching and of copying, whichever takes longest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _common import REPOSITORY, gate, gate_table, table, write
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Row = dict[str, Any]
_SLICES, _SIDE, _BATCH = 300, 512, 32
#: NVIDIA H200: bytes a second of its memory, FLOP a second in half and in single precision (the
#: filter's), seconds of a launch, bytes a second from and to the host.
_MEMORY, _HALF, _SINGLE, _LAUNCH, _LINK = 4.8e12, 790e12, 67e12, 5e-6, 55e9
#: Goals: gigabytes a slice, launches a chunk of 32.
_MOST_GB, _MOST_LAUNCHES = 1.0, 100
_FILTERS = {"MR": "an MR's filter", "CT": "a CT's filter"}


class Counting(TorchDispatchMode):
    """Counts launches, bytes and FLOP, and the most bytes that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.bytes = self.flop = self.peak = 0
        self._alive: list[tuple[StorageWeakRef, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            read, made = _tensors((args, kwargs)), _tensors(result)
            self.launches += 1
            self.bytes += sum(t.numel() * t.element_size() for t in (*read, *made))
            if func is torch.ops.aten.matmul.default:  # counted as what it is made of elsewhere
                self.flop += 2 * result.numel() * args[0].shape[-1]
            elif (formula := flop_registry.get(func.overloadpacket)) is not None:
                self.flop += formula(*args, **(kwargs or {}), out_val=result)
            self._note(made)
        return result

    def _note(self, made: list[torch.Tensor]) -> None:
        known = {reference.cdata for reference, _ in self._alive}
        for tensor in made:
            storage = tensor.untyped_storage()
            reference = StorageWeakRef(storage)
            if reference.cdata not in known:
                self._alive.append((reference, storage.nbytes()))
        self._alive = [(kept, size) for kept, size in self._alive if not kept.expired()]
        self.peak = max(self.peak, sum(size for _, size in self._alive))


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def network(*, has_start: bool) -> Row:
    """All chunks of a volume. has_start: after the filter; else from its own shrinkage."""
    from speed import _network

    from MedEnhanceLib.hqg.stream import Stage, enhanced

    enhancer, condition = _network("meta")
    count = -(-_SLICES // _BATCH)

    def planes() -> Stage:
        def make(chunk: int) -> torch.Tensor:
            deep = min(_BATCH, _SLICES - chunk * _BATCH)
            return torch.empty(deep, _SIDE, _SIDE, device="meta")

        return Stage(make, count=count, size=_BATCH)

    # The device "meta" knows no autocast, which only switches off what is off here anyway.
    with (
        mock.patch.object(torch, "autocast", lambda *_, **__: nullcontext()),
        mock.patch.object(torch, "is_autocast_enabled", lambda *_: False),
        torch.no_grad(),
        Counting() as counting,
    ):
        start = planes() if has_start else None
        last = enhanced(enhancer, planes(), condition, depth=_SLICES, start=start)
        for chunk in range(count):
            last[chunk]
    return {
        "what": "network after the filter" if has_start else "network with its own start",
        "launches": counting.launches / _SLICES,
        "bytes": counting.bytes / _SLICES,
        "flop": counting.flop / _SLICES,
        "copied": 8 * _SIDE**2 + (4 * _SIDE**2 if has_start else 0),
        "peak": counting.peak,
        "speed": _HALF,
    }


def filtered(modality: str) -> Row:
    """All stages of the filter for a modality: each is counted for one band, in full size."""
    from MedEnhanceLib.nets import grouped

    rounds = grouped.CT_ROUNDS if modality == "CT" else grouped.MR_ROUNDS
    found: Row = dict.fromkeys(("launches", "bytes", "flop", "copied", "peak"), 0)
    shape = (_SLICES, _SIDE, _SIDE)
    alone = grouped.Round(step=grouped._THRESHOLD_STEP, keep=1, damp=grouped._THRESHOLD)
    first = grouped._Stage(shape, (1, 1, 1), "threshold", 1, alone)
    stages = [first, *(grouped._Stage(shape, grouped.WINDOW, "grouped", r.step, r) for r in rounds)]
    for stage in stages:
        number = 20
        layer = stage.layer(number)
        rows = layer.rows(_SIDE)
        most = _references_in_band()[stage.kind]
        at_once = max(1, most * layer.step // _SIDE)
        here = min(at_once, rows)
        middle = (rows - here) // 2  # away from the edges
        counting, copied = _band(stage, layer, range(middle, middle + here))
        bands = rows / here * len(stage.firsts) / _SLICES  # of a slice
        found["launches"] += counting.launches * bands
        found["bytes"] += counting.bytes * bands
        found["flop"] += counting.flop * bands
        found["copied"] += copied * bands
        found["peak"] = max(found["peak"], counting.peak)
    return {"what": _FILTERS[modality], **found, "speed": _SINGLE}


def _references_in_band() -> dict[str, int]:
    """Those of a card; before, there was one number for all devices."""
    from MedEnhanceLib.nets import grouped, grouped_torch

    engine = getattr(grouped_torch, "CardEngine", None)
    return grouped._REFERENCES_IN_BAND if engine is None else engine.references_in_band


def _band(stage: Any, layer: Any, rows: range) -> tuple[Counting, int]:
    """What a band needs, and the bytes that are copied to a card and back."""
    from MedEnhanceLib.nets import grouped_torch

    shape = (stage.tall, _SIDE, _SIDE)
    rng = np.random.default_rng(0)
    noisy = rng.normal(100, 10, shape).astype(np.float32)
    level = np.full_like(noisy, 10)
    ones, total = np.ones(64, np.float32), np.zeros_like(noisy)
    weight = np.zeros((stage.deep, *shape[1:]), np.float32)
    arrays = {"noisy": noisy, "pilot": noisy, "level": level, "spectrum": ones, "taper": ones}
    try:
        engine = grouped_torch.TorchEngine(as_gpu=True)
    except TypeError:  # of a commit that did the same on every device
        engine = grouped_torch.TorchEngine()
    with Counting() as counting:
        engine.run(stage.kind, layer, rows, **arrays, total=total, weight=weight)
    if hasattr(grouped_torch, "_lines"):
        at = grouped_torch._references(
            layer, rows, shape, level, is_grouped=stage.kind == "grouped"
        )
        lines = grouped_torch._lines(layer, at, _SIDE)
        images = [noisy] if stage.kind == "threshold" else [noisy, noisy]
        moved = [part[:, lines] for part in (*images, level[:1], total, weight)]
        return counting, at.nbytes + sum(part.nbytes for part in moved)
    both_ways = 2 * (total.nbytes + weight.nbytes)
    return counting, sum(part.nbytes for part in arrays.values()) + both_ways


def rows_here() -> list[Row]:
    """The rows of the commit that is imported."""
    return [filtered("CT"), filtered("MR"), network(has_start=True), network(has_start=False)]


def rows_of(at: str) -> list[Row]:
    """The rows of another commit, by this script in a process that imports that commit."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "before"
        git = ("git", "-C", str(REPOSITORY), "worktree")
        subprocess.run([*git, "add", "--detach", str(other), at], check=True, capture_output=True)
        try:
            paths = os.pathsep.join([str(other), str(Path(__file__).parent)])
            command = [sys.executable, __file__, "--rows"]
            environment = os.environ | {"PYTHONPATH": paths}
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment, cwd=other
            )
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True)
    found: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Count, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", metavar="COMMIT", required="--rows" not in sys.argv)
    parser.add_argument("--rows", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rows:
        print(json.dumps(rows_here()))
        return
    rows = [
        row | {"at": at, "least_ms": _least(row)}
        for at, found in ((options.before, rows_of(options.before)), ("now", rows_here()))
        for row in found
    ]
    now = {row["what"]: row for row in rows if row["at"] == "now"}
    gates = []
    for what, row in now.items():
        gigabytes, launches = round(row["bytes"] / 1e9, 2), round(row["launches"] * _BATCH)
        gates += [
            gate(f"{what}: GB a slice", gigabytes, f"≤ {_MOST_GB}", gigabytes <= _MOST_GB),
            gate(
                f"{what}: launches for {_BATCH} slices",
                launches,
                f"≤ {_MOST_LAUNCHES}",
                launches <= _MOST_LAUNCHES,
            ),
        ]
    write("cuda_counts", _page(rows, gates), gates=gates, rows=rows, seeds=[0])


def _least(row: Row) -> dict[str, float]:
    """Milliseconds a slice by memory, by computing and by launching."""
    return {
        "memory": round(1e3 * row["bytes"] / _MEMORY, 2),
        "computing": round(1e3 * row["flop"] / row["speed"], 3),
        "launching": round(1e3 * row["launches"] * _LAUNCH, 2),
        "copying": round(1e3 * row["copied"] / _LINK, 2),
    }


def _page(rows: list[Row], gates: list[Row]) -> str:
    cells = [
        (
            row["what"], row["at"], round(row["launches"], 1), f"{row['bytes'] / 1e9:.2f}",
            f"{row['flop'] / 1e9:.1f}", f"{row['copied'] / 1e6:.1f}", f"{row['peak'] / 1e9:.2f}",
            *row["least_ms"].values(), f"{_SLICES / 1e3 * max(row['least_ms'].values()):.1f}",
        )
        for row in sorted(rows, key=lambda row: [each["what"] for each in rows].index(row["what"]))
    ]  # fmt: skip
    header = (
        "what", "at", "launches", "GB", "GFLOP", "MB copied", "peak, GB",
        "memory, ms", "computing, ms", "launching, ms", "copying, ms",
        f"{_SLICES} slices, s at least",
    )  # fmt: skip
    return f"""# What a slice costs on a GPU, counted

Nothing here was measured on a device: operations were counted for a volume of 512×512×{_SLICES},
and the least time on an H200 follows from them: {_MEMORY / 1e12:g} TB/s, {_HALF / 1e12:g} TFLOP/s
in half and {_SINGLE / 1e12:g} in single precision, {_LAUNCH * 1e6:g} µs a launch,
{_LINK / 1e9:g} GB/s between host and card. FLOP are those of products and convolutions. Columns are
for a slice, but the peak and the last one. The filter is what the models that ship do by
default. The network after it runs on request (`--second-pass on`),
{_BATCH} slices at once; a network with its own start is of models that were
trained without the filter. All is counted in float32; half precision moves less. The filter's rows
before are what PyTorch's version of it would have needed on a card: enhancing used the CPU for it,
whatever the device.

{gate_table(gates)}
{table(header, cells)}"""


if __name__ == "__main__":
    main()
