"""The filter's Triton kernels without a GPU: do they agree with PyTorch, what do they load, do they
compile?

    python Testing/Benchmarks/kernels.py --interpreted    values and bytes, by Triton's interpreter
    python Testing/Benchmarks/kernels.py --compiled 90    for a compute capability, by ptxas

Each prints one JSON object. Triton is no dependency: on Linux it comes with PyTorch's builds for
CUDA, else `pip install triton`. The interpreter takes seconds for a group, so few are computed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
#: Stage, blocks in a group, least distance: of the rounds for CT and MR, and two other sizes.
_CASES = (
    ("threshold", 1, 0), ("grouped", 32, 0), ("grouped", 32, 4), ("grouped", 7, 0),
    ("grouped", 60, 0),
)  # fmt: skip
_WINDOW, _SLAB = (7, 11, 16), (10, 40, 44)
#: Bytes that a card's memory delivers together.
_SECTOR = 32


class Traffic:
    """What programs load and add while they are interpreted: each address counts once for each.

    A program's loads of the same address come from the cache of its multiprocessor; what is added
    to the sums is read and written each time.
    """

    def __init__(self) -> None:
        self.programs = self.asked = self.distinct = self.sectors = self.added = 0
        self._known: list[np.ndarray] = []

    def watch(self) -> None:
        """Count from now on."""
        from triton.runtime.interpreter import InterpreterBuilder

        load, add = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_atomic_rmw
        begin = InterpreterBuilder.set_grid_idx

        def begun(builder: Any, *where: int) -> None:
            self.end()
            self.programs += 1
            begin(builder, *where)

        def loaded(builder: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
            self._known.append(np.asarray(pointers.data)[np.asarray(mask.data, bool)].ravel())
            return load(builder, pointers, mask, *rest)

        def added(
            builder: Any, operation: Any, pointer: Any, value: Any, mask: Any, *r: Any
        ) -> Any:
            self.added += 8 * int(np.count_nonzero(mask.data))
            return add(builder, operation, pointer, value, mask, *r)

        InterpreterBuilder.set_grid_idx = begun
        InterpreterBuilder.create_masked_load = loaded
        InterpreterBuilder.create_atomic_rmw = added

    def end(self) -> None:
        """The end of a program."""
        if self._known:
            every = np.concatenate(self._known)
            self.asked += 4 * every.size
            self.distinct += 4 * np.unique(every).size
            self.sectors += _SECTOR * np.unique(every // _SECTOR).size
            self._known = []

    def row(self, references: int) -> Row:
        """Bytes for each reference, since the last call."""
        self.end()
        found = {
            "bytes": (self.distinct + self.added) / references,
            "bytes_in_sectors": (self.sectors + self.added) / references,
            "bytes_asked_for": (self.asked + self.added) / references,
        }
        self.programs = self.asked = self.distinct = self.sectors = self.added = 0
        return found


def interpreted() -> dict[str, Row]:
    """For each case: the largest difference from PyTorch, as a share, and bytes for a reference."""
    import torch

    from MedEnhanceLib.native import Layer
    from MedEnhanceLib.nets.grouped_kernels import Kernels
    from MedEnhanceLib.nets.grouped_torch import Groups

    rng, traffic, found = np.random.default_rng(0), Traffic(), {}
    traffic.watch()
    rings = np.hypot(*np.meshgrid(np.arange(44) - 20, np.arange(40) - 18))
    clean = np.broadcast_to(0.5 + 0.4 * np.sign(np.sin(rings / 3)), _SLAB)
    noisy, pilot = (
        torch.from_numpy((clean + rng.normal(0, sigma, _SLAB)).astype(np.float32))
        for sigma in (0.1, 0.03)
    )
    level, taper = torch.full(_SLAB, 0.1), torch.rand(64) + 0.5
    level[:, :2, :2] = 0
    spectrum = torch.linspace(0.2, 1.8, 64)
    apart_ones = [(8, 9), (20, 20), (36, 40)]
    grid = [(y, x) for y in range(8, 16, 2) for x in range(4, 36, 2)]
    for stage, keep, apart in _CASES:
        places = apart_ones if stage == "grouped" else grid
        layer = Layer(0, 3, _WINDOW, 4, keep, apart, 2.7 if stage == "threshold" else 1.3)
        some = [(0, 0), *places] if stage == "grouped" else places
        some = some * (1 if stage == "grouped" else 21)
        at = torch.tensor([(0, 3, y, x) for y, x in [(0, 0), *places]], dtype=torch.int32)
        inputs, wanted, made = (noisy, pilot, level, spectrum, taper), _zeros(), _zeros()
        Groups(layer, False, *inputs, *wanted).add(stage, at)
        Kernels("cpu").add(stage, layer, at, *inputs, *made)
        far = [
            float((a - b).abs().max() / a.abs().max()) for a, b in zip(wanted, made, strict=True)
        ]
        # The first of the groups has no noise, and ends at once.
        count = len(places) + (stage == "threshold")
        found[f"{stage} {keep} {apart}"] = {"far": max(far), **traffic.row(count)}
    return found


def _zeros() -> tuple[Any, Any]:
    import torch

    return torch.zeros(_SLAB), torch.zeros(_SLAB)


def compiled(capability: int) -> dict[str, Row]:
    """For each kernel of the rounds that ship: bytes of code, registers, and what did not fit."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from MedEnhanceLib.nets import grouped_kernels

    found = {}
    for name in ("threshold", "grouped"):
        kernel, constants, options = grouped_kernels.variant(name, _WINDOW, 32, 4)
        types = {each: _type_of(each) for each in kernel.arg_names}
        source = ASTSource(kernel, types | dict.fromkeys(constants, "constexpr"), constants)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        found[name] = {"code": len(made.asm["cubin"]), **_resources(made.asm["cubin"])}
    return found


def _type_of(argument: str) -> str:
    if argument in ("ny", "nx", "count"):
        return "i32"
    return {"damp": "fp32", "references": "*i32"}.get(argument, "*fp32")


def _resources(code: bytes) -> dict[str, int]:
    """Registers of a thread, and bytes of its stack: what did not fit into registers."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(code)
        command = [str(tool), "-res-usage", str(file)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = dict(
        word.split(":") for word in text.split() if word.count(":") == 1 and word[-1] != ":"
    )
    return {"registers": int(words["REG"]), "stack": int(words["STACK"])}


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--interpreted", action="store_true")
    what.add_argument("--compiled", type=int, metavar="CAPABILITY")
    options = parser.parse_args()
    if options.interpreted:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
    print(json.dumps(interpreted() if options.interpreted else compiled(options.compiled)))


if __name__ == "__main__":
    sys.exit(main())
