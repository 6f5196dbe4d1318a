"""The job that blends an enhanced volume with its input, without running the model again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.jobs.files import (
    VolumeParams,
    check_volume_outputs,
    finish,
    load_volume,
    manifest_path,
)
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.runtime.progress import Monitor

#: Figures of an enhancement that hold at any strength.
_KEPT = ("doubts", "range")


@dataclass(frozen=True, kw_only=True)
class BlendParams(VolumeParams):
    """enhanced: the file of the result at full strength. strength: 0 to 1.5 of its correction."""

    enhanced: str
    output: str
    strength: float
    overwrite: bool = False


def run_blend(params: BlendParams, monitor: Monitor) -> Result:
    """Load both → blend → save → manifest, with what that of the enhanced one tells."""
    from MedEnhanceLib.hqg.strength import blend, check_strength, refuse_swapped
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
    made = _made(inputs["enhanced"], enhanced)
    refuse_swapped(original, enhanced, told=not made and bool(_made(inputs["input"], original)))
    blended = blend(original, enhanced, params.strength)
    monitor.progress(0.8, "save")
    save(blended, output, overwrite=params.overwrite, monitor=monitor)
    return finish(
        "blended",
        {"output": output},
        began=began,
        config={"strength": params.strength} | params.told(),
        inputs=inputs,
        figures={"strength": params.strength, "history": list(blended.history)}
        | {name: told for name, told in made.get("results", {}).items() if name in _KEPT},
        model=made.get("model"),
        source=original,
        overwrite=params.overwrite,
    )


def _made(path: Path, volume: Volume) -> Mapping[str, Any]:
    """The manifest of the enhancement that made `volume`, from beside its file; else empty."""
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(manifest, dict) or manifest.get("action") != "enhanced":
        return {}
    parts = (manifest.get("model"), manifest.get("results"))
    if not all(isinstance(part, dict) for part in parts):
        return {}
    # The file may have been exchanged since: its own history names the weights.
    model = str(manifest["model"].get("sha256", ""))[:12]
    steps = [step for step in volume.history if step.startswith("DERIVED: enhanced with")]
    return manifest if not steps or model in steps[-1] else {}
