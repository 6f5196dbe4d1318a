"""The job that measures a scanner from two folders of volumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np

from MedEnhanceLib import io
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.modality import ModalityName
from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.errors import DeviceMemoryError, InputError
from MedEnhanceLib.io.atomic import make_folder, refuse_existing, write_json
from MedEnhanceLib.jobs.batch_items import gather
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.report.figures import Pane, Picture, comparison
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.check import measure_scanner
from MedEnhanceLib.scanner.page import summary_of, write_scanner_page
from MedEnhanceLib.scanner.scanner import Scanner


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
    began, folder = time.monotonic(), Path(params.out)
    require("matplotlib", purpose="Drawing the page")
    refuse_existing(folder / "scanner.json", params.overwrite)
    refuse_shared(params.low_quality, params.high_quality)
    low, good = (
        volumes_in(place, params.modality, monitor)
        for place in (params.low_quality, params.high_quality)
    )
    scanner = measure_scanner(low, good, without_noise, monitor.part(0.0, 0.95))
    make_folder(params.out)
    write_json(folder / "scanner.json", scanner.to_json(), overwrite=params.overwrite)
    monitor.progress(0.95, "drawing the page")
    examples = _examples(scanner, low, good, monitor)
    page = write_scanner_page(scanner, folder, examples=examples, overwrite=params.overwrite)
    outputs = {"scanner": str(folder / "scanner.json"), "page": str(page)}
    seconds, sentence = round(time.monotonic() - began, 3), summary_of(scanner)
    return Result({"outputs": outputs, "seconds": seconds, "sentence": sentence})


def _examples(
    scanner: Scanner, low: Iterable[Volume], good: Iterable[Volume], monitor: Monitor
) -> dict[str, Picture]:
    """Draw the first scan before and after inversion, and the first volume of high quality.

    Draws nothing where nothing is inverted.
    """
    if not scanner.applies:
        return {}
    pools = (low, scanner.low_quality), (good, scanner.high_quality)
    scan, high = (next(v for v in vs if v.path.name in pool.files) for vs, pool in pools)
    quiet = Monitor(cancel=lambda: monitor.cancelled)  # the warnings are those of the pools
    try:
        inverted = enhance(scan, EnhanceConfig(scanner=scanner), monitor=quiet).volume
    except (InputError, DeviceMemoryError) as cause:
        monitor.warn(f"no example is shown: {cause.message}")
        return {}
    return {
        "example.png": comparison([Pane("Scan", scan), Pane("Inverted", inverted)]),
        "high-quality.png": comparison([Pane("High quality", high)]),
    }


def without_noise(scan: Volume) -> tuple[Floats, float]:
    """Remove the noise of a simulated scan; returns the result and σ."""
    result = enhance(scan, EnhanceConfig(denoiser="block-matching", device="cpu"))
    return result.volume.voxels.astype(np.float32), result.noises[0].level


def refuse_shared(low_quality: str, high_quality: str) -> None:
    """Raise InputError for two folders that are the same, or of which one is in the other."""
    low, good = (Path(place).resolve() for place in (low_quality, high_quality))
    if low == good or low in good.parents or good in low.parents:
        raise InputError(
            f"{low_quality} and {high_quality} hold the same volumes",
            "Name two folders that lie apart: the scanner's, and that of high quality.",
        )


@dataclass(frozen=True)
class LoadedInTurn:
    """Volumes of a known number, each loaded when it is its turn."""

    loads: Sequence[Callable[[], Volume]]

    def __len__(self) -> int:
        return len(self.loads)

    def __iter__(self) -> Iterator[Volume]:
        return (load() for load in self.loads)


def volumes_in(place: str, modality: str | None, monitor: Monitor) -> LoadedInTurn:
    """Find the volumes below a folder, as `batch` does.

    Args:
        place: the folder.
        modality: of all; None: as each states.
        monitor: receives warnings; may cancel.
    """
    out, monitor = Path(place).resolve() / "none", monitor.without_progress()
    items = gather([place], out, containers=True, ending=".nii.gz", monitor=monitor)
    load = partial(io.load, modality=modality, monitor=monitor)
    return LoadedInTurn([partial(load, item.source, series=item.series or None) for item in items])
