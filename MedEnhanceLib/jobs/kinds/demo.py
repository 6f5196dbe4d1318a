"""The main job on the sample that ships: damage, enhance, segment, compress, read back, show."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.manifest import make_manifest
from MedEnhanceLib.core.options import Params, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import atomic_write, output_error, write_json
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.jobs.worker.events import as_json
from MedEnhanceLib.report.demo import (
    Compression,
    Findings,
    Quality,
    Shown,
    Step,
    draw_pictures,
    write_demo_page,
)
from MedEnhanceLib.report.page import FileEntry, make_folder
from MedEnhanceLib.report.planes import Point
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import Segmentation
    from MedEnhanceLib.hqg import Enhancement

SEED = 20240607
MAX_ERROR = 2.0
#: The sample without noise fits into a 28th without loss: less would show nothing, and take longer.
RATIO = 64.0
LICENCE = "LICENSE-MNI152.txt"
#: Where the planes cut, as shares of [K, J, I]: through the thalamus, beside the midline.
_PLACE = (0.46, 0.48, 0.62)
_LOSSLESS = "lossless"
_UNDAMAGED, _DAMAGED, _ENHANCED = "undamaged", "damaged", "enhanced"

#: Every file that the demo makes, and what it is; nothing else in the folder is touched.
FILES = {
    "undamaged.nii.gz": "the sample: a group-average brain (MNI152), as 16-bit voxels",
    "labels.nii.gz": "tissue labels of the sample",
    "damaged.nii.gz": "shading, blur and Rician noise added, seeded",
    "enhanced.nii.gz": "the damaged volume without noise, blur and shading, as far as that went",
    "segmentation-undamaged.nii.gz": "tissue found in the undamaged volume",
    "segmentation-damaged.nii.gz": "tissue found in the damaged volume",
    "segmentation-enhanced.nii.gz": "tissue found in the enhanced volume",
    "enhanced-lossless.ucv": "the enhanced volume, compressed without loss",
    "enhanced-max-error-2.ucv": "the enhanced volume, no voxel off by more than 2",
    "enhanced-ratio-64.ucv": "the enhanced volume in a 64th of its bytes",
    "enhanced-read-back.nii.gz": "enhanced-max-error-2.ucv, decompressed",
    "enhancement.png": "picture: damaged, enhanced, difference, segmentation",
    "errors.png": "picture: the error before and after",
    "segmentation.png": "picture: segmentations side by side",
    "compression.png": "picture: what compression changed",
    "results.json": "the numbers of this page for programs",
    LICENCE: "the notice that goes with the sample",
}


@dataclass(frozen=True, kw_only=True)
class DemoParams(Params):
    """Run the main job on the sample that ships."""

    out: str = option("medenhance-demo", help="the folder, new or empty", flag="OUT", place="here")
    device: str = option("auto", help="auto, cpu, cuda, cuda:N or mps", metavar="D")
    overwrite: bool = option(
        False, help="replace the files of an earlier demo in OUT", flag="--force"
    )


@dataclass
class _Clock:
    """Records how long each step takes and reports to the monitor where the work is."""

    monitor: Monitor
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, start: float, end: float) -> Iterator[Monitor]:
        self.monitor.progress(start, name)
        began = time.monotonic()
        yield self.monitor.part(start, end)
        self.steps.append(Step(name, round(time.monotonic() - began, 2)))


def run_demo(params: DemoParams, monitor: Monitor) -> Result:
    """Damage → enhance → segment → measure → compress → read back → pictures and page."""
    require("matplotlib", purpose="Drawing the demo's pictures")
    folder = claim_folder(Path(params.out), overwrite=params.overwrite)
    clock = _Clock(monitor)
    with clock.step("load the sample", 0.0, 0.02):
        undamaged, reference = load_sample()
    with clock.step("damage", 0.02, 0.06):
        damaged = damage(undamaged)
    with clock.step("enhance", 0.06, 0.4) as part:
        enhancement = _enhance(damaged, params.device, part)
    versions = {_UNDAMAGED: undamaged, _DAMAGED: damaged, _ENHANCED: enhancement.volume}
    with clock.step("segment three times", 0.4, 0.68) as part:
        segmented = _segment_all(versions, params.device, part)
    with clock.step("measure", 0.68, 0.74):
        quality = measure(versions, segmented, reference)
    with clock.step("write volumes", 0.74, 0.8):
        _save_volumes(folder, versions, segmented, reference, params.overwrite)
    with clock.step("compress and read back", 0.8, 0.92) as part:
        compression, decoded = _compress_all(folder, enhancement.volume, part, params.overwrite)
    with clock.step("draw", 0.92, 1.0):
        shown = Shown(
            undamaged=undamaged,
            damaged=damaged,
            enhanced=enhancement.volume,
            packed={row.mode: decoded[row.file] for row in compression if row.mode != _LOSSLESS},
            reference=reference,
            segmented={name: found.volume for name, found in segmented.items()},
            labels=segmented[_ENHANCED].labels,
        )
        pictures = draw_pictures(folder, shown, point=_point(undamaged), overwrite=params.overwrite)
    findings = Findings(quality, compression, clock.steps)
    manifest = _manifest(findings, enhancement, segmented[_ENHANCED], params)
    write_json(folder / "results.json", manifest, overwrite=params.overwrite)
    page = write_demo_page(
        folder,
        findings,
        pictures,
        [FileEntry(file, what) for file, what in FILES.items()],
        volume=enhancement.volume,
        manifest=manifest,
        notes=_NOTES,
        overwrite=params.overwrite,
    )
    monitor.preview(str(folder / "enhancement.png"), "Damaged, enhanced, difference, segmentation")
    return Result(
        {
            "outputs": {"page": str(page), "folder": str(folder)},
            "manifest": str(folder / "results.json"),
            "device": enhancement.device,
            "seconds": round(findings.seconds, 3),
            "findings": as_json(asdict(findings)),
        }
    )


def claim_folder(folder: Path, *, overwrite: bool) -> Path:
    """Make the folder, or take an empty one; with `overwrite` also one that holds files.

    Raises OutputError for anything else. Whatever the demo does not make stays there.
    """
    make_folder(folder)
    try:
        is_empty = not any(folder.iterdir())
    except OSError as cause:
        raise output_error(folder, cause) from cause
    if not is_empty and not overwrite:
        raise OutputError(
            f"{folder} exists already and is not empty",
            "Name another folder: medenhance demo FOLDER. "
            "Or replace what an earlier demo left there: --force.",
        )
    return folder


def load_sample() -> tuple[Volume, Volume]:
    """The brain as 16-bit voxels, as scanners write them, and its labels."""
    from MedEnhanceLib import io

    samples = resource_folder("samples")
    brain = io.load(samples / "mni152_t1.nii.gz", modality="MR")
    labels = io.load(samples / "mni152_tissue.nii.gz", modality="SEG")
    return brain.with_voxels(brain.voxels.astype(np.int16)), labels


def damage(volume: Volume) -> Volume:
    """The composite of the benchmarks, always with the same seed."""
    from MedEnhanceLib.degrade import standard_composite

    return standard_composite(SEED).apply(volume, keep_dtype=True)


def measure(
    versions: Mapping[str, Volume], segmented: Mapping[str, Segmentation], reference: Volume
) -> list[Quality]:
    """A row per version of the volume, against the undamaged one and the sample's labels."""
    brain = reference.voxels > 0
    truth = versions[_UNDAMAGED].voxels
    rows = []
    for name, volume in versions.items():
        found = segmented[name]
        dice = {
            label.name: metrics.dice(reference.voxels, found.volume.voxels, label.value)
            for label in found.labels
            if label.value > 0
        }
        if name == _UNDAMAGED:
            rows.append(Quality(name, None, None, dice))
        else:
            psnr = metrics.psnr(truth, volume.voxels, mask=brain)
            rows.append(Quality(name, psnr, metrics.ssim(truth, volume.voxels, mask=brain), dice))
    return rows


def _enhance(volume: Volume, device: str, monitor: Monitor) -> Enhancement:
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    # As by default: noise, blur and shading are measured, and corrected where they are found.
    return enhance(volume, EnhanceConfig(model="mr", device=device), monitor=monitor)


def _segment_all(
    versions: Mapping[str, Volume], device: str, monitor: Monitor
) -> dict[str, Segmentation]:
    from MedEnhanceLib.gradprom import SegmentConfig, segment

    share = 1 / len(versions)
    return {
        name: segment(
            volume,
            SegmentConfig(device=device),
            monitor=monitor.part(index * share, (index + 1) * share),
        )
        for index, (name, volume) in enumerate(versions.items())
    }


def _save_volumes(
    folder: Path,
    versions: Mapping[str, Volume],
    segmented: Mapping[str, Segmentation],
    reference: Volume,
    overwrite: bool,
) -> None:
    from MedEnhanceLib import io

    for name, volume in versions.items():
        io.save(volume, folder / f"{name}.nii.gz", overwrite=overwrite)
        found = segmented[name].volume
        io.save(found, folder / f"segmentation-{name}.nii.gz", overwrite=overwrite)
    io.save(reference, folder / "labels.nii.gz", overwrite=overwrite)
    with atomic_write(folder / LICENCE, overwrite=overwrite) as temporary:
        temporary.write_bytes((resource_folder("samples") / LICENCE).read_bytes())


def _compress_all(
    folder: Path, volume: Volume, monitor: Monitor, overwrite: bool
) -> tuple[list[Compression], dict[str, Volume]]:
    from MedEnhanceLib import io
    from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

    #: Mode → its file, what it is asked for, and what it thereby keeps: `compress` proves it.
    modes = {
        _LOSSLESS: ("lossless", CompressConfig(lossless=True), "every voxel equal"),
        f"largest error {MAX_ERROR:g}": (
            "max-error-2",
            CompressConfig(max_error=MAX_ERROR),
            f"all within ± {MAX_ERROR:g}",
        ),
        f"ratio {RATIO:g}": (
            "ratio-64",
            CompressConfig(ratio=RATIO, speed="fast"),
            f"ratio ≥ {RATIO:g}",
        ),
    }
    rows, volumes = [], {}
    for index, (mode, (name, config, kept)) in enumerate(modes.items()):
        file = f"enhanced-{name}.ucv"
        part = monitor.part(index / len(modes), (index + 1) / len(modes))
        part.progress(0.0, f"compress: {mode}")
        done = compress(
            volume, folder / file, config, monitor=part.part(0.0, 0.8), overwrite=overwrite
        )
        began = time.monotonic()
        decoded = decompress(folder / file, monitor=part.part(0.8, 1.0))
        decode_s = round(time.monotonic() - began, 2)
        largest = metrics.max_error(volume.voxels, decoded.voxels)
        row = Compression(
            mode=mode,
            file=file,
            ratio=round(done.ratio, 3),
            largest_error=largest,
            psnr_db=metrics.psnr(volume.voxels, decoded.voxels) if largest else None,
            encode_s=round(done.seconds, 2),
            decode_s=decode_s,
            kept=kept,
        )
        rows.append(row)
        volumes[file] = decoded
    bounded = volumes["enhanced-max-error-2.ucv"]
    io.save(bounded, folder / "enhanced-read-back.nii.gz", overwrite=overwrite)
    return rows, volumes


def _point(volume: Volume) -> Point:
    k, j, i = (int(share * size) for share, size in zip(_PLACE, volume.shape, strict=True))
    return k, j, i


def _manifest(
    findings: Findings, enhancement: Enhancement, segmentation: Segmentation, params: DemoParams
) -> dict[str, Any]:
    return make_manifest(
        "demo",
        config={
            "seed": SEED,
            "max_error": MAX_ERROR,
            "ratio": RATIO,
            "device": params.device,
            "head": dict(segmentation.model),
        },
        inputs={"input": "mni152_t1.nii.gz", "labels": "mni152_tissue.nii.gz"},
        device=enhancement.device,
        seconds=findings.seconds,
        model=enhancement.model,
        results=as_json(asdict(findings)) | {"measured": as_json(dict(enhancement.measured))},
    )


_NOTES = (
    "The sample is the average of 152 brains: it shows no single person, and it has less noise "
    "and less detail than a scan of one person, so expect other numbers on your own volumes.",
    "The segmentation head learned from the labels of this template, carried over to other brains; "
    "its Dice here compares the rows with each other and says little about another scanner.",
)
