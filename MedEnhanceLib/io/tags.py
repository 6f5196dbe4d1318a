"""Modality, units, geometry and history of a volume as one line of text for a file's header.

One JSON object in ASCII, the same in every format: NIfTI keeps it in a header extension, NRRD and
MetaImage under the key KEY. Its field DERIVED holds the history, so that a derived file says so.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.core.volume import MODALITIES, Volume
from MedEnhanceLib.errors import GeometryError
from MedEnhanceLib.runtime.text import printable

KEY = "MedEnhance"
#: MetaImage readers keep lines in buffers of 32 KiB.
_LONGEST_HISTORY = 12_000


@dataclass(frozen=True)
class Tags:
    """What image headers have no field for; None if the file does not say."""

    modality: str | None = None
    units: str = ""
    history: tuple[str, ...] = ()
    frame_interval_s: float | None = None
    geometry: Geometry | None = None
    #: The original file's name, if this file only carries the volume to a worker.
    source: str = ""
    lossy: tuple[Lossy, ...] = ()


def to_text(volume: Volume) -> str:
    """The line to write for `volume`: JSON in ASCII."""
    fields: dict[str, Any] = {
        "modality": volume.modality,
        "units": volume.units,
        "geometry": volume.geometry.to_json(),
    }
    if volume.history:
        fields["DERIVED"] = _newest(volume.history)
    if volume.frame_interval_s is not None:
        fields["frame_interval_s"] = volume.frame_interval_s
    if volume.lossy:
        fields["lossy"] = [[step.method, step.ratio] for step in volume.lossy]
    return json.dumps(fields)


def from_text(text: str) -> Tags:
    """The inverse of `to_text`; other or damaged text gives empty Tags."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return Tags()
    if not isinstance(fields, dict) or fields.get("modality") not in MODALITIES:
        return Tags()
    history = fields.get("DERIVED", [])
    return Tags(
        modality=fields["modality"],
        units=printable(str(fields.get("units", ""))),
        history=tuple(printable(str(step)) for step in history)
        if isinstance(history, list)
        else (),
        frame_interval_s=_positive(fields.get("frame_interval_s")),
        geometry=_geometry(fields.get("geometry")),
        source=str(fields.get("source", "")),
        lossy=_lossy(fields.get("lossy")),
    )


def short_note(history: tuple[str, ...], limit: int) -> str:
    """The newest step in at most `limit` ASCII characters, beginning with DERIVED; "" if none."""
    if not history:
        return ""
    newest = history[-1].encode("ascii", "replace").decode()
    note = newest if newest.startswith("DERIVED") else f"DERIVED: {newest}"
    return note if len(note) <= limit else note[: limit - 3] + "..."


def _lossy(steps: Any) -> tuple[Lossy, ...]:
    """Every step that can be read; without a readable ratio it still counts as lossy."""
    pairs = [step for step in steps if isinstance(step, list)] if isinstance(steps, list) else []
    return tuple(
        Lossy(printable(str(method)), _positive(ratio) or 1.0)
        for method, ratio in (pair for pair in pairs if len(pair) == 2)
    )


def _positive(value: Any) -> float | None:
    """A number above 0; None for anything else that a header may hold."""
    is_number = isinstance(value, int | float) and 0 < value < sys.float_info.max
    return float(value) if is_number else None


def _newest(history: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    room = _LONGEST_HISTORY
    for step in reversed(history):
        room -= len(json.dumps(step)) + 2
        if room < 0:
            return [f"{len(history) - len(kept)} earlier steps, too long to keep", *kept]
        kept.insert(0, step)
    return kept


def _geometry(fields: Any) -> Geometry | None:
    try:
        return Geometry.from_json(fields)
    except GeometryError:
        return None
