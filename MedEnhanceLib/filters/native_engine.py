"""The stages of `block_matching` in C: native/grouped.c, and planes.c between them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Array, Floats
from MedEnhanceLib.filters.layers import (
    TAPER,
    TAPER_LINE,
    BlockGroups,
    Layer,
    LayerArrays,
    StageKind,
    places,
)
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
        *((name, ctypes.c_void_p) for name in ("weights", "changes")),
        ("top", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("weight_count", "width", "hidden", "layers")),
        *((name, ctypes.c_void_p) for name in ("index", "distance", "sigma")),
        *((name, ctypes.c_int64) for name in ("room", "count")),
    )


class _PlanesTask(ctypes.Structure):
    """Structure `planes_task` of planes.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("bytes", "ny", "nx", "count")),
        *((name, ctypes.c_void_p) for name in ("planes", "from")),
        ("stride", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("before", "level", "taper", "mean")),
    )


@dataclass(frozen=True, eq=False)
class NetworkWeights:
    """The set network, as network.c reads it.

    Attributes:
        values: weights and biases in its order.
        changes: [64], share of the residual of each frequency that is added.
        width, hidden, layers: sizes of the network.
    """

    values: Floats
    changes: Floats
    width: int
    hidden: int
    layers: int


class NativeEngine:
    """Engine that calls the compiled library; it checks the arrays, as C trusts their pointers."""

    device: ClassVar[str] = "cpu"

    def less(self) -> None:
        """Return no engine that needs less memory of a device: this one needs none."""

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
        self._call(stage, layer, rows, vars(arrays) | {"taper": TAPER})

    def run_network(
        self,
        weights: NetworkWeights,
        top: float,
        layer: Layer,
        rows: range,
        arrays: LayerArrays,
    ) -> None:
        """Add the residuals of the set network to the sums of a layer; thread-safe.

        Args:
            weights: of the network.
            top: intensity of bright tissue.
            layer: whose groups are searched in `matched`, the estimate.
            rows: numbers of the rows of references, from 0.
            arrays: inputs and sums; `pilot` is the estimate of the round before.
        Raises as `run`.
        """
        tables = {"taper": TAPER, "weights": weights.values, "changes": weights.changes}
        sizes: dict[str, Any] = {
            "width": weights.width, "hidden": weights.hidden, "layers": weights.layers,
            "weight_count": len(weights.values), "top": top,
        }  # fmt: skip
        self._call("network", layer, rows, vars(arrays) | tables, **sizes)

    def match(self, layer: Layer, rows: range, *, pilot: Floats, level: Floats) -> BlockGroups:
        """Search the groups of successive rows of references of a layer.

        Args:
            layer: whose groups are searched; its `damp` is not used.
            rows: numbers of the rows of references, from 0.
            pilot: the slab [window[0] + 3, ny, nx], of fewer than 2³¹ voxels.
            level: σ of the noise, like the slab, ≥ 0; a reference without noise gets no group.
        Raises as `run`.
        """
        places_along = partial(places, pilot.shape[2], layer.round.step)
        room = len(rows) * max(len(places_along(is_shifted=odd)) for odd in (False, True))
        groups = BlockGroups(
            np.empty((room, layer.round.keep), np.int32),
            np.empty((room, layer.round.keep), np.float32),
            np.empty(room, np.float32),
        )
        into = {"index": groups.index, "distance": groups.distance, "sigma": groups.level}
        arrays = {"pilot": pilot, "level": level, "matched": pilot}
        count = self._call("match", layer, rows, arrays, into)
        return BlockGroups(groups.index[:count], groups.distance[:count], groups.level[:count])

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

    def _call(
        self,
        name: str,
        layer: Layer,
        rows: range,
        arrays: Mapping[str, Floats],
        into: Mapping[str, Array] | None = None,
        **sizes: Any,
    ) -> int:
        """Call a function of grouped.c with checked arrays; returns the number of groups."""
        _, ny, nx = next(iter(arrays.values())).shape
        slab = (layer.window[0] + SIDE - 1, ny, nx)
        tables = dict.fromkeys(("taper", "spectrum", "changes"), (CELLS,))
        others = {**tables, "weight": (layer.window[0], ny, nx)}
        others["weights"] = (sizes.get("weight_count", 0),)
        for each, values in arrays.items():
            _check(each, values, others.get(each, slab))
        task = _LayerTask(
            ctypes.sizeof(_LayerTask), ny, nx, layer.z, *layer.window, layer.round.step,
            layer.number, rows.start, rows.stop,
            layer.round.keep, layer.round.apart, layer.round.damp,
            room=len(into["sigma"]) if into else 0, **sizes,
            **{each: values.ctypes.data for each, values in {**arrays, **(into or {})}.items()},
        )  # fmt: skip
        status = self.library.call(name, task)
        if status == native.NO_MEMORY:
            raise MemoryError("no memory for the compiled denoising filter")
        if status:
            raise ValueError(f"the compiled {name} refuses its arguments")
        return int(task.count)


def _check(name: str, values: Floats, shape: tuple[int, ...]) -> None:
    """Raise ValueError for an array that C cannot read or, for a sum, write."""
    if values.dtype != np.float32 or values.shape != shape:
        raise ValueError(f"{name} is {values.dtype} {values.shape}, and float32 {shape} is needed")
    flags, writes = values.flags, name in ("total", "weight")
    if not (flags.c_contiguous and flags.aligned and (flags.writeable or not writes)):
        raise ValueError(f"{name} must be contiguous, aligned{' and writable' if writes else ''}")
