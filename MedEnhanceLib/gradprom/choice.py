"""Which head a volume is segmented with."""

from __future__ import annotations

from MedEnhanceLib.bundles import Bundle, open_bundle
from MedEnhanceLib.bundles.anatomy import doubt_about
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.config import SegmentConfig


def open_head_for(volume: Volume, config: SegmentConfig) -> tuple[Bundle, str]:
    """The head to use, and a doubt about it where the images say that they show another part.

    Raises ModelError where none fits, and where only a doubtful one does and nobody named it.
    """
    bundle = open_bundle(config.model, kind="head", modality=volume.modality)
    doubt = doubt_about(bundle, volume)
    if doubt and config.model == "auto":
        raise ModelError(
            f"there is no model that segments these images: {doubt.message}",
            f"If their header is wrong, name the model {bundle.name} (medenhance segment … --model "
            f"{bundle.name}, medenhance enhance … --head {bundle.name}; model= and head= in Python)"
            ".",
        )
    return bundle, doubt.message if doubt else ""
