"""GradProm: segmentation heads beside the enhancer.

Importing this needs numpy alone; `segment` loads torch when it is first called. Training is
`MedEnhanceLib.gradprom.train.train`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.gradprom.choice import open_head_for
from MedEnhanceLib.gradprom.config import HeadConfig, Label, SegmentConfig, TrainHeadConfig
from MedEnhanceLib.progress import Monitor, attend
from MedEnhanceLib.volume import Volume

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom.infer import Segmentation as Segmentation

__all__ = ["HeadConfig", "Label", "SegmentConfig", "TrainHeadConfig", "open_head_for", "segment"]


def segment(
    volume: Volume, config: SegmentConfig | None = None, *, monitor: Monitor | None = None
) -> Segmentation:
    """See MedEnhanceLib.gradprom.infer.segment."""
    wish = config or SegmentConfig()
    # Before seconds go into importing: a volume for which there is no head is refused at once.
    open_head_for(volume, wish)
    # The imports take seconds, in which a cancel is heard.
    for package in ("torch", "monai", "monai.networks.nets.unet"):
        attend(partial(require, package, purpose="Segmenting a volume"), monitor)
    from MedEnhanceLib.gradprom import infer

    return infer.segment(volume, config, monitor=monitor)
