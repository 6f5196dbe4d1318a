"""The main jobs on a real scan that ships."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.manifest import as_json, make_manifest
from MedEnhanceLib.core.options import Params, option
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import make_folder, write_json
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.jobs.kinds.demo_scan import INPUTS, NAME, REFERENCE, DemoRun, run_scan
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.device import DEVICES
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import size_text

if TYPE_CHECKING:
    from MedEnhanceLib.report.enhancement_page import Table


@dataclass(frozen=True, kw_only=True)
class DemoParams(Params):
    """Run the main jobs on a scan that ships."""

    out: str = option(
        "medenhance-demo", help="the folder, new or empty", flag="OUT", place="folder"
    )
    device: str = option("auto", help=DEVICES, metavar="D")
    overwrite: bool = option(
        False, help="replace the files of an earlier demo in OUT", flag="--force"
    )


def run_demo(params: DemoParams, monitor: Monitor) -> Result:
    """Enhance the scan, compare it with its reference, compress it, and write the page."""
    require("matplotlib", purpose="Drawing the demo's pictures")
    began, overwrite, folder = time.monotonic(), params.overwrite, make_folder(params.out)
    if any(folder.iterdir()) and not overwrite:
        raise OutputError(
            f"{folder} exists already and is not empty",
            "Name another folder: medenhance demo FOLDER. "
            "Or replace the files of an earlier demo: --force.",
        )
    ran = run_scan(folder, params.device, monitor.part(0.0, 0.99), overwrite=overwrite)
    monitor.progress(0.99, "drawing the page")
    results = as_json(ran.results)
    page = _write_page(folder, ran, results, overwrite)
    seconds = round(time.monotonic() - began, 3)
    manifest = make_manifest(
        "demo",
        config={"device": params.device},
        inputs=INPUTS,
        device=ran.facts["device"],
        seconds=seconds,
        model=ran.facts["model"],
        results=results,
    )
    write_json(folder / "results.json", manifest, overwrite=overwrite)
    return Result(
        {
            "outputs": {"page": str(page), "folder": str(folder)},
            "manifest": str(folder / "results.json"),
            "device": ran.facts["device"],
            "seconds": seconds,
            **results,
        }
    )


def _write_page(folder: Path, ran: DemoRun, results: dict[str, Any], overwrite: bool) -> Path:
    from MedEnhanceLib.report.enhancement_page import enhancement_report
    from MedEnhanceLib.report.figures import comparison

    return enhancement_report(
        folder,
        name=NAME,
        volume=ran.before,
        enhanced=ran.after,
        picture=comparison(ran.panes),
        manifest=json.loads(Path(ran.facts["manifest"]).read_text(encoding="utf-8")),
        comparisons=tables_of(results),
        reference=REFERENCE,
        beside_reference=comparison(ran.beside_reference),
        shown=ran.shown,
        overwrite=overwrite,
    )


def tables_of(results: Mapping[str, Any]) -> list[Table]:
    """Make the tables of quality before and after enhancement, and of the files."""
    from MedEnhanceLib.report.enhancement_page import Table

    quality = {"name": "volume", "error": "error", "removed": "of it removed"}
    rows = [
        {**row, "removed": f"{100 * row['removed']:.0f} %" if "removed" in row else "–"}
        for row in results["quality"]
    ]
    files = {"file": "file", "mode": "mode", "voxels": "voxels", "size": "size", "ratio": "ratio"}
    files |= {"max_error": "largest error", "psnr": "PSNR, dB"}
    sizes = [
        {**row, "voxels": size_text(row["raw_bytes"]), "size": size_text(row["file_bytes"])}
        for row in results["compression"]
    ]
    return [
        Table(
            "Against further measurements of the same head",
            quality,
            rows,
            " ".join(results["notes"]),
        ),
        Table("Compression, measured on each file", files, sizes),
    ]
