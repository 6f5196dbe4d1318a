"""The main jobs on a shipped sample: a real scan, or a template with simulated damage."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from MedEnhanceLib import gradprom, io
from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.manifest import as_json, make_manifest
from MedEnhanceLib.core.options import Params, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.gradprom.config import SegmentConfig
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.io.atomic import atomic_write, make_folder, write_json
from MedEnhanceLib.jobs.files import KeptVolumes, Result
from MedEnhanceLib.jobs.kinds.demo_scan import DemoRun, compressed, run_scan
from MedEnhanceLib.jobs.kinds.enhance import EnhanceParams, run_enhance
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.device import DEVICES
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.runtime.text import size_text
from MedEnhanceLib.unicompress.config import CompressConfig

if TYPE_CHECKING:
    from MedEnhanceLib.report.enhancement_page import Table

SEED = 20240607
LICENCE = "LICENSE-MNI152.txt"
#: Without noise the sample shrinks to a 28th without loss, so a lower ratio would lose nothing.
_MODES = {
    "lossless": CompressConfig(lossless=True),
    "max-error-2": CompressConfig(max_error=2.0),
    "ratio-64": CompressConfig(ratio=64.0, speed="fast"),
}
#: Value of a tissue in the sample's labels → its name, and words in the names of its structures.
_TISSUES = {
    2: ("gray matter", "gray|cortex|thalamus|caudate|putamen|hippocampus|amygdala"),
    3: ("white matter", "white|brainstem|pallidum|ventral"),
}
_NOTES = (
    "The noise is simulated, because only a volume without it tells the error of every voxel: the "
    "sample was damaged by a bias field of ±30 %, a blur (1 SD is 0.8 pixels, in addition to "
    "the sample's own) and Rician noise (1 SD is 7 % of the brightest tissue). It was enhanced "
    "with --correct-bias-field; the default removes noise alone, and blur stays in any case.",
    "The sample is the average of 152 brains: it shows no single person, and it has less noise "
    "and less detail than a scan of one person, so expect other numbers on your own volumes.",
    "Dice is that of two tissues, against the template's labels: gray matter with the nuclei, and "
    "white matter with brainstem and pallidum. The segmentation model learned from label maps of "
    "other heads.",
)


@dataclass(frozen=True, kw_only=True)
class DemoParams(Params):
    """Run the main jobs on a sample that ships."""

    out: str = option(
        "medenhance-demo", help="the folder, new or empty", flag="OUT", place="folder"
    )
    sample: Literal["scan", "template"] = option(
        "scan",
        help="scan: a real diffusion scan, enhanced and compared with further measurements; "
        "template: an average brain with simulated damage, enhanced and segmented",
    )
    device: str = option("auto", help=DEVICES, metavar="D")
    overwrite: bool = option(
        False, help="replace the files of an earlier demo in OUT", flag="--force"
    )


def run_demo(params: DemoParams, monitor: Monitor) -> Result:
    """Enhance a sample, compare it with its reference, compress it, and write the page."""
    require("matplotlib", purpose="Drawing the demo's pictures")
    began, overwrite, folder = time.monotonic(), params.overwrite, make_folder(params.out)
    if any(folder.iterdir()) and not overwrite:
        raise OutputError(
            f"{folder} exists already and is not empty",
            "Name another folder: medenhance demo FOLDER. "
            "Or replace the files of an earlier demo: --force.",
        )
    run = run_scan if params.sample == "scan" else _run_template
    ran = run(folder, params.device, monitor.part(0.0, 0.99), overwrite=overwrite)
    monitor.progress(0.99, "drawing the page")
    results = as_json(ran.results)
    page = _write_page(folder, ran, results, overwrite)
    seconds = round(time.monotonic() - began, 3)
    manifest = make_manifest(
        "demo",
        config={"seed": SEED, "sample": params.sample, "device": params.device},
        inputs=dict(zip(("input", "reference"), ran.inputs, strict=True)),
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


def _run_template(folder: Path, device: str, monitor: Monitor, *, overwrite: bool) -> DemoRun:
    """Damage → enhance and segment → compress, which verifies each file → measure.

    PSNR in dB and SSIM are inside the brain, against the undamaged volume. Arguments of `run_scan`.
    """
    from MedEnhanceLib.report.figures import Pane

    monitor.progress(0.0, "degrading the sample")
    undamaged, labels, damaged = _write_sample(folder, overwrite)
    order = EnhanceParams(
        input=str(folder / "damaged.nii.gz"),
        output=str(folder / "enhanced.nii.gz"),
        modality="MR",
        config=EnhanceConfig(model="mr", device=device, correct_bias_field=True),
        segment=True,
        overwrite=overwrite,
    )
    facts = run_enhance(order, monitor.part(0.05, 0.65), KeptVolumes())
    part = monitor.part(0.65, 0.75)
    before = gradprom.segment(damaged, SegmentConfig(device=device), monitor=part).volume
    enhanced, after = (
        io.load(Path(facts["outputs"][name]), modality=modality)
        for name, modality in (("output", "MR"), ("segmentation", "SEG"))
    )
    quality = [
        {"name": name} | _quality_of(*pair, undamaged, labels, facts["labels"])
        for name, pair in {"damaged": (damaged, before), "enhanced": (enhanced, after)}.items()
    ]
    part = monitor.part(0.75, 1.0)
    files = compressed(enhanced, "enhanced", _MODES, folder, overwrite, part)
    return DemoRun(
        facts=facts,
        results={"quality": quality, "compression": files, "notes": _NOTES},
        name="mni152_t1.nii.gz, a sample with simulated damage",
        before=damaged,
        after=enhanced,
        panes=[
            Pane("Undamaged", undamaged),
            Pane("Damaged", damaged),
            Pane("Enhanced", enhanced),
            Pane("Enhanced − damaged", enhanced, minus=damaged),
            Pane("Segmentation", enhanced, labels=after),
        ],
        reference="The undamaged sample is the reference: the damage is described below its table.",
        inputs=("mni152_t1.nii.gz", "mni152_tissue.nii.gz"),
    )


def _write_sample(folder: Path, overwrite: bool) -> tuple[Volume, Volume, Volume]:
    """Write the sample, its labels and a damaged copy, and return them."""
    from MedEnhanceLib.degradation.pipeline import standard_composite

    undamaged, labels = load_sample()
    damaged = standard_composite(SEED).apply(undamaged, keep_dtype=True)
    for name, volume in (("undamaged", undamaged), ("labels", labels), ("damaged", damaged)):
        io.save(volume, folder / f"{name}.nii.gz", overwrite=overwrite)
    with atomic_write(folder / LICENCE, overwrite=overwrite) as temporary:
        temporary.write_bytes((resource_folder("samples") / LICENCE).read_bytes())
    return undamaged, labels, damaged


def _quality_of(
    volume: Volume,
    segmented: Volume,
    undamaged: Volume,
    labels: Volume,
    structures: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Compare a volume and its tissues with the sample, inside the brain."""
    brain = labels.voxels > 0
    tissue_of = np.zeros(256, np.uint8)
    for value, (_, words) in _TISSUES.items():
        for label in structures:
            if re.search(words, label["name"], re.I):
                tissue_of[label["value"]] = value
    tissues = tissue_of[segmented.voxels]
    return {
        "psnr_db": metrics.psnr(undamaged.voxels, volume.voxels, mask=brain),
        "ssim": metrics.ssim(undamaged.voxels, volume.voxels, mask=brain),
        "dice": {
            name: metrics.dice(labels.voxels, tissues, value)
            for value, (name, _) in _TISSUES.items()
        },
    }


def _write_page(folder: Path, ran: DemoRun, results: dict[str, Any], overwrite: bool) -> Path:
    from MedEnhanceLib.report.enhancement_page import enhancement_report
    from MedEnhanceLib.report.figures import comparison

    labels = ran.facts.fields.get("labels", ())
    return enhancement_report(
        folder,
        name=ran.name,
        volume=ran.before,
        enhanced=ran.after,
        picture=comparison(ran.panes, legend={row["value"]: row["name"] for row in labels}),
        manifest=json.loads(Path(ran.facts["manifest"]).read_text(encoding="utf-8")),
        table=ran.facts.fields.get("table", ()),
        comparisons=tables_of(results),
        reference=ran.reference,
        beside_reference=comparison(ran.beside_reference) if ran.beside_reference else None,
        shown=ran.shown,
        overwrite=overwrite,
    )


def tables_of(results: Mapping[str, Any]) -> list[Table]:
    """Make the tables of quality before and after enhancement, and of the files."""
    from MedEnhanceLib.report.enhancement_page import Table

    quality, rows = {"name": "volume"}, results["quality"]
    if "error" in rows[0]:
        title = "Against further measurements of the same head"
        quality |= {"error": "error", "removed": "of it removed"}
        texts = (f"{100 * row['removed']:.0f} %" if "removed" in row else "–" for row in rows)
        rows = [{**row, "removed": text} for row, text in zip(rows, texts, strict=True)]
    else:
        title = "Against the undamaged sample, inside the brain"
        quality |= {"psnr_db": "PSNR, dB", "ssim": "SSIM"}
        quality |= {label: f"Dice, {label}" for label in rows[0]["dice"]}
        rows = [{**row, **row["dice"]} for row in rows]
    files = {"file": "file", "mode": "mode", "voxels": "voxels", "size": "size", "ratio": "ratio"}
    files |= {"max_error": "largest error", "psnr": "PSNR, dB"}
    sizes = [
        {**row, "voxels": size_text(row["raw_bytes"]), "size": size_text(row["file_bytes"])}
        for row in results["compression"]
    ]
    return [
        Table(title, quality, rows, " ".join(results["notes"])),
        Table("Compression, measured on each file", files, sizes),
    ]


def load_sample() -> tuple[Volume, Volume]:
    """Return the brain as 16-bit voxels, as scanners write them, and its labels."""
    samples = resource_folder("samples")
    brain = io.load(samples / "mni152_t1.nii.gz", modality="MR")
    labels = io.load(samples / "mni152_tissue.nii.gz", modality="SEG")
    return brain.with_voxels(brain.voxels.astype(np.int16)), labels
