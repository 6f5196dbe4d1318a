"""The job that blends an enhanced volume with its input, without running the model again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from MedEnhanceLib.core.options import About, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.jobs.files import (
    Result,
    VolumeParams,
    Work,
    check_volume_outputs,
    load_volume,
    manifest_path,
)
from MedEnhanceLib.runtime.progress import Monitor

#: Figures of an enhancement that hold at any strength.
_KEPT = ("doubts", "measured")


@dataclass(frozen=True, kw_only=True)
class BlendParams(VolumeParams):
    """Blend a volume with its enhancement."""

    enhanced: Annotated[
        str,
        About(help="what enhance made of INPUT, at strength 1", flag="ENHANCED", place="input"),
    ]
    output: Annotated[
        str,
        About(
            help=".nii.gz, .nii, .nrrd or .mha; an address too (s3://)",
            flag="OUTPUT",
            place="output",
        ),
    ]
    strength: Annotated[
        float,
        About(
            help="scales the correction in ENHANCED: 0 gives the input, 1 the enhanced volume",
            low=0,
            high=1,
            ranged=False,
            metavar="S",
        ),
    ]
    overwrite: bool = option(False, help="replace existing outputs", flag="--force")


def run_blend(params: BlendParams, monitor: Monitor) -> Result:
    """Load both → blend → save → manifest, with what that of the enhanced one records."""
    from MedEnhanceLib.hqg.strength import blend, refuse_swapped
    from MedEnhanceLib.io import save

    work = Work("blended", params)
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
    refuse_swapped(
        original, enhanced, original_is_enhanced=not made and bool(_made(inputs["input"], original))
    )
    blended = blend(original, enhanced, params.strength)
    monitor.progress(0.8, "save")
    save(blended, output, overwrite=params.overwrite, monitor=monitor)
    return work.finish(
        {"output": output},
        config={"strength": params.strength} | params.stated(),
        inputs=inputs,
        figures={"strength": params.strength, "history": list(blended.history)}
        | {name: figure for name, figure in made.get("results", {}).items() if name in _KEPT},
        model=made.get("model"),
        source=original,
    )


def _made(path: Path, volume: Volume) -> Mapping[str, Any]:
    """The manifest of the enhancement that made `volume`, from beside its file; else empty."""
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
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
