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
        """Draw as PNG, the same bytes for the same figure."""
        agg = require("matplotlib.backends.backend_agg", purpose=_PURPOSE)
        buffer = io.BytesIO()
        canvas = agg.FigureCanvasAgg(self.figure)
        # Laid out once: a second layout begins where the first ended, and ends elsewhere.
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        canvas.print_png(buffer, metadata={"Software": "MedEnhance"})
        return buffer.getvalue()
