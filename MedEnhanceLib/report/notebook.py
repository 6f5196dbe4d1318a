"""Pictures in memory, which notebooks show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import EndingError
from MedEnhanceLib.report.drawing import png_of, save_figure
from MedEnhanceLib.report.figures import LabelLike, Pane, comparison, sheet_alt
from MedEnhanceLib.report.planes import Point


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that notebooks show by themselves.

    figure: of matplotlib. alt: what it shows, in a sentence.
    """

    figure: Any
    alt: str

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it as PNG; raises OutputError where that cannot be, and for another ending."""
        if Path(path).suffix.lower() != ".png":
            raise EndingError(f"{path}: pictures are written as PNG", "End its name in .png.")
        save_figure(Path(path), self.figure, overwrite=overwrite)

    def __repr__(self) -> str:
        return f"<Picture: {self.alt} .save(path) writes it>"

    def _repr_png_(self) -> bytes:
        return png_of(self.figure)


def planes_of(
    panes: Sequence[Pane],
    *,
    legend: Sequence[LabelLike] = (),
    point: Point | None = None,
    window: tuple[float, float] | None = None,
) -> Picture:
    """Three planes of each pane, as `report.figures.comparison_sheet` draws them."""
    figure = comparison(panes, legend=legend, point=point, window=window)
    return Picture(figure, sheet_alt(panes))
