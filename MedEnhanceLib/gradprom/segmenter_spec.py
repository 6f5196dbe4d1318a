"""What a segmenter expects of an image, and how it sees a volume."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.options import Options, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.nets.intensity import Scaling

#: Letters of the anatomical axes in nibabel's order: positive and negative end of each.
_ENDS = ("RL", "AP", "SI")
_ARRAY = "IJK"
#: Of labels in a byte, without the background.
_MOST_LABELS = 255
#: Voxels that a percentile is measured on: more change no digit that matters.
_SAMPLE = 20_000_000
#: Spacings that differ by less are the same: headers round them.
_SAME_SPACING = 1e-3


@dataclass(frozen=True, kw_only=True)
class Intensity(Options):
    """How the intensities of a volume become those that the network was trained on.

    Attributes:
        kind: window: low to high become to_low to to_high; z-score: mean 0 and standard deviation
            1; scale: smallest and largest value become to_low and to_high; percentiles: low and
            high are percentiles; own: the scale of this project's networks; none: as in the file.
        low, high: in the volume's unit, or percentiles.
        to_low, to_high: what they become.
        clip: whether values beyond the ends are set to them.
        nonzero: of z-score: whether voxels of 0 are left out of it, and stay 0.
    """

    kind: Literal["window", "z-score", "scale", "percentiles", "own", "none"] = "none"
    low: float | None = None
    high: float | None = None
    to_low: float = 0.0
    to_high: float = 1.0
    clip: bool = False
    nonzero: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind in ("window", "percentiles"):
            lowest, highest = (0, 100) if self.kind == "percentiles" else (-np.inf, np.inf)
            low, high = self.low, self.high
            if low is None or high is None or not lowest <= low < high <= highest:
                raise ConfigError(
                    f"intensity {self.kind!r} goes from {low} to {high}",
                    "State low and high, the lower first; percentiles from 0 to 100.",
                )
        if not self.to_low < self.to_high:
            raise ConfigError(
                f"intensity goes to {self.to_low:g} and {self.to_high:g}",
                "State to_low and to_high, the lower first.",
            )

    @property
    def clips_to(self) -> tuple[float, float] | None:
        """The ends that the network's values are clipped to; None for no ends."""
        has_ends = self.clip and self.kind in ("window", "scale", "percentiles")
        return (self.to_low, self.to_high) if has_ends else None

    def measured(self, voxels: npt.NDArray[Any]) -> tuple[float, float]:
        """(a, b) of network value = a · value + b, for a volume in its unit.

        Raises ConfigError for the kind "own", which the unit does not matter to.
        """
        if self.kind == "none":
            return 1.0, 0.0
        if self.kind == "z-score":
            seen = voxels[voxels != 0] if self.nonzero else voxels
            mean = float(seen.mean(dtype=np.float64)) if seen.size else 0.0
            spread = float(seen.std(dtype=np.float64)) if seen.size else 0.0
            return 1 / (spread or 1.0), -mean / (spread or 1.0)
        if self.kind == "own":
            raise ConfigError("the scale of this project's networks has no gain", "Use Scaling.")
        low, high = self._ends(voxels)
        gain = (self.to_high - self.to_low) / ((high - low) or 1.0)
        return gain, self.to_low - gain * low

    def _ends(self, voxels: npt.NDArray[Any]) -> tuple[float, float]:
        if self.kind == "scale":
            return float(voxels.min()), float(voxels.max())
        low, high = float(self.low or 0), float(self.high or 0)
        if self.kind == "window":
            return low, high
        sample = voxels[:: max(1, voxels.size // _SAMPLE)]
        found = np.percentile(sample, [low, high])
        return float(found[0]), float(found[1])


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec(Options):
    """What a segmenter takes and gives.

    Attributes:
        modality: of the images that it was trained on.
        labels: names of its channels, in order, without the background.
        dimensions: 2: it takes slices, as a head of ours in the file's own grid; 3: volumes.
        context: of 2 dimensions: slices on each side that are channels too.
        orientation: where the axes of its array point to, first axis first: RAS is right, anterior,
            superior; KJI is slices, rows, columns of the file.
        spacing: mm along these axes, 0: as the volume's. Empty: as the volume's.
        intensity: scale of its intensities.
        activation: softmax: the first channel is the background, one label per voxel; sigmoid: no
            background, labels may overlap.
        multiple: sides are filled up to a multiple of it, by repeating the edge.
        window: sides of the window that whole volumes are run in; empty: all at once.
        overlap: of neighboring windows, as a share.
    """

    modality: Literal["CT", "MR"]
    labels: tuple[str, ...]
    dimensions: Literal[2, 3] = 3
    context: int = 0
    orientation: str = "KJI"
    spacing: tuple[float, ...] = ()
    intensity: Intensity = option(factory=Intensity)
    activation: Literal["softmax", "sigmoid"] = "softmax"
    multiple: int = option(16, low=1, high=512)
    window: tuple[int, ...] = ()
    overlap: float = option(0.25, low=0, high=0.9)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < len(self.labels) <= _MOST_LABELS or not all(self.labels):
            raise ConfigError(
                f"labels is {list(self.labels)}", f"Name 1 to {_MOST_LABELS} channels of labels."
            )
        if not _is_orientation(self.orientation):
            raise ConfigError(
                f"orientation is {self.orientation!r}",
                "Use three letters, one of R or L, A or P, S or I each; or I, J and K.",
            )
        if not all(0 <= side < np.inf for side in self.spacing):
            raise ConfigError(
                f"spacing is {list(self.spacing)}", "Give three numbers in mm; 0: as the volume's."
            )

    @property
    def channels(self) -> int:
        """Channels that go in."""
        return 2 * self.context + 1

    @property
    def outputs(self) -> int:
        """Channels that come out: with the background for softmax."""
        return len(self.labels) + (self.activation == "softmax")


@dataclass(frozen=True)
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

    gain: float = 1.0
    offset: float = 0.0
    clip: tuple[float, float] | None = None
    zero: tuple[float, float] | None = None
    _: KW_ONLY
    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[int, ...] = ()
    zoom: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def sides(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """The network's grid for a slab of that shape."""
        first, second, third = (
            max(1, round(shape[axis] * zoom))
            for axis, zoom in zip(self.axes, self.zoom, strict=True)
        )
        return first, second, third


def view_of(spec: SegmenterSpec, volume: Volume, scaling: Scaling) -> View:
    """The view of a volume whose slabs are on the scale of `scaling`."""
    axes, flips = axes_of(spec.orientation, volume.geometry)
    zoom = zoom_of(spec.spacing, axes, volume.geometry)
    if spec.intensity.kind == "own":
        return View(axes=axes, flips=flips, zoom=zoom)
    gain, offset = spec.intensity.measured(volume.voxels.reshape(-1))
    zero = None
    if spec.intensity.kind == "z-score" and spec.intensity.nonzero:
        # An enhanced volume is rounded to the type of the original: less than a half becomes 0.
        half = 0.5 if volume.dtype.kind in "iub" else 0.0
        zero = (offset, gain * half)
    return View(
        gain * scaling.scale,
        gain * scaling.offset + offset,
        spec.intensity.clips_to,
        zero,
        axes=axes,
        flips=flips,
        zoom=zoom,
    )


def axes_of(orientation: str, geometry: Geometry) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Axes of [K, J, I] in the order of an orientation, and which of them are reversed."""
    if set(orientation) == set(_ARRAY):
        first, second, third = (2 - _ARRAY.index(letter) for letter in orientation)
        return (first, second, third), ()
    from nibabel.orientations import io_orientation

    # For each of i, j, k: the anatomical axis that it is closest to, and 1 or -1 for its sense.
    nearest = io_orientation(geometry.affine_ras)  # type: ignore[no-untyped-call]
    axes, flips = [], []
    for place, letter in enumerate(orientation):
        anatomical = next(number for number, ends in enumerate(_ENDS) if letter in ends)
        index = next(number for number in range(3) if nearest[number][0] == anatomical)
        axes.append(2 - index)
        if (nearest[index][1] > 0) != (letter == _ENDS[anatomical][0]):
            flips.append(place)
    return (axes[0], axes[1], axes[2]), tuple(flips)


def zoom_of(
    spacing: tuple[float, ...], axes: tuple[int, int, int], geometry: Geometry
) -> tuple[float, float, float]:
    """The network's voxels per voxel of the volume, along the network's axes."""
    if not spacing:
        return (1.0, 1.0, 1.0)
    ratios = [
        geometry.spacing[2 - axis] / wanted if wanted else 1.0
        for axis, wanted in zip(axes, spacing, strict=True)
    ]
    first, second, third = (1.0 if abs(r - 1) < _SAME_SPACING else float(r) for r in ratios)
    return first, second, third


def _is_orientation(text: str) -> bool:
    if sorted(text) == sorted(_ARRAY):
        return True
    hits = [[letter in ends for ends in _ENDS] for letter in text]
    return len(text) == 3 and all(sum(column) == 1 for column in zip(*hits, strict=True))
