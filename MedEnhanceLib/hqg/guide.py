"""What can be a guide: a high-quality volume whose look an enhancement takes on.

Needs numpy alone, so that a wrong guide is refused before anything is loaded.
"""

from __future__ import annotations

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.findings import findings_of
from MedEnhanceLib.io.finite import refuse_not_finite


def check_guide(guide: Volume, modality: str) -> None:
    """Refuse what cannot guide a volume of `modality`.

    Raises InputError for a guide that shows nothing, one of another modality, a sequence, or one
    with NaN or infinity.
    """
    name = guide.source or "guide"
    is_known = bool(findings_of(guide).cues)  # it has guided before
    # First of all: the modality of a file that states none is guessed from what it shows.
    if not is_known:
        refuse_not_finite(guide)
        if guide.voxels.min() == guide.voxels.max():
            raise InputError(
                f"{name}: the guide is constant, every voxel is {guide.voxels.flat[0]:g}",
                "Choose a volume that shows something.",
            )
    if guide.modality != modality:
        raise InputError(
            f"{name}: the guide is {guide.modality}, the volume {modality}",
            "Choose a guide of the same modality.",
        )
    if guide.is_sequence:
        raise InputError(f"{name}: the guide is a sequence", "Choose a single volume, or a frame.")
