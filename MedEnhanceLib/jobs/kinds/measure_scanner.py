"""The job that measures a scanner from two folders of volumes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from MedEnhanceLib import io
from MedEnhanceLib.core.modality import ModalityName
from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.atomic import make_folder, refuse_existing, write_json
from MedEnhanceLib.jobs.batch_items import gather
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.measure import measure_scanner
from MedEnhanceLib.scanner.page import summary_of, write_scanner_page


@dataclass(frozen=True, kw_only=True)
class ScannerParams(Params):
    """Measure how one source of volumes differs from another."""

    low_quality: Annotated[
        str, About(help="folder with volumes of the scanner", flag="LOW", place="input")
    ]
    high_quality: Annotated[
        str,
        About(
            help="folder with volumes of high quality, of the same body part and other patients",
            flag="--high-quality",
            place="input",
        ),
    ]
    out: Annotated[
        str, About(help="folder of scanner.json and the page", flag="--out", place="folder")
    ]
    modality: ModalityName | None = option(None, help="MR or CT, if missing or wrong", metavar="M")
    overwrite: bool = option(False, help="replace an earlier measurement", flag="--force")


def run_scanner(params: ScannerParams, monitor: Monitor) -> Result:
    """Measure both folders, write scanner.json and the page."""
    began, folder = time.monotonic(), make_folder(params.out)
    require("matplotlib", purpose="Drawing the page")
    refuse_existing(folder / "scanner.json", params.overwrite)
    low, good = (
        volumes_in(place, params.modality, monitor)
        for place in (params.low_quality, params.high_quality)
    )
    scanner = measure_scanner(low, good, monitor.part(0.0, 0.95))
    monitor.progress(0.95, "drawing the page")
    write_json(folder / "scanner.json", scanner.to_json(), overwrite=params.overwrite)
    page = write_scanner_page(scanner, folder, overwrite=params.overwrite)
    outputs = {"scanner": str(folder / "scanner.json"), "page": str(page)}
    seconds, sentence = round(time.monotonic() - began, 3), summary_of(scanner)
    return Result({"outputs": outputs, "seconds": seconds, "sentence": sentence})


def volumes_in(place: str, modality: str | None, monitor: Monitor) -> Iterator[Volume]:
    """Load the volumes below a folder one by one, as `batch` finds them.

    Args:
        place: the folder.
        modality: of all; None: as each states.
        monitor: may cancel.
    """
    out = Path(place).resolve() / "none"
    items = gather([place], out, containers=True, ending=".nii.gz", monitor=monitor)
    return (
        io.load(item.source, modality=modality, series=item.series or None, monitor=monitor)
        for item in items
    )
