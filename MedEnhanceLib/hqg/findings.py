"""What a run measures of a whole volume before its first slice; kept for the next run if wished."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from MedEnhanceLib.core.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

    from MedEnhanceLib.hqg.range import Verdict
    from MedEnhanceLib.nets.intensity import Scaling


@dataclass
class Findings:
    """Filled by the first run over a volume, read by the following ones.

    scaling: of its intensities. contents: (hash of the model, device) → content vector. cues: hash
    of the model → cue, where the volume was a guide. verdicts: hash of the model → whether the
    volume looks like what it learned from.
    """

    scaling: Scaling | None = None
    floor: float = -math.inf
    contents: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    cues: dict[str, Tensor] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)


_KEPT: WeakKeyDictionary[Volume, Findings] = WeakKeyDictionary()


def keep_findings(volume: Volume) -> None:
    """Remember what runs find out about this very object, for as long as it lives.

    Only for volumes whose array nobody writes to meanwhile.
    """
    _KEPT.setdefault(volume, Findings())


def findings_of(volume: Volume) -> Findings:
    """What is known of a volume; nothing yet where it is not kept."""
    return _KEPT.get(volume) or Findings()
