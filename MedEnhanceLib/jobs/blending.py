"""The job that blends an enhanced volume with its input, without running the model again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from MedEnhanceLib.jobs.files import VolumeParams, check_volume_outputs, finish, load_volume
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.progress import Monitor


@dataclass(frozen=True, kw_only=True)
class BlendParams(VolumeParams):
    """enhanced: the file of the result at full strength. strength: 0 to 1.5 of its correction."""

    enhanced: str
    output: str
    strength: float
    overwrite: bool = False


def run_blend(params: BlendParams, monitor: Monitor) -> Result:
    """Load both → blend → save → manifest."""
    from MedEnhanceLib.hqg.strength import blend, check_strength
    from MedEnhanceLib.io import save

    began = time.monotonic()
    check_strength(params.strength)
    inputs = {"input": Path(params.input), "enhanced": Path(params.enhanced)}
    output = Path(params.output)
    check_volume_outputs(
        {"output": output}, inputs=list(inputs.values()), overwrite=params.overwrite
    )
    original = params.load(monitor.part(0.0, 0.4))
    enhanced = load_volume(
        inputs["enhanced"], modality=original.modality, monitor=monitor.part(0.4, 0.8)
    )
    blended = blend(original, enhanced, params.strength)
    monitor.progress(0.8, "save")
    save(blended, output, overwrite=params.overwrite, monitor=monitor)
    return finish(
        "blended",
        {"output": output},
        began=began,
        config={"strength": params.strength} | params.told(),
        inputs=inputs,
        figures={"strength": params.strength},
        source=original,
        overwrite=params.overwrite,
    )
