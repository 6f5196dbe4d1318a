"""Modality, units, geometry and history of a volume as one line of text for a file's header.

One JSON object in ASCII, the same in every format: NIfTI keeps it in a header extension, NRRD and
MetaImage under the key KEY. Its field DERIVED holds the history, so that a derived file says so.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.exchange import unstated_time_unit
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.core.sequence_kind import known_kind
from MedEnhanceLib.core.volume import MODALITIES, Volume
from MedEnhanceLib.errors import GeometryError
from MedEnhanceLib.io.json_input import parse_json
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import printable

KEY = "MedEnhance"
#: Begin of the keys of segments of 3D Slicer, which NRRD keeps by itself.
SEGMENT = "Segment"
#: Exceptions for text that MedEnhance did not write, or that is damaged.
_MALFORMED = (
    ValueError, TypeError, LookupError, AttributeError, OverflowError, GeometryError,
)  # fmt: skip
#: Newest steps, and frames with gradients, that are kept: MetaImage readers keep lines in buffers
#: of 32 KiB.
_MOST_STEPS, MOST_GRADIENTS = 50, 300


@dataclass(frozen=True)
class Tags:
    """Facts that image headers have no field for; None if the file does not say.

    Attributes:
        source: the original file's name, if this file only carries the volume to a worker.
    """

    modality: str | None = None
    modality_is_guess: bool = False
    units: str = ""
    history: tuple[str, ...] = ()
    frame_interval_s: float | None = None
    geometry: Geometry | None = None
    source: str = ""
    lossy: tuple[Lossy, ...] = ()
    gradients: tuple[Gradient, ...] = ()
    quantity: str = ""
    sequence_kind: str = ""
    header_fields: dict[str, Any] = field(default_factory=dict)


def warn_of_segments(volume: Volume, monitor: Monitor) -> None:
    """Warn of a result that does not keep names and colors of segments; NRRD alone does."""
    fields = volume.header_fields.items()
    if names := [str(text) for key, text in fields if re.fullmatch(r"Segment\d+_Name", key)]:
        text = "names and colors of segments are not kept, as NRRD alone has a place for them"
        monitor.warn(f"{text}: {', '.join(names)}")


def to_text(volume: Volume) -> str:
    """Return the line to write for `volume`: JSON in ASCII."""
    fields = {
        "modality": volume.modality,
        "units": volume.units,
        "geometry": volume.geometry.to_json(),
    }
    earlier = len(volume.history) - _MOST_STEPS
    note = [f"{earlier} earlier steps, too many to keep"] if earlier > 0 else []
    gradients = volume.gradients if len(volume.gradients) <= MOST_GRADIENTS else ()
    optional = {
        "DERIVED": [*note, *volume.history[-_MOST_STEPS:]],
        "modality_is_guess": volume.modality_is_guess,
        "quantity": volume.quantity,
        "sequence_kind": volume.sequence_kind,
        "frame_interval_s": volume.frame_interval_s,
        "lossy": [[step.method, step.ratio] for step in volume.lossy],
        "gradients": [[each.b_value, *each.direction] for each in gradients],
        "header_fields": {
            key: value for key, value in volume.header_fields.items() if not key.startswith(SEGMENT)
        },
    }
    return json.dumps(fields | {key: value for key, value in optional.items() if value})


def from_text(text: str) -> Tags:
    """Parse the text of `to_text`; other or damaged text gives empty Tags."""
    try:
        fields = parse_json(text)
        seconds, geometry = fields.get("frame_interval_s"), fields.get("geometry")
        if fields["modality"] not in MODALITIES or not (seconds is None or 0 < seconds < math.inf):
            return Tags()
        return Tags(
            modality=fields["modality"],
            modality_is_guess=fields.get("modality_is_guess") is True,
            units=printable(str(fields.get("units", ""))),
            history=tuple(printable(str(step)) for step in fields.get("DERIVED") or ()),
            frame_interval_s=None if seconds is None else float(seconds),
            geometry=None if geometry is None else Geometry.from_json(geometry),
            source=str(fields.get("source", "")),
            quantity=printable(str(fields.get("quantity", ""))),
            sequence_kind=known_kind(str(fields.get("sequence_kind", ""))),
            lossy=tuple(
                Lossy(printable(str(method)), float(ratio))
                for method, ratio in fields.get("lossy") or ()
            ),
            gradients=tuple(
                Gradient(float(b_value), (float(x), float(y), float(z)))
                for b_value, x, y, z in fields.get("gradients") or ()
            ),
            header_fields=dict(fields.get("header_fields") or {}),
        )
    except _MALFORMED:
        return Tags()


def exact_geometry(read: Geometry, facts: Tags) -> Geometry:
    """Return the tags' geometry, to the last bit, unless a program changed the header."""
    exact = facts.geometry
    return exact if exact is not None and exact.is_close(read, 1e-12) else read


def frame_interval(
    number: float, unit: float | None, facts: Tags, field: str, monitor: Monitor
) -> float | None:
    """Return the seconds between frames from a header's number; None if it states no time.

    Args:
        number: as in the header; NaN if it has none.
        unit: in seconds; 0 if it is not one of time; None if none is named, see
            `unstated_time_unit`.
        facts: its exact interval is used unless another program changed the number.
        field: its name in the header, for warnings.
        monitor: warned of a missing unit.
    """
    if math.isnan(number):
        return facts.frame_interval_s
    if math.isinf(number) or number == 0:
        return None
    if number < 0 or unit == 0:
        monitor.warn(f"{field} is {number:g}, which is no interval in time: it is not kept")
        return None
    exact = facts.frame_interval_s
    if facts.geometry is not None and exact is None and number == 1:
        return None  # written where ITK needs a number
    if exact is not None and math.isclose(number * (unit or 1.0), exact, rel_tol=1e-7):
        return exact
    if unit is None:
        unit = unstated_time_unit(number)
        if unit < 1:
            monitor.warn(f"{field} is {number:g} without a unit: taken as milliseconds")
    return number * unit


def short_note(history: tuple[str, ...], limit: int) -> str:
    """Write the newest step in at most `limit` ASCII characters, beginning with DERIVED."""
    if not history:
        return ""
    newest = history[-1].replace("±", "+/-").encode("ascii", "replace").decode()
    note = newest if newest.startswith("DERIVED") else f"DERIVED: {newest}"
    return note if len(note) <= limit else note[: limit - 3] + "..."
