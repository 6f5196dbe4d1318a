"""What a segmenter expects of an image, and how it sees a volume."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.nets.intensity import Scaling

#: Spacings that differ by less are the same: headers round them.
_SAME_SPACING = 1e-3


@dataclass(frozen=True)
class Intensity:
    """How the intensities of a volume become those that the network was trained on.

    Attributes:
        kind: window: low to high become to_low to to_high; scale: the smallest and largest value
            do; z-score: mean 0 and standard deviation 1; none: as in the file.
        low, high: of a window, in the volume's unit.
        to_low, to_high: what they become.
        clip: of a window: whether values beyond the ends are set to them.
        nonzero: of z-score: whether voxels of 0 are left out of it, and stay 0.
    """

    kind: Literal["window", "z-score", "scale", "none"] = "none"
    low: float = 0.0
    high: float = 1.0
    to_low: float = 0.0
    to_high: float = 1.0
    _: KW_ONLY
    clip: bool = False
    nonzero: bool = False

    def gain_and_offset(self, voxels: npt.NDArray[Any]) -> tuple[float, float]:
        """(a, b) of network value = a · value + b, for a volume in its unit."""
        if self.kind == "none":
            return 1.0, 0.0
        if self.kind == "z-score":
            counted = voxels[voxels != 0] if self.nonzero else voxels
            mean, spread = 0.0, 1.0
            if counted.size:
                mean = float(counted.mean(dtype=np.float64))
                spread = float(counted.std(dtype=np.float64)) or 1.0
            return 1 / spread, -mean / spread
        low, high = self.low, self.high
        if self.kind == "scale":
            low, high = float(voxels.min()), float(voxels.max())
        gain = (self.to_high - self.to_low) / ((high - low) or 1.0)
        return gain, self.to_low - gain * low


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec:
    """What a segmenter takes and gives.

    Attributes:
        modality: of the images that it was trained on, CT or MR.
        labels: names of its channels, in order, without the background.
        orientation: where the axes of its array point to, first axis first: RAS is right, anterior,
            superior; IJK is columns, rows, slices of the file.
        spacing: mm along these axes, 0: as the volume's. Empty: as the volume's.
        intensity: scale of its intensities.
        activation: softmax: the first channel is the background, one label per voxel; sigmoid: no
            background, labels may overlap.
        multiple: sides are filled up to a multiple of it, by repeating the edge.
        window: sides of the window that whole volumes are run in; empty: all at once.
        overlap: of neighboring windows, as a share.
    """

    modality: str
    labels: tuple[str, ...]
    orientation: str = "IJK"
    spacing: tuple[float, ...] = ()
    intensity: Intensity = field(default_factory=Intensity)
    activation: Literal["softmax", "sigmoid"] = "softmax"
    multiple: int = 16
    window: tuple[int, ...] = ()
    overlap: float = 0.25

    @property
    def outputs(self) -> int:
        """Channels that come out: with the background for softmax."""
        return len(self.labels) + (self.activation == "softmax")


@dataclass(frozen=True, kw_only=True)
class View:
    """How a segmenter sees slabs of one volume.

    gain, offset: network value = gain · scaled value + offset.
    clip: ends of the network's values, or None.
    zero: (network value that the volume's 0 would become, how near it voxels count as 0), or None
        where voxels of 0 are nothing special. What counts as 0 stays 0.
    axes: axis of the slab [D, H, W] that becomes each axis of the network's array.
    flips: axes of the network's array that are reversed after that.
    zoom: the network's voxels per voxel of the slab, along the network's axes.
    """

    gain: float
    offset: float
    clip: tuple[float, float] | None
    zero: tuple[float, float] | None
    axes: tuple[int, int, int]
    flips: tuple[int, ...]
    zoom: tuple[float, ...]

    def along(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Sides of a volume or slab along the network's axes, on its own grid."""
        first, second, third = (int(shape[axis]) for axis in self.axes)
        return first, second, third

    def sides(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The network's grid for a slab of that shape."""
        first, second, third = (
            max(1, round(side * zoom))
            for side, zoom in zip(self.along(shape), self.zoom, strict=True)
        )
        return first, second, third


def view_of(spec: SegmenterSpec, volume: Volume, scaling: Scaling) -> View:
    """The view of a volume whose slabs are on the scale of `scaling`."""
    axes, flips = _axes_of(spec.orientation, volume.geometry)
    intensity = spec.intensity
    gain, offset = intensity.gain_and_offset(volume.voxels)
    zero = None
    if intensity.nonzero:
        # An enhanced volume is rounded to the type of the original: less than a half becomes 0.
        half = 0.5 if volume.dtype.kind in "iub" else 0.0
        zero = (offset, gain * half)
    return View(
        gain=gain * scaling.scale,
        offset=gain * scaling.offset + offset,
        clip=(intensity.to_low, intensity.to_high) if intensity.clip else None,
        zero=zero,
        axes=axes,
        flips=flips,
        zoom=_zoom_of(spec.spacing, axes, volume.geometry),
    )


def _axes_of(orientation: str, geometry: Geometry) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Axes of [K, J, I] in the order of an orientation, and which of them are reversed."""
    if orientation == "IJK":
        return (2, 1, 0), ()
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    # For each of i, j, k: the axis of the network's array that it becomes, and 1 or -1.
    turn = ornt_transform(  # type: ignore[no-untyped-call]
        io_orientation(geometry.affine_ras),  # type: ignore[no-untyped-call]
        axcodes2ornt(orientation),  # type: ignore[no-untyped-call]
    )
    places = [int(place) for place in turn[:, 0]]
    first, second, third = (2 - places.index(place) for place in range(3))
    flips = sorted(place for place, sense in zip(places, turn[:, 1], strict=True) if sense < 0)
    return (first, second, third), tuple(flips)


def _zoom_of(
    spacing: tuple[float, ...], axes: tuple[int, int, int], geometry: Geometry
) -> tuple[float, ...]:
    """The network's voxels per voxel of the volume, along the network's axes."""
    if not spacing:
        return (1.0, 1.0, 1.0)
    ratios = [
        geometry.spacing[2 - axis] / side if side else 1.0
        for axis, side in zip(axes, spacing, strict=True)
    ]
    return tuple(1.0 if abs(ratio - 1) < _SAME_SPACING else ratio for ratio in ratios)
