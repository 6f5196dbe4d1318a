"""The result of a segmentation, and the structures that its labels stand for."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from MedEnhanceLib.core.options import About, Options, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.text import sentence
from MedEnhanceLib.runtime.texts import text

#: A side at the beginning of a label's name: "Left thalamus", "Right thalamus" are one structure.
SIDE = re.compile(r"(left|right)[ _-]+(.+)", re.I)
#: Name of the volume of all that lies within the skull.
INTRACRANIAL = "total intracranial volume"
#: Colors far from each other and from gray (CIELAB: 36 or more), light ones for large structures.
_COLORS = (
    *("#ffd699", "#66a3ff", "#e6194b", "#ff99cc", "#1c8c8c", "#ff6600", "#00ff00", "#ff00cc"),
    *("#ffcc00", "#3333ff", "#8847b2", "#8c5400", "#00ffe5", "#d1ff66", "#498c1c", "#33ff85"),
    *("#8c545f", "#b2006b", "#99e0ff", "#cc00ff"),
)


@dataclass(frozen=True, kw_only=True)
class Code(Options):
    """A concept as DICOM codes it.

    Attributes:
        value: the code in its scheme.
        scheme: its designator; "SCT" is SNOMED CT.
        meaning: in words.
    """

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Label(Options):
    """Structure of a segmentation.

    Attributes:
        name: for users.
    """

    value: Annotated[int, About(help="of its voxels", low=1, high=255)]
    name: str
    color: Annotated[str, About(help="as #rrggbb")]
    category: Code | None = option(None, help="its category in DICOM; null: unknown")
    type: Code | None = option(None, help="its type in DICOM; null: unknown")
    recommended_color: str = option("", help="color of the type in Slicer's terminology")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch("#[0-9a-fA-F]{6}", self.color):
            raise ConfigError(
                f"the color of {self.name!r} is {self.color!r}", "Write it as #rrggbb."
            )


def color_of(value: int) -> str:
    """Choose a color for a label that states none, unlike those of the next labels."""
    if value < len(_COLORS):
        return _COLORS[value]
    hue = value * 0.618034 % 1.0  # steps of the golden angle: 5, 8 and 13 of them lead close by
    saturation, brightness = ((0.75, 0.95), (0.35, 1.0), (0.9, 0.7))[value % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, brightness)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


@dataclass(frozen=True)
class Segmentation:
    """The result of a segmentation.

    Attributes:
        volume: labels, uint8, on the input's grid, 0 for the background.
        labels: the structures.
        table: one row for each label with its volume in mL and, if the model estimates them, the
            interval that a second reader's volume is expected in ("low_ml", "high_ml") and the
            expected Dice ("quality").
        model: name and sha256.
        device: where it ran.
        seconds: of wall time.
        warning: why labels may be wrong, by the model itself and by the volume; "" for no reason.
        limits: of the model, as its card states them: what the table is not to be used for.
        uncertainty: of the labels, 0 to 1, float32; None if the model does not estimate it.
        intracranial: estimate of the total intracranial volume, all labels together, with its
            interval, as in `table`; None of a model that does not label all within the skull.
    """

    volume: Volume
    labels: tuple[Label, ...]
    table: list[dict[str, Any]]
    model: dict[str, str]
    device: str
    seconds: float
    warning: str = ""
    limits: tuple[str, ...] = ()
    uncertainty: Volume | None = None
    intracranial: dict[str, float] | None = None

    def __repr__(self) -> str:
        names = ", ".join(label.name for label in self.labels)
        return f"<Segmentation by {self.model['name']} in {self.seconds:.1f} s: {names}>"


def interval_notes(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what the intervals of a table of structures mean, and which structures have none."""
    missing = [row["label"] for row in table if "low_ml" not in row]
    if len(missing) == len(table):
        return []
    notes = [text("interval_meaning")]
    if missing:
        notes.append(text("interval_missing", names=", ".join(missing)))
    return [sentence(str(note)) for note in notes]


def volume_rows(
    file: str, table: Sequence[Mapping[str, Any]], intracranial: Mapping[str, Any] | None
) -> Iterator[dict[str, Any]]:
    """Yield a row of a table of volumes for each structure and side, then for the total.

    Args:
        file: name of the volume.
        table: as of a `Segmentation`.
        intracranial: the same.
    """
    total = [{"label": INTRACRANIAL, **intracranial}] if intracranial else []
    for row in (*table, *total):
        match = SIDE.fullmatch(row["label"])
        side, name = match.groups() if match else ("", row["label"])
        yield {
            "file": file,
            "structure": name,
            "side": side.lower(),
            "volume mL": row["volume_ml"],
            "low mL": row.get("low_ml"),
            "high mL": row.get("high_ml"),
            "expected Dice": row.get("quality"),
        }
