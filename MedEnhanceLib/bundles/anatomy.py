"""Whether images show what a model learned from, as far as both say."""

from __future__ import annotations

from MedEnhanceLib.bundles.doubt import Doubt
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.volume import Volume

#: What BodyPartExamined holds where an anatomy is in the picture: terms of DICOM, and scanners'.
_SHOWN_IN = {"brain": ("BRAIN", "HEAD", "SKULL", "CEREB", "NEURO", "WHOLEBODY")}


def doubt_about(bundle: Bundle, volume: Volume) -> Doubt | None:
    """A doubt where images of DICOM say that they show another part; else None."""
    part = volume.origin.body_part if volume.origin else ""
    shown_in = _SHOWN_IN.get(bundle.anatomy, ())
    if not part or not shown_in or any(term in part.upper() for term in shown_in):
        return None
    return Doubt(
        "anatomy",
        f"{bundle.name} learned from images of the {bundle.anatomy} only, and these say that they "
        f"show {part} (BodyPartExamined)",
        "look closely at what comes out",
    )
