"""The main jobs on a real scan that ships, compared with images that were measured again.

The scan is a part of ds000114 (CC0): 16 frames of a diffusion series. Frames without diffusion
weighting were measured seven times; three are in the scan, four are the reference, which the
enhancement does not see.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib import io, unicompress
from MedEnhanceLib.core.arrays import Array, Mask, foreground
from MedEnhanceLib.core.findings import verdict_on
from MedEnhanceLib.core.imaging import mean_frame
from MedEnhanceLib.core.manifest import as_json, make_manifest
from MedEnhanceLib.core.options import Params, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.error_left import beside_reference, squares_by_part
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import atomic_write, make_folder, write_json
from MedEnhanceLib.jobs.files import KeptVolumes, Result
from MedEnhanceLib.jobs.kinds.enhance import EnhanceParams, run_enhance
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.device import DEVICES
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.runtime.text import size_text
from MedEnhanceLib.unicompress.config import CompressConfig

if TYPE_CHECKING:
    from MedEnhanceLib.report.enhancement_page import Table
    from MedEnhanceLib.report.figures import Picture

SAMPLE, REPEATED, LICENSE = "dwi_ds000114", "dwi_ds000114_b0", "LICENSE-ds000114.txt"
#: What other methods leave of the error, measured by Testing/Benchmarks/demo_peers.py.
PEERS = "dwi_ds000114_peers.json"
#: Files of the sample, by what the record calls them.
INPUTS = {"input": f"{SAMPLE}.nii.gz", "reference": f"{REPEATED}.nii.gz"}
#: The input, as the page calls it.
NAME = "dwi_ds000114.nii.gz, a real diffusion scan"
#: What the result is compared with.
REFERENCE = (
    "Four further measurements of the image without diffusion weighting (b = 0) are the "
    "reference: the error is in the table below."
)
#: Signal of tissue over the median of the head, and of weighted over unweighted frames: fluid,
#: which pulsates from one measurement to the next, loses nearly all of it.
_TISSUE, _NO_FLUID = 0.5, 0.3
#: Upper end of the window of the picture, over the median of the head: tissue, not fluid.
_BRIGHTEST = 1.8
#: Voxels from the border of the head, where movement between measurements outweighs noise.
_FROM_BORDER = 2
_MEASURED = ("raw_bytes", "file_bytes", "ratio", "max_error", "psnr", "seconds", "verified")
_NOTES = (
    "The scan is real: its noise is that of the scanner, and nothing was simulated. It was "
    "enhanced with the default options.",
    "Error: root mean square difference from the mean of four further measurements of the images "
    "without diffusion weighting, less the noise of that mean; in tissue without fluid, two voxels "
    "or more inside the head. The enhancement did not see them.",
    "BM4D (told the noise that we measured) and MP-PCA were measured once, and do not run here.",
)


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
    _copy_sample(folder, overwrite)
    scan, repeated = load_scan()
    order = EnhanceParams(
        input=str(folder / "scan.nii.gz"),
        output=str(folder / "enhanced.nii.gz"),
        modality="MR",
        config=EnhanceConfig(device=params.device),
        overwrite=overwrite,
    )
    facts = run_enhance(order, monitor.part(0.0, 0.69), KeptVolumes())
    enhanced = io.load(folder / "enhanced.nii.gz", modality="MR")
    quality, in_head = _compared(scan, enhanced, repeated)
    file = folder / "scan-lossless.ucv"
    config, part = CompressConfig(lossless=True), monitor.part(0.69, 0.99)
    compressed = as_json(
        unicompress.compress(scan, file, config, monitor=part, overwrite=overwrite)
    )
    sizes = {key: compressed[key] for key in _MEASURED}
    results = {
        "verdict": str(verdict_on(facts["measured"]) or ""),
        "quality": quality,
        "compression": [{"mode": "lossless", "file": file.name} | sizes],
        "notes": [*_NOTES, in_head],
    }
    monitor.progress(0.99, "drawing the page")
    page = _write_page(folder, facts, results, (scan, enhanced, repeated), overwrite)
    shared = {"device": facts["device"], "seconds": round(time.monotonic() - began, 3)}
    manifest = make_manifest(
        "demo",
        config={"device": params.device},
        inputs=INPUTS,
        model=facts["model"],
        results=results,
        **shared,
    )
    place = folder / "results.json"
    write_json(place, manifest, overwrite=overwrite)
    outputs = {"page": str(page), "folder": str(folder)}
    return Result({"outputs": outputs, "manifest": str(place), **shared, **results})


def _compared(scan: Volume, enhanced: Volume, repeated: Volume) -> tuple[list[dict[str, Any]], str]:
    """Return rows of the error of scan, result and other methods, and a note on the whole head."""
    peers = json.loads((resource_folder("samples") / PEERS).read_text(encoding="utf-8"))
    errors = {
        "scan": error_of(scan, scan, repeated),
        "enhanced": error_of(enhanced, scan, repeated),
    }
    errors |= {f"{peer['name']}, measured before": peer["error"] for peer in peers}
    quality = [
        {"name": name, "error": error, "removed": round(1 - error / errors["scan"], 2)}
        for name, error in errors.items()
    ]
    del quality[0]["removed"]  # of the scan itself
    before, after = (error_of(v, scan, repeated, in_head=True) for v in (scan, enhanced))
    return quality, (
        "In the whole head, where fluid pulsates and edges move between measurements, the same "
        f"difference is {before:g} before and {after:g} after: most of it is no noise, and stays."
    )


def _write_page(
    folder: Path,
    facts: Result,
    results: dict[str, Any],
    volumes: tuple[Volume, Volume, Volume],
    overwrite: bool,
) -> Path:
    """Write the page; volumes: the scan, the result, and the further measurements."""
    from MedEnhanceLib.report.enhancement_page import enhancement_report
    from MedEnhanceLib.report.figures import comparison
    from MedEnhanceLib.report.frame_pictures import compared_panes

    scan, enhanced, _ = volumes
    return enhancement_report(
        folder,
        name=NAME,
        volume=scan,
        enhanced=enhanced,
        picture=comparison(compared_panes(scan, enhanced)),
        manifest=json.loads(Path(facts["manifest"]).read_text(encoding="utf-8")),
        comparisons=tables_of(results),
        reference=REFERENCE,
        beside_reference=_beside_reference(*volumes),
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


def load_scan() -> tuple[Volume, Volume]:
    """Return the scan, and four further measurements of its unweighted image."""
    samples = resource_folder("samples")
    scan, repeated = (
        io.load(samples / f"{name}.nii.gz", modality="MR") for name in (SAMPLE, REPEATED)
    )
    return scan, repeated


def error_of(volume: Volume, scan: Volume, repeated: Volume, *, in_head: bool = False) -> float:
    """Return the RMS error of the unweighted frames, without that of the reference.

    Args:
        volume: the scan or a result, [T, K, J, I].
        scan: with its gradients.
        repeated: further measurements of the unweighted image.
        in_head: in the whole head, with what moves; False: in tissue away from it.
    """
    frames = [number for number, each in enumerate(scan.gradients) if each.b_value == 0]
    truth = repeated.voxels.mean(axis=0, dtype=np.float64)
    tissue = _head_of(truth) if in_head else _tissue_of(scan, truth, frames)
    parts, again = tissue.astype(np.uint8), [*repeated.voxels]
    own = squares_by_part(again, [truth] * len(again), parts)[:, 1].mean() / (len(again) - 1)
    judged = [volume.voxels[number] for number in frames]
    square = squares_by_part(judged, [truth] * len(judged), parts)[:, 1].mean()
    return float(f"{np.sqrt(max(square - own, 0.0)):.3g}")


def _head_of(truth: Array) -> Mask:
    head: Mask = truth > _TISSUE * np.median(truth[foreground(truth)])
    return head


def _tissue_of(scan: Volume, truth: Array, unweighted: Sequence[int]) -> Mask:
    weighted = np.delete(scan.voxels, unweighted, axis=0).mean(axis=0, dtype=np.float64)
    sitk: Any = require("SimpleITK", purpose="The demo")
    head = sitk.GetImageFromArray(_head_of(truth).astype(np.uint8))
    for _step in range(_FROM_BORDER):
        head = sitk.BinaryErode(head, [1, 1, 1], sitk.sitkCross, 0, 1, boundaryToForeground=False)
    tissue: Mask = (sitk.GetArrayFromImage(head) > 0) & (weighted > _NO_FLUID * truth)
    return tissue


def _beside_reference(scan: Volume, enhanced: Volume, repeated: Volume) -> Picture:
    number = next(n for n, gradient in enumerate(scan.gradients) if gradient.b_value == 0)
    mean = mean_frame(repeated.frames())
    brightest = _BRIGHTEST * float(np.median(mean.voxels[foreground(mean.voxels)]))
    titles = "Measured once, b = 0", "Enhanced", "Enhanced − input", "Measured four more times"
    volumes = scan.frame(number), enhanced.frame(number), mean
    return beside_reference(*volumes, titles, window=(0, brightest))


def _copy_sample(folder: Path, overwrite: bool) -> None:
    """Write the files of the sample into the folder, under plain names."""
    samples = resource_folder("samples")
    names = {f"{SAMPLE}{ending}": f"scan{ending}" for ending in (".nii.gz", ".bval", ".bvec")}
    names |= {f"{REPEATED}.nii.gz": "repeated.nii.gz", LICENSE: LICENSE}
    for source, name in names.items():
        with atomic_write(folder / name, overwrite=overwrite) as temporary:
            temporary.write_bytes((samples / source).read_bytes())
