"""What drawings share: colors, and pictures that become PNG without a screen.

matplotlib is imported when something is drawn, and only its parts that need no screen.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import EndingError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.runtime.dependencies import require

#: Colors of drawings, which are dark on light and dark pages alike.
INK, MUTED, PAPER = "#f2f4f7", "#9aa4b2", "#0b0d10"
#: Color maps: of images, of differences (see `register_difference_colors`), of uncertainties.
GRAY, DIFFERENCE, HEAT = "gray", "MedEnhance difference", "magma"
_PURPOSE = "Drawing pictures"


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
        with atomic_write(Path(path), overwrite=overwrite) as temporary:
            temporary.write_bytes(self._repr_png_())

    def __repr__(self) -> str:
        return f"<Picture: {self.alt} .save(path) writes it>"

    def _repr_png_(self) -> bytes:
        """PNG, the same bytes for the same figure."""
        agg = require("matplotlib.backends.backend_agg", purpose=_PURPOSE)
        buffer = io.BytesIO()
        canvas = agg.FigureCanvasAgg(self.figure)
        # Laid out once: a second layout begins where the first ended, and ends elsewhere.
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        canvas.print_png(buffer, metadata={"Software": "MedEnhance"})
        return buffer.getvalue()


def register_difference_colors() -> None:
    """Register the diverging color map with matplotlib: zero is black, like the air around."""
    matplotlib = require("matplotlib", purpose=_PURPOSE)
    colors = require("matplotlib.colors", purpose=_PURPOSE)
    if DIFFERENCE not in matplotlib.colormaps:
        stops = ["#b9e3ff", "#2b8fe0", "#0a2a4a", "#000000", "#4a1d05", "#e8762c", "#ffe0b8"]
        color_map = colors.LinearSegmentedColormap.from_list(DIFFERENCE, stops)
        matplotlib.colormaps.register(color_map, name=DIFFERENCE)
