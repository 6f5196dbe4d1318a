"""Compiled parts in portable C, found and checked here; PyTorch denoises without them.

One shared library lies in this folder, built by `build.py` from the C files beside it. It holds
each function once for every vector width of the processor family, and the widest that this
processor has is used. All widths give the same bits. The C functions trust their pointers, so
shapes and types of arrays are checked before a call, those of the denoising filter here.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats, Ints
from MedEnhanceLib.errors import DependencyError, MedEnhanceError
from MedEnhanceLib.runtime.progress import Monitor

#: Statuses of its functions, as in native.h; 0 is done.
NO_MEMORY, BAD_STREAM = 2, 3
#: Vector widths by their bit in `native_widths`, narrowest first.
WIDTHS = ("plain", "avx2", "avx512")
#: What is lost without the library, for messages; the ratio of CPU time is measured.
_SLOWER = (
    "denoising takes about ten times as long, lossless files are larger, and files that were "
    "written with the library cannot be read"
)
_HERE = Path(__file__).resolve().parent
_BUILD = "python -m MedEnhanceLib.native.build"
_COMPILER = "python -m pip install ziglang"
_LABELS = {"plain": "no vector extension", "avx2": "AVX2", "avx512": "AVX-512"}

Width = Literal["plain", "avx2", "avx512"]
Stage = Literal["grouped", "threshold"]

#: Largest search window along slices, rows and columns; coefficients and side of a block.
MOST_WINDOW, CELLS, SIDE = (7, 11, 16), 64, 4
#: Weight of each place along a side of a block (Kaiser window), [4], and of its places, [64].
TAPER_LINE: Floats = np.kaiser(SIDE, 2.0).astype(np.float32)
TAPER: Floats = np.einsum("i,j,k->ijk", *(3 * [TAPER_LINE])).reshape(-1).astype(np.float32)


class _Task(ctypes.Structure):
    """Structure `layer_task` of grouped.c."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("bytes", "ny", "nx", "z", "window_z", "window_y", "window_x", "step")
        ),
        *((name, ctypes.c_int64) for name in ("layer", "row_from", "row_to", "keep", "apart")),
        ("damp", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("taper", "pilot", "level")),
        *((name, ctypes.c_void_p) for name in ("noisy", "spectrum", "total", "weight")),
        *((name, ctypes.c_void_p) for name in ("index", "distance", "sigma")),
        *((name, ctypes.c_int64) for name in ("room", "count")),
    )


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of similar blocks of a layer, in the order of their references.

    index: [N, keep], place in the flat slab of each block's first voxel: the reference's, then
        nearest first. A group with fewer candidates is filled up with its reference.
    distance: [N, keep], squared differences of the pilot from the reference, summed over a block.
    level: [N], σ of the noise at the reference.
    """

    index: Ints
    distance: Floats
    level: Floats


@dataclass(frozen=True, eq=False)
class LayerArrays:
    """Arrays that a layer is computed from, and added to: float32, or tensors on a device.

    noisy: the slab [window[0] + 3, ny, nx].
    pilot: the better estimate, like the slab; in the first stage it is not read.
    level: σ of the noise, like the slab, ≥ 0.
    spectrum: [64], > 0, variance of the noise in each frequency, in units of level².
    total: like the slab, sums of weighed blocks.
    weight: [window[0], ny, nx], weights of blocks by the place in which they start.
    """

    noisy: Any
    pilot: Any
    level: Any
    spectrum: Any
    total: Any
    weight: Any


@dataclass(frozen=True, kw_only=True)
class Round:
    """Round over all groups of blocks.

    step: voxels between references, 1 to 4; the cost falls with its cube.
    keep: blocks in a group, the reference included, 1 to 64.
    damp: factor on the variance of the noise, above 1 smooths more; for the stage `threshold` the
        threshold, in σ.
    apart: least distance in voxels, along one axis, of other blocks from the reference; for noise
        that neighboring voxels share.
    """

    step: int
    keep: int = 32
    damp: float = 1.0
    apart: int = 0


@dataclass(frozen=True)
class Layer:
    """Reference blocks that start in one slice, and where their groups are searched.

    The slab of a layer is what its candidates cover: window[0] + 3 slices.

    number: of the layer in the volume; every second one is shifted by half a step.
    z: slice of the slab in which the references start.
    window: starting places of candidates along slices, rows and columns.
    """

    number: int
    z: int
    window: tuple[int, int, int]
    round: Round

    def rows(self, ny: int) -> int:
        """Count the rows of references in slices of ny rows."""
        return len(places(ny, self.round.step, is_shifted=bool(self.number & 1)))


def places(side: int, step: int, *, is_shifted: bool) -> list[int]:
    """List where references start along a side of that length; the last place is one of them."""
    last, shift = side - SIDE, step // 2 if is_shifted else 0
    inner = [0, *(at for at in range(step - shift, last, step) if at > 0)]
    return inner if last == 0 else [*inner, last]


class Library:
    """The loaded library, at one vector width."""

    def __init__(self, path: Path, width: Width | None = None) -> None:
        """Load it; MedEnhanceError if it is damaged, for another system or of other sources."""
        from MedEnhanceLib.native import build

        try:  # to load half a library would end the process
            expected = path.with_suffix(".sha256").read_text(encoding="ascii").strip()
            if build.digest(path) != expected:
                raise _unusable(f"{path.name} is damaged or older than its sources")
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(f"{path.name} cannot be verified ({error})") from error
        try:
            self._library = ctypes.CDLL(str(path.resolve()))
            self._library.native_widths.restype = ctypes.c_int32
        except (OSError, AttributeError) as error:
            raise _unusable(f"{path.name} cannot be loaded ({error})") from error
        self.path = path
        bits = int(self._library.native_widths())
        self.widths = tuple(name for bit, name in enumerate(WIDTHS) if bits >> bit & 1)
        self.width = width or self.widths[-1]
        if self.width not in self.widths:
            raise _unusable(f"{path.name} has no {self.width} for this processor")

    def run(self, stage: Stage, layer: Layer, rows: range, arrays: LayerArrays) -> None:
        """Compute successive rows of references of a layer, and add to its sums, also in threads.

        Raises ValueError where an argument is out of range, or does not fit the others; MemoryError
        without memory for the C function's own arrays.
        """
        self._call(stage, layer, rows, vars(arrays) | {"taper": TAPER})

    def match(self, layer: Layer, rows: range, *, pilot: Floats, level: Floats) -> Groups:
        """Find the groups of successive rows of references of a layer; none without noise.

        pilot: the slab [window[0] + 3, ny, nx], of fewer than 2³¹ voxels. level: σ of the noise,
        like the slab, ≥ 0. The layer's damp does not count. Raises as `run`.
        """
        places_along = partial(places, pilot.shape[2], layer.round.step)
        room = len(rows) * max(len(places_along(is_shifted=odd)) for odd in (False, True))
        found = Groups(
            np.empty((room, layer.round.keep), np.int32),
            np.empty((room, layer.round.keep), np.float32),
            np.empty(room, np.float32),
        )
        into = {"index": found.index, "distance": found.distance, "sigma": found.level}
        count = self._call("match", layer, rows, {"pilot": pilot, "level": level}, into)
        return Groups(found.index[:count], found.distance[:count], found.level[:count])

    def _call(
        self,
        name: str,
        layer: Layer,
        rows: range,
        arrays: Mapping[str, Floats],
        into: Mapping[str, Array] | None = None,
    ) -> int:
        """Call a function of grouped.c with checked arrays; returns the number of groups."""
        _, ny, nx = next(iter(arrays.values())).shape
        slab = (layer.window[0] + SIDE - 1, ny, nx)
        others = {"taper": (CELLS,), "spectrum": (CELLS,), "weight": (layer.window[0], ny, nx)}
        for each, values in arrays.items():
            _check(each, values, others.get(each, slab))
        task = _Task(
            ctypes.sizeof(_Task), ny, nx, layer.z, *layer.window, layer.round.step, layer.number,
            rows.start, rows.stop, layer.round.keep, layer.round.apart, layer.round.damp,
            room=len(into["sigma"]) if into else 0,
            **{each: values.ctypes.data for each, values in {**arrays, **(into or {})}.items()},
        )  # fmt: skip
        status = self.call(name, task)
        if status == NO_MEMORY:
            raise MemoryError("no memory for the compiled denoising filter")
        if status:
            raise ValueError(f"the compiled {name} refuses its arguments")
        return int(task.count)

    def call(self, name: str, task: ctypes.Structure) -> int:
        """Call a function at this width, unchecked; returns its status, 0 if done."""
        function = getattr(self._library, f"native_{name}_{self.width}")
        function.restype, function.argtypes = ctypes.c_int32, (ctypes.c_void_p,)
        return int(function(ctypes.byref(task)))


def _check(name: str, values: Floats, shape: tuple[int, ...]) -> None:
    """Raise ValueError for an array that C may not read, or write where it is a sum."""
    if values.dtype != np.float32 or values.shape != shape:
        raise ValueError(f"{name} is {values.dtype} {values.shape}, and float32 {shape} is needed")
    flags, writes = values.flags, name in ("total", "weight")
    if not (flags.c_contiguous and flags.aligned and (flags.writeable or not writes)):
        raise ValueError(f"{name} must be contiguous, aligned{' and writable' if writes else ''}")


def _unusable(what: str) -> MedEnhanceError:
    return MedEnhanceError(what, f"Build it again: {_BUILD}")


@cache
def _found(folder: Path) -> tuple[Library | None, str]:
    """Look for the library in a folder; returns its state too, with what mends it, in one line."""
    from MedEnhanceLib.native import build

    path, problem = build.library(folder), "not compiled"
    if path.is_file():
        try:
            library = Library(path)
        except MedEnhanceError as error:
            problem = error.message
        else:
            return library, f"compiled, {_LABELS[library.width]}"
    has_compiler = any(map(build.answers, build.compilers()))
    remedy = _BUILD if has_compiler else f"{_COMPILER} && {_BUILD}"
    return None, f"{problem}: {_SLOWER}. Run: {remedy}"


def load(folder: Path = _HERE, *, monitor: Monitor | None = None) -> Library | None:
    """Load the library, or None with a warning: to the monitor of each job, or once to the log."""
    library, state = _usable(folder, monitor)
    if library is None:
        warn = monitor.warn if monitor is not None and monitor.has_listener else _log
        warn(f"The compiled library is not used: {state}")
    return library


def require(purpose: str) -> Library:
    """Load as `load`; raises DependencyError, with the command that builds the library."""
    library, state = _usable(_HERE)
    if library is None:
        raise DependencyError(f"{purpose} needs the compiled library", f"It is {state}")
    return library


def _usable(folder: Path, monitor: Monitor | None = None) -> tuple[Library | None, str]:
    """Look as `_found`; first the package ziglang, if installed, builds a missing library."""
    is_missing = _found(folder)[0] is None and folder == _HERE
    if is_missing and importlib.util.find_spec("ziglang") is not None:
        if monitor is not None:
            monitor.progress(0.0, "building the fast library, once: about a minute")
        _build_once(folder)
    return _found(folder)


@cache
def _build_once(folder: Path) -> None:
    """Build with ziglang; what fails is not tried again in this process."""
    from MedEnhanceLib.native import build

    try:
        build.build(folder, compiler=[sys.executable, "-m", "ziglang", "cc"])
    except (build.BuildError, OSError) as error:
        _log(f"The compiled library cannot be built: {error}")
    else:
        _found.cache_clear()


@cache
def _log(warning: str) -> None:
    """Warn once in a process."""
    logging.getLogger("MedEnhanceLib").warning("%s", warning)


def describe(folder: Path = _HERE) -> str:
    """State and remedy in one line, for `medenhance doctor` and for notices."""
    return _found(folder)[1]
