"""What a comparison sheet shows: panes on one grid, and the scales that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.report.planes import PlaneName, Point, cut

#: The soft-tissue window that the compression tables use as well, in HU.
CT_WINDOW = (-160.0, 240.0)
#: Colour maps: of images, of differences (see `sheet.register_colours`), of uncertainties.
GREY, DIFFERENCE, HEAT = "gray", "MedEnhance difference", "magma"


class LabelLike(Protocol):
    """What a contour needs to know of a label; `gradprom.Label` is one."""

    @property
    def value(self) -> int:
        """The voxel value."""

    @property
    def name(self) -> str:
        """For the legend."""

    @property
    def color(self) -> Any:
        """As matplotlib takes it: "#rrggbb", or three numbers from 0 to 1."""


@dataclass(frozen=True)
class Pane:
    """One column of a sheet.

    volume: what is shown. minus: subtracted from it, the difference is drawn around zero.
    labels: contours drawn over the volume. heat: drawn by colour on a scale of its own.
    """

    title: str
    volume: Volume
    minus: Volume | None = None
    labels: Volume | None = None
    heat: bool = False

    @property
    def kind(self) -> Literal["image", "difference", "heat"]:
        """Which scale the pane is drawn on."""
        if self.minus is not None:
            return "difference"
        return "heat" if self.heat else "image"


@dataclass(frozen=True)
class Scale:
    """From low to high, in the volume's units; `name` is written at the colour bar."""

    low: float
    high: float
    name: str
    colours: str


def choose_window(volume: Volume) -> tuple[float, float]:
    """Grey levels that show a volume: soft tissue for CT, else what most voxels lie between."""
    voxels = volume.frame(0).voxels
    low, high = float(voxels.min()), float(voxels.max())
    if volume.modality == "CT" and low < CT_WINDOW[1] and high > CT_WINDOW[0]:
        return CT_WINDOW
    step = max(1, voxels.size // 1_000_000)
    sample = voxels.reshape(-1)[::step]
    inside = sample[sample > low]
    if inside.size:
        low, high = float(np.percentile(sample, 0.5)), float(np.percentile(inside, 99.7))
        # A magnitude begins at 0: a little undershoot must not turn the air grey.
        if volume.modality == "MR" and low > -0.1 * high:
            low = 0.0
    return (low, high) if high > low else (low, low + 1.0)


def shared_scales(
    panes: Sequence[Pane],
    rows: Sequence[PlaneName],
    point: Point,
    window: tuple[float, float] | None,
) -> dict[str, Scale]:
    """A scale for each kind of pane; all panes of a kind share it."""
    units = panes[0].volume.units or "arbitrary units"
    low, high = window or choose_window(panes[0].volume)
    scales = {"image": Scale(low, high, f"intensity, {units}", GREY)}
    changes = [
        cut(pane.volume, row, point).pixels.astype(np.float32)
        - cut(pane.minus, row, point).pixels.astype(np.float32)
        for pane in panes
        if pane.minus is not None
        for row in rows
    ]
    reach = _reach(changes)
    scales["difference"] = Scale(-reach, reach, f"difference, {units}", DIFFERENCE)
    heats = [
        cut(pane.volume, row, point).pixels.astype(np.float32)
        for pane in panes
        if pane.heat
        for row in rows
    ]
    scales["heat"] = Scale(0.0, _reach(heats), f"standard deviation, {units}", HEAT)
    return scales


def first_frame(pane: Pane) -> Pane:
    """The pane with the first frames of sequences."""
    return Pane(
        pane.title,
        pane.volume.frame(0),
        pane.minus.frame(0) if pane.minus else None,
        pane.labels.frame(0) if pane.labels else None,
        pane.heat,
    )


def check_grids(panes: Sequence[Pane]) -> None:
    """Raise InputError unless all volumes lie on one grid."""
    if not panes:
        raise InputError("a comparison of nothing", "Give at least one pane.")
    first = panes[0].volume
    for pane in panes:
        for volume in (pane.volume, pane.minus, pane.labels):
            if volume is None:
                continue
            if volume.shape != first.shape or not volume.geometry.is_close(
                first.geometry, 1e-2, shape=first.shape
            ):
                raise InputError(
                    f"{pane.title}: the grid differs from that of {panes[0].title}",
                    "Compare volumes of one grid.",
                )


def _reach(pictures: Sequence[npt.NDArray[np.float32]]) -> float:
    """How far a scale must reach from zero; a tiny positive number where all is zero."""
    if not pictures:
        return 1.0
    sizes = np.abs(np.concatenate([picture.ravel() for picture in pictures]))
    reach = float(np.percentile(sizes, 99.7)) or float(sizes.max())
    if reach == 0:
        return 1.0
    step = 10.0 ** (np.floor(np.log10(reach)) - 1)
    return float(np.ceil(reach / step * 0.999) * step)
