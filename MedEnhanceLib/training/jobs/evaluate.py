"""The job that measures a trained model on the user's volumes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from MedEnhanceLib import denoise, gradprom, io
from MedEnhanceLib.bundles.store import find_bundle
from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.manifest import as_json, make_manifest
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.runtime.device import DEVICES
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.training.ssim import ssim

if TYPE_CHECKING:
    from MedEnhanceLib.bundles.store import Bundle
    from MedEnhanceLib.degradation.pipeline import Degradation

SEED = 20240607
#: `brain.nii.gz` has its labels in `brain-labels.nii.gz`.
LABELS = "-labels"


@dataclass(frozen=True, kw_only=True)
class EvaluateParams(Params):
    """Measure a model on volumes of good quality."""

    bundle: Annotated[str, About(help="a model's name or folder", flag="MODEL")]
    data: Annotated[
        str,
        About(
            help="a volume, or a folder of volumes; a head needs NAME-labels.nii.gz beside each",
            flag="DATA",
            place="input",
        ),
    ]
    device: str = option("auto", help=DEVICES, metavar="D")


def run_evaluate(params: EvaluateParams, monitor: Monitor) -> Result:
    """Measure; nothing is written."""
    table = evaluate_bundle(params.bundle, Path(params.data), params.device, monitor)
    return Result({"seconds": table["seconds"], "notice": table["notice"], **table["results"]})


def evaluate_bundle(name_or_path: str, data: Path, device: str, monitor: Monitor) -> dict[str, Any]:
    """Return a manifest whose results are `rows`, one for each measurement, and their `means`.

    Enhancer: every volume is degraded (the same way in each run) and its noise removed, by the
    filter alone and by the model; PSNR in dB and SSIM of each against the original volume, and
    the model's gain over the filter. Head: Dice of every label.

    Args:
        name_or_path: a model's name or folder.
        data: a volume, or a folder of volumes; a head needs NAME-labels.nii.gz beside each.
        device: "auto", or as PyTorch names it.
        monitor: receives progress; may cancel.
    Raises ModelError for an unknown model, InputError if there is no volume.
    """
    began = time.monotonic()
    bundle = find_bundle(name_or_path)
    volumes = _volumes_in(data)
    measure = _measure_enhancer if bundle.kind == "enhancer" else _measure_head
    rows: list[dict[str, Any]] = []
    for index, path in enumerate(volumes):
        part = monitor.part(index / len(volumes), (index + 1) / len(volumes))
        rows.extend(measure(bundle, path, device, part))
    return make_manifest(
        "evaluated",
        config={"device": device, "seed": SEED},
        inputs={str(index): path.name for index, path in enumerate(volumes)},
        device=device,
        seconds=time.monotonic() - began,
        model=bundle.identity(),
        results=as_json({"rows": rows, "means": _means(rows)}),
    )


def _volumes_in(data: Path) -> list[Path]:
    """Return the volumes in a folder and below it, without labels; for a file, the file."""
    if data.is_file() or not data.exists():  # loading a missing file gives its error
        return [data]
    volumes = [path for path in sorted(data.rglob("*")) if io.ending_of(path) in io.READABLE]
    volumes = [path for path in volumes if path.is_file() and LABELS not in path.name]
    if not volumes:
        raise InputError(
            f"{data}: no volume to evaluate on", f"Put files there ({', '.join(io.READABLE)})."
        )
    return volumes


def _measure_enhancer(
    bundle: Bundle, path: Path, device: str, monitor: Monitor
) -> Iterator[dict[str, Any]]:
    """Yield a row for each degradation of the benchmarks, always with the same seed."""
    from MedEnhanceLib.degradation.pipeline import LowDose, Rician, standard_composite

    damages: dict[str, Degradation] = {
        f"low dose, {dose:g} photons": LowDose(dose, 5.0, SEED) for dose in (5e3, 2e4)
    }
    if profile_of(bundle.modality).is_magnitude:
        damages = {f"Rician {level:.0%}": Rician(level, SEED) for level in (0.05, 0.1, 0.15)}
        damages["composite"] = standard_composite(SEED)
    clean = io.load(path, modality=bundle.modality)
    # All of a model's correction; without `for_viewing` CT gets half of it.
    smooth = profile_of(bundle.modality).is_projected
    config = denoise.EnhanceConfig(model=str(bundle.folder), device=device, for_viewing=smooth)
    on_request = replace(config, correct_bias_field=True)
    for index, (name, degradation) in enumerate(damages.items()):
        part = monitor.part(index / len(damages), (index + 1) / len(damages))
        part.progress(0.0, f"{path.name}: {name}")
        damaged = attend(partial(degradation.apply, clean, keep_dtype=True), part)
        settings = on_request if name == "composite" else config
        run = partial(denoise.enhance, damaged, cache=denoise.VolumeCache())
        enhanced = run(settings, monitor=part.part(0.0, 0.7)).volume
        quiet = Monitor(cancel=lambda: monitor.cancelled)  # it would repeat the warnings
        alone = replace(settings, denoiser="block-matching", model="auto")
        filtered = run(alone, monitor=quiet).volume
        row: dict[str, Any] = {"volume": path.name, "degradation": name}
        for role, volume in (("input", damaged), ("filter", filtered), ("enhanced", enhanced)):
            row[f"{role}_psnr_db"] = metrics.psnr(clean.voxels, volume.voxels)
            row[f"{role}_ssim"] = ssim(clean.voxels, volume.voxels)
        yield row | {"gain_over_filter_db": row["enhanced_psnr_db"] - row["filter_psnr_db"]}


def _measure_head(
    bundle: Bundle, path: Path, device: str, monitor: Monitor
) -> Iterator[dict[str, Any]]:
    ending = io.ending_of(path)
    reference_path = path.with_name(f"{path.name[: -len(ending)]}{LABELS}{ending}")
    if not reference_path.exists():
        raise InputError(f"{path}: no labels beside it", f"Put them at {reference_path.name}.")
    reference = io.load(reference_path, modality="SEG").single()
    volume = io.load(path, modality=bundle.modality).single()
    if reference.shape != volume.shape or not reference.geometry.is_close(
        volume.geometry, 0.01, shape=volume.shape
    ):
        raise InputError(
            f"{reference_path.name}: not on the grid of {path.name}", "Resample the labels to it."
        )
    config = gradprom.SegmentConfig(model=str(bundle.folder), device=device, force_segmenter=True)
    segmentation = gradprom.segment(volume, config, monitor=monitor)
    for label in segmentation.labels:
        if label.value > 0:
            dice = metrics.dice(reference.voxels, segmentation.volume.voxels, label.value)
            yield {"volume": path.name, "label": label.name, "dice": dice}


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Average every figure over the volumes, for each degradation or label."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        group = values.setdefault(str(row.get("degradation", row.get("label"))), {})
        for name, value in row.items():
            if isinstance(value, float):
                group.setdefault(name, []).append(value)
    return {
        group: {name: float(np.mean(each)) for name, each in figures.items()}
        for group, figures in values.items()
    }
