"""Slices that do not lie behind one another: a tilted gantry, seen in the positions alone.

GantryDetectorTilt is not asked: scanners keep it in series that were straightened since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import GeometryError

#: Of a pixel: how far a slice may lie beside the normal through the first …
_MOST_ASIDE = 0.05
#: … and what the rounding in headers may add to that, where their digits explain it.
_MOST_ROUNDED = 0.2
#: Degrees: no gantry tilts further, so the positions of what seems to are damaged.
_MOST_TILT = 45.0
#: How many times as large straightening may make a plane that has more pixels than that.
_MOST_GROWTH, _SMALL = 8, 1 << 20

Vector = npt.NDArray[np.float64]
Places = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Slant:
    """Where slices lie beside the first.

    along: mm along the normal, [K]. aside: mm down a column and along a row, [K, 2].
    pixel_mm: between rows, between columns.
    """

    along: Vector
    aside: Vector
    pixel_mm: tuple[float, float]

    @property
    def slope(self) -> Vector:
        """The line that fits the slices best: mm aside per mm along the normal, [2]."""
        height = self.along - self.along[0]
        slope: Vector = height @ self.aside / (height @ height)
        return slope

    @property
    def degrees(self) -> float:
        """Its angle with the normal."""
        return float(np.degrees(np.arctan(np.linalg.norm(self.slope))))

    @property
    def is_strewn(self) -> bool:
        """Whether no line fits: then no gantry was tilted, and something else is wrong."""
        astray = self.aside - np.outer(self.along - self.along[0], self.slope)
        most = max(*self.pixel_mm, 0.1 * np.linalg.norm(self.aside, axis=1).max())
        return bool(np.linalg.norm(astray, axis=1).max() > most)

    @property
    def _angle(self) -> str:
        return f"{self.degrees:.1f}°" if self.degrees >= 0.95 else f"{self.degrees:.2g}°"

    def fault(self, labels: Sequence[str]) -> str:
        """What is wrong, in words. labels: a name for each slice."""
        distance = np.linalg.norm(self.aside, axis=1)
        worst = int(distance.argmax())
        where = f"{labels[worst]} lies {distance[worst]:.2f} mm beside the first"
        if self.is_strewn:
            return f"the slices lie neither behind one another nor on a slanted line: {where}"
        cause = "a tilted gantry" if self.degrees >= 0.5 else "or cosines of too few digits"
        return f"the slices are stacked at a slant of {self._angle} ({cause}): {where}"

    def note(self) -> str:
        """What was done about it, for people."""
        return (
            f"moved slices inside their planes by up to {np.abs(self.aside).max():.2f} mm onto a "
            f"rectangular grid, because they were stacked at a slant of {self._angle}"
        )

    def grid(self, size: tuple[int, int], name: str) -> tuple[tuple[int, int], Places]:
        """Rows and columns that hold all slices, and for each where its first pixel lies there.

        size: rows and columns of a slice. The first slice lies on whole pixels.
        Raises GeometryError for a slant that no gantry has.
        """
        places = self._places()
        rows, columns = self._size(size, places)
        if not self.is_a_tilt(size):
            raise GeometryError(
                f"{name}: the slices are stacked at a slant of {self._angle}, over "
                f"{columns}×{rows} pixels of {size[1]}×{size[0]}, which is no gantry's tilt",
                "Export the series again; its positions seem to be damaged.",
            )
        return (rows, columns), tuple((float(row), float(column)) for row, column in places)

    def is_a_tilt(self, size: tuple[int, int]) -> bool:
        """Whether a gantry could have tilted so far: else the positions are damaged."""
        rows, columns = self._size(size, self._places())
        most = max(_MOST_GROWTH * size[0] * size[1], _SMALL)
        return self.degrees <= _MOST_TILT and rows * columns <= most

    def _places(self) -> Vector:
        pixels = np.round(self.aside / np.asarray(self.pixel_mm), 3)  # whole steps stay whole
        # A way that nothing goes but a rounding error is not worth an interpolation.
        pixels[:, np.abs(pixels).max(axis=0) <= _MOST_ASIDE] = 0
        places: Vector = pixels - np.floor(pixels.min(axis=0))
        return places

    @staticmethod
    def _size(size: tuple[int, int], places: Vector) -> tuple[int, int]:
        rows, columns = np.ceil(places.max(axis=0)).astype(int).tolist()
        return size[0] + rows, size[1] + columns


def measure_slant(
    positions: Vector,
    cosines: Vector,
    along: Vector,
    axes: tuple[Vector, Vector],
    pixel_mm: tuple[float, float],
) -> Slant | None:
    """None where the slices lie on one normal, but for the rounding in their headers.

    positions: [K, 3], mm. cosines: [K, 6]. along: mm along the normal, ascending, [K].
    axes: unit vectors down a column, along a row.
    """
    aside: Vector = (positions - positions[0]) @ np.column_stack(axes)
    rounded_mm = last_digit(positions) + last_digit(cosines) * float(along[-1] - along[0])
    pixel = min(pixel_mm)
    allowed = max(_MOST_ASIDE * pixel, min(rounded_mm, _MOST_ROUNDED * pixel))
    if np.linalg.norm(aside, axis=1).max() <= allowed:
        return None
    return Slant(along, aside, pixel_mm)


def last_digit(numbers: Vector) -> float:
    """What one unit of the last decimal is worth, at most 0.1; 0 for whole or long numbers."""
    for digits in range(5):
        if np.abs(numbers - np.round(numbers, digits)).max() < 1e-9:
            return float(10.0**-digits) if digits else 0.0
    return 0.0
