"""The job that blends an enhanced volume with its input, without running the model again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from MedEnhanceLib.core.options import About, option
from MedEnhanceLib.jobs.files import (
    Result,
    VolumeParams,
    Work,
    check_volume_outputs,
    load_volume,
)
from MedEnhanceLib.runtime.progress import Monitor


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
    """Load both → blend → save → manifest with the history, which names the model."""
    from MedEnhanceLib.hqg.strength import blend
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
    blended = blend(original, enhanced, params.strength)
    monitor.progress(0.8, "save")
    save(blended, output, overwrite=params.overwrite, monitor=monitor)
    return work.finish(
        {"output": output},
        config={"strength": params.strength} | params.stated(),
        inputs=inputs,
        figures={"strength": params.strength, "history": list(blended.history)},
        source=original,
    )
