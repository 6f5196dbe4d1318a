"""What a GPU would have to do for a slice: operations, bytes and FLOP, counted without one.

    python Testing/Benchmarks/cuda_counts.py --before COMMIT

writes results/cuda_counts, with the filter as an earlier commit has it beside the
present one. Every operation that is not a view counts as one launch, which reads its arguments and
writes its results once: kernels that are joined would need less. Everything runs on tensors without
memory (PyTorch's device "meta"), over a whole volume. What Triton's kernels load is measured by its
interpreter, so Triton has to be installed. What is copied between host and card is counted where it
is. The least time on a card follows from the speed of its memory, of computing, of launching and of
copying, whichever takes longest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _common import REPOSITORY, gate, write
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Row = dict[str, Any]
_SLICES, _SIDE, _BATCH = 300, 512, 32
#: NVIDIA H200: bytes a second of its memory, FLOP a second in single precision, seconds of a
#: launch, bytes a second from and to the host.
_MEMORY, _SINGLE, _LAUNCH, _LINK = 4.8e12, 67e12, 5e-6, 55e9
#: Goals: gigabytes a slice, launches a chunk of 32, seconds of the host's CPU for a volume.
_MOST_GB, _MOST_LAUNCHES, _MOST_HOST = 1.0, 100, 0.3
#: FLOP of a reference in the kernels: distances, three transforms, covariances, elimination, sum;
#: of the first stage two transforms.
_FLOP = {
    "grouped": 3 * 64 * 1232 + 3 * 2 * 32 * 64**2 + 2 * 2 * 32**2 * 64 + 4 * 32**3 + 2 * 32**2 * 64,
    "threshold": 2 * 2 * 64**2,
}
#: Rows and columns of a slice, and free bytes of a card: what is computed at once follows.
_FITS = (_SIDE, _SIDE, 140 << 30)
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


def filtered(modality: str, *, kernels: dict[str, Row] | None) -> Row:
    """The filter of a modality over a volume. kernels: what they load (kernels.py); None without.

    Kernels are counted and not run: one launch for each, and their bytes for each reference.
    """
    from MedEnhanceLib.core.geometry import Geometry
    from MedEnhanceLib.core.volume import Volume
    from MedEnhanceLib.hqg import denoise as steps
    from MedEnhanceLib.nets import grouped_card

    counting, copied = Counting(), []

    class Counted:
        def add(self, stage: str, layer: Any, at: torch.Tensor, *_: Any) -> None:
            assert kernels is not None
            name = f"{stage} {layer.keep} {layer.apart}"
            counting.launches += 1
            counting.bytes += len(at) * kernels[name]["bytes"]
            counting.flop += len(at) * _FLOP[stage]

    pinned = np.zeros(4 * _BATCH * _SIDE**2 * 4, np.uint8)  # as the real one, it is used again

    def sent(_: Any, host: np.ndarray) -> torch.Tensor:
        copied.append(host.nbytes)
        np.copyto(pinned[: host.nbytes].view(host.dtype).reshape(host.shape), host)
        dtype = torch.from_numpy(np.empty(0, host.dtype)).dtype
        return torch.empty(host.shape, dtype=dtype, device="meta")

    def fetched(_: Any, part: torch.Tensor) -> Any:
        size = part.numel() * part.element_size()
        copied.append(size)
        return lambda: torch.from_numpy(pinned[:size]).view(part.dtype).view(part.shape)

    voxels = np.zeros((_SLICES, _SIDE, _SIDE), np.int16)
    volume = Volume(voxels, Geometry((1.0, 1.0, 1.0)), modality=modality)
    rounding = steps.Rounding(voxels.dtype, 0.0)
    engine = grouped_card.CardEngine("meta", plan=grouped_card.CardPlan.suited(*_FITS))
    with (
        mock.patch.object(grouped_card.Uploads, "send", sent),
        mock.patch.object(grouped_card._Card, "fetch", fetched),
        mock.patch.object(grouped_card, "kernels_for", lambda *_: kernels and Counted()),
        mock.patch.object(steps._Finish, "check", lambda _: None),
    ):
        run = partial(steps.denoise, volume, _noise(modality), engine=engine, rounding=rounding)
        run(only=slice(0, 1))  # what a process does once
        began = time.process_time()
        run()
        host = time.process_time() - began
        counting.launches = counting.bytes = counting.flop = 0
        copied.clear()
        with counting:
            run()
    how = "with kernels" if kernels is not None else "without Triton"
    return {
        "what": f"{_FILTERS[modality]}, {how}",
        "launches": counting.launches / _SLICES,
        "bytes": counting.bytes / _SLICES,
        "flop": counting.flop / _SLICES,
        "copied": sum(copied) / _SLICES,
        "peak": counting.peak,
        "speed": _SINGLE,
        "host": host if kernels is not None else None,
    }


def _noise(modality: str) -> Any:
    from MedEnhanceLib.nets.noise import NoiseEstimate

    cells = (18, 32, 32)
    shape = (_SLICES, _SIDE, _SIDE)
    is_mr = modality == "MR"
    return NoiseEstimate(
        level=10.0, sigma=np.full(cells, 10, np.float32),
        spectrum=np.ones((4, 4, 4), np.float32), confidence=1.0, reason="", rician=is_mr,
        air=10.0 if is_mr else None, contrast=50.0, shape=shape,
        cell=tuple(side / count for side, count in zip(shape, cells, strict=True)),
    )  # fmt: skip


def kernels_measured() -> dict[str, Row]:
    """What the kernels load, by Triton's interpreter in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("kernels.py")), "--interpreted"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Row] = json.loads(done.stdout.splitlines()[-1])
    return found


def bytes_of_distilling(network: str) -> int:
    """The most bytes that are alive in a match and a step of teaching, by the preset cpu."""
    from MedEnhanceLib.nets.precision import without_tf32
    from MedEnhanceLib.spg.config import DistillConfig
    from MedEnhanceLib.spg.matching import PatientLoop, Raw

    config = replace(DistillConfig.preset("cpu"), method="matching")
    config = replace(config, loop=replace(config.loop, networks=(network,)))
    size, count = config.images.size, config.images_per_patient
    rng = np.random.default_rng(0)
    images = rng.uniform(0.4, 0.9, (count, size, size)).astype(np.float32)
    with without_tf32(), Counting() as counting:
        loop = PatientLoop(Raw(images, images, "MR"), config, "cpu")
        loop.step(0)
        loop.step(1)
    return counting.peak


def memory_rows() -> list[Row]:
    """What jobs/card_memory.py reckons with, and what was counted."""
    from MedEnhanceLib.jobs import card_memory
    from MedEnhanceLib.spg.config import DistillConfig

    found: list[Row] = []
    loop = replace(DistillConfig.preset("cpu"), method="matching").loop
    for network in ("srcnn", "edsr"):
        counted = bytes_of_distilling(network) / loop.batch / loop.patch**2
        what = f"distilling with {network}: bytes a pixel"
        found.append({"what": what, "counted": counted, "reckoned": card_memory.DISTILLING})
    return found


def rows_here(kernels: dict[str, Row]) -> list[Row]:
    """The rows of the present code."""
    return [filtered(m, kernels=k) for m in ("CT", "MR") for k in (kernels, None)]


def rows_of(at: str) -> list[Row]:
    """The filter's rows as an earlier commit has them."""
    path = "Testing/Benchmarks/results/cuda_counts.json"
    command = ["git", "-C", str(REPOSITORY), "show", f"{at}:{path}"]
    page = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return [
        row for row in page["rows"] if row.get("at") == "now" and row["what"] in _FILTERS.values()
    ]


def main() -> None:
    """Count, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", metavar="COMMIT", required=True)
    options = parser.parse_args()
    kernels = kernels_measured()
    before = [row | {"at": options.before} for row in rows_of(options.before)]
    now = [row | {"at": "now", "least_ms": _least(row)} for row in rows_here(kernels)]
    gates = []
    for row in now:
        what = row["what"]
        if "without Triton" in what:
            continue
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
        if row.get("host") is not None:
            host = round(row["host"], 2)
            name = f"{what}: CPU s of the host for {_SLICES} slices"
            gates.append(gate(name, host, f"≤ {_MOST_HOST}", host <= _MOST_HOST))
    rows, memory = [*before, *now], memory_rows()
    write("cuda_counts", gates=gates, rows=[*rows, {"kernels": kernels}, *memory], seeds=[0])


def _least(row: Row) -> dict[str, float]:
    """Milliseconds a slice by memory, by computing and by launching."""
    return {
        "memory": round(1e3 * row["bytes"] / _MEMORY, 2),
        "computing": round(1e3 * row["flop"] / row["speed"], 3),
        "launching": round(1e3 * row["launches"] * _LAUNCH, 2),
        "copying": round(1e3 * row["copied"] / _LINK, 2),
    }


if __name__ == "__main__":
    main()
