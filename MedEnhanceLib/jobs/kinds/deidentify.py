"""The job that takes out of DICOM who it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.files import Result, check_outputs, finish, manifest_path
from MedEnhanceLib.runtime.progress import Monitor


@dataclass(frozen=True, kw_only=True)
class DeidentifyParams(Params):
    """De-identify DICOM."""

    input: Annotated[
        str, About(help="DICOM: a folder, zip, DICOMDIR, list of files, or a file", flag="INPUT")
    ]
    output: Annotated[str, About(help="the folder, new or empty", flag="OUTPUT")]
    mapping: str | None = option(
        None,
        help="secret file that keeps names and UIDs the same over several runs, made where it is "
        "not there; whoever has it can find the patients (default: nothing is kept)",
        metavar="FILE",
    )
    keep_intervals: bool = option(
        False,
        help="move all dates of a patient by the same secret number of days instead of removing "
        "them; times of day stay",
    )
    keep_characteristics: bool = option(
        False,
        help="keep sex, age, size and weight; SUV of PET needs the weight, and --keep-intervals",
    )
    patient_id: str | None = option(
        None,
        help="what the one patient of INPUT is called (default: ANON-0001, …)",
        metavar="ID",
    )
    prefix: str | None = option(None, help="before the number (default: ANON)", metavar="P")
    allow_burned_in: bool = option(
        False,
        help="write images too that carry text, or likely do, after you have looked at them",
    )
    overwrite: bool = option(False, help="replace existing outputs", flag="--force")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patient_id is not None and self.prefix is not None:
            raise ConfigError("deidentify: patient_id and prefix exclude each other", "Give one.")


def run_deidentify(params: DeidentifyParams, monitor: Monitor) -> Result:
    """Clean every file → folder; report and manifest beside it, as they name source files."""
    from MedEnhanceLib.io.atomic import atomic_write, refuse_existing
    from MedEnhanceLib.io.deidentify import deidentify
    from MedEnhanceLib.io.deidentify.patients import PREFIX

    began = time.monotonic()
    source, output = Path(params.input), Path(params.output)
    table = output.with_name(f"{output.name}.txt")
    _check_mapping(params, [table, manifest_path(output)])
    check_outputs({"report": table}, inputs=[source], overwrite=params.overwrite)
    refuse_existing(manifest_path(output), params.overwrite)
    report = deidentify(
        source,
        output,
        mapping=params.mapping,
        keep_intervals=params.keep_intervals,
        keep_characteristics=params.keep_characteristics,
        patient_id=params.patient_id,
        prefix=params.prefix or PREFIX,
        allow_burned_in=params.allow_burned_in,
        overwrite=params.overwrite,
        monitor=monitor,
    )
    with atomic_write(table, overwrite=params.overwrite) as temporary:
        temporary.write_text(report.to_text(), encoding="utf-8")
    return finish(
        "de-identified",
        {"output": output, "report": table},
        began=began,
        config={
            "keep_intervals": params.keep_intervals,
            "keep_characteristics": params.keep_characteristics,
            "allow_burned_in": params.allow_burned_in,
            "with_mapping": params.mapping is not None,
        },
        inputs={"input": source},
        figures=report.to_json(),
        overwrite=params.overwrite,
    )


def _check_mapping(params: DeidentifyParams, reports: list[Path]) -> None:
    """A report over the mapping would take everybody's way back to the patients."""
    if params.mapping is None:
        return
    mapping = Path(params.mapping).resolve()
    for report in reports:
        if mapping == report.resolve():
            raise ConfigError(
                f"{params.mapping}: the report of what is done goes there",
                "Give the mapping another name.",
            )
