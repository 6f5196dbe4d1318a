"""The job that takes out of DICOM who it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.files import check_outputs, finish, manifest_path
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.runtime.progress import Monitor


@dataclass(frozen=True, kw_only=True)
class DeidentifyParams:
    """input: DICOM in a folder, zip, DICOMDIR, list or file. output: a folder, new or empty.

    mapping: the secret file that keeps a cohort consistent. keep_intervals: move dates instead of
    removing them. keep_characteristics: keep sex, age, size and weight. patient_id: of the only
    patient in the input; prefix: of numbered ones. allow_burned_in: write images that carry text
    too. overwrite: add to a folder that is not empty.
    """

    input: str
    output: str
    mapping: str | None = None
    keep_intervals: bool = False
    keep_characteristics: bool = False
    patient_id: str | None = None
    prefix: str | None = None
    allow_burned_in: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
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
