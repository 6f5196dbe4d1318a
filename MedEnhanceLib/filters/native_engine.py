"""The stages of `block_matching` in C: native/grouped.c, and planes.c between them.

Python checks the arrays, C the numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Literal

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.filters.layers import TAPER, TAPER_LINE, Layer, LayerArrays, StageKind
from MedEnhanceLib.native import CELLS, SIDE


class _LayerTask(ctypes.Structure):
    """Structure `layer_task` of grouped.c."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("bytes", "ny", "nx", "z", "window_z", "window_y", "window_x", "step")
        ),
        *((name, ctypes.c_int64) for name in ("layer", "row_from", "row_to", "keep", "apart")),
        ("damp", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("taper", "pilot", "level", "matched")),
        *((name, ctypes.c_void_p) for name in ("noisy", "spectrum", "total", "weight")),
    )


class _PlanesTask(ctypes.Structure):
    """Structure `planes_task` of planes.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("bytes", "ny", "nx", "count")),
        *((name, ctypes.c_void_p) for name in ("planes", "from")),
        ("stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("before", "level", "taper", "mean")),
    )


class NativeEngine:
    """Engine that calls the compiled library; it checks the arrays, as C trusts their pointers."""

    def __init__(self, library: native.Library) -> None:
        self.library = library

    def run(self, stage: StageKind, layer: Layer, rows: range, arrays: LayerArrays) -> None:
        """Filter successive rows of references of a layer, and add them to its sums; thread-safe.

        Args:
            stage: "threshold" or "grouped".
            layer: whose groups are filtered.
            rows: numbers of the rows of references, from 0.
            arrays: inputs and sums.
        Raises ValueError where an argument is out of range or does not fit the others; MemoryError
        where C cannot allocate its own arrays.
        """
        _, ny, nx = arrays.noisy.shape
        slab, given = (layer.window[0] + SIDE - 1, ny, nx), vars(arrays) | {"taper": TAPER}
        others = {"taper": (CELLS,), "spectrum": (CELLS,), "weight": (layer.window[0], ny, nx)}
        for each, values in given.items():
            _check(each, values, others.get(each, slab))
        task = _LayerTask(
            ctypes.sizeof(_LayerTask), ny, nx, layer.z, *layer.window, layer.round.step,
            layer.number, rows.start, rows.stop,
            layer.round.keep, layer.round.apart, layer.round.damp,
            **{each: values.ctypes.data for each, values in given.items()},
        )  # fmt: skip
        status = self.library.call(stage, task)
        if status == native.NO_MEMORY:
            raise MemoryError("no memory for the compiled denoising filter")
        if status:
            raise ValueError(f"the compiled {stage} refuses its arguments")

    def planes(
        self,
        name: Literal["add", "means"],
        planes: Sequence[Floats | None],
        values: Floats,
        stride: int = 0,
        **arrays: Floats,
    ) -> None:
        """Add lines of slices to sums and set them 0, or average blocks over each pixel of a slice.

        Args:
            name: of the function of planes.c.
            planes: sums, None where nothing is added; weights of the blocks that start in this
                slice, in the one before, two and three before, None where there are none.
            values: what is added to the first sums, like them; sums of weighted blocks.
            stride: from the values to those of the next sums.
            arrays: for means, like the values: `before` is what stays without a block or noise,
                `level` is σ, `mean` takes the result.
        Raises as `run`.
        """
        addresses = (ctypes.c_void_p * len(planes))()
        for number, plane in enumerate(planes):
            if plane is not None:
                _check("total", plane, values.shape)
                addresses[number] = plane.ctypes.data
        for each, array in {"total": values, **arrays}.items():
            _check(each, array, values.shape)
        task = _PlanesTask(
            ctypes.sizeof(_PlanesTask), *values.shape, len(planes), ctypes.addressof(addresses),
            values.ctypes.data, stride, taper=TAPER_LINE.ctypes.data,
            **{each: array.ctypes.data for each, array in arrays.items()},
        )  # fmt: skip
        if self.library.call(name, task):
            raise MemoryError("no memory for the compiled denoising filter")


def _check(name: str, values: Floats, shape: tuple[int, ...]) -> None:
    """Raise ValueError for an array that C cannot read or, for a sum, write."""
    if values.dtype != np.float32 or values.shape != shape:
        raise ValueError(f"{name} is {values.dtype} {values.shape}, and float32 {shape} is needed")
    flags, writes = values.flags, name in ("total", "weight")
    if not (flags.c_contiguous and flags.aligned and (flags.writeable or not writes)):
        raise ValueError(f"{name} must be contiguous, aligned{' and writable' if writes else ''}")
