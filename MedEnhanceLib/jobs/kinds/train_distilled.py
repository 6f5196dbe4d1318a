"""Trains an enhancer on a distilled set: writes its images as the volumes that hqg learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib import io
from MedEnhanceLib.bundles.export import record_fields
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.bundles.suitability import PIXEL_SPACING
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.dataset import load_distilled
from MedEnhanceLib.spg.folder import MANIFEST, read_run

if TYPE_CHECKING:
    from MedEnhanceLib.hqg import TrainConfig
    from MedEnhanceLib.spg.dataset import Distilled

#: Images of one file; unrelated to the patients that they were made from.
_CHUNK = 32
#: mm between images: so far that a file is not taken for a part of one body.
_APART_MM = 100.0
#: Intensity of 1 in MR; CT has HU.
_MR_TOP = 1000.0
_VOLUMES = "distilled"
_POOLS = ("high", "low")
#: Images are in random order: there are no neighboring slices to learn from.
_SINGLE = {"slab": 1, "denoise": False}
_SINGLE_NETWORK = {"context": 0, "shrinkage": False}


def fields_for_distilled(fields: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """The fields of an hqg.TrainConfig, completed by those that a distilled set determines.

    Raises:
        ConfigError: the fields state another modality.
    """
    modality = read_run(data / MANIFEST).get("modality")
    if fields.get("modality", modality) != modality:
        raise ConfigError(
            f"{data} is a distilled set of {modality}, not of {fields['modality']}",
            "Leave out the modality.",
        )
    network = fields.get("network")
    given = network if isinstance(network, Mapping) else {}
    decided = {"modality": modality, "network": _SINGLE_NETWORK | dict(given)}
    return {"name": f"hqg-{str(modality).lower()}-distilled"} | _SINGLE | dict(fields) | decided


def volumes_of_distilled(
    config: TrainConfig, data: Path, out: Path, monitor: Monitor
) -> tuple[TrainConfig, Path]:
    """Write a distilled set as volumes: the images, and the same degraded by the set's task.

    Args:
        config: of the training; its seed draws the degradation.
        data: the distilled set.
        out: gets the folder of the volumes.
        monitor: gets progress and may cancel.
    Returns:
        The configuration that learns from the volumes, and their folder.
    Raises:
        ConfigError: another modality, or slabs of several slices: the images are in random order.
    """
    found = load_distilled(data)
    if config.modality != found.manifest["modality"]:
        raise ConfigError(
            f"{data} is a distilled set of {found.manifest['modality']}, not of {config.modality}",
            "Use that modality.",
        )
    if config.slab != 1 or config.network.context != 0 or config.network.shrinkage:
        raise ConfigError(
            "distilled images are in random order: there are no neighboring slices to learn from",
            'Use "slab": 1 and "network": {"context": 0, "shrinkage": false}, or leave them out.',
        )
    if found.alarm:
        monitor.warn(found.alarm)
    from MedEnhanceLib.spg.tasks import make_task

    monitor.progress(0.0, "degrading distilled images")
    task = make_task(found.config, config.modality)
    damaged = task.damaged(found.images, config.seed)
    folder = out / _VOLUMES
    for pool, images in zip(_POOLS, (found.images, damaged), strict=True):
        (folder / pool).mkdir(parents=True, exist_ok=True)
        for place in range(0, len(images), _CHUNK):
            monitor.check()
            volume = _volume(images[place : place + _CHUNK], found)
            io.save(volume, folder / pool / f"{place // _CHUNK:04d}.nrrd", overwrite=True)
    high, low = ((f"{pool}/*.nrrd",) for pool in _POOLS)
    chosen = replace(config, high_quality=high, low_quality=low, data=(found.entry(), *config.data))
    return chosen, folder


def warn_of_distilled(folder: Path, data: Path) -> Path:
    """State the distilled set in the card of a model that learned from it; the model's folder."""
    found = load_distilled(data)
    task, spacing = found.manifest["task"], found.config.images.spacing_mm
    metadata = read_bundle(folder).metadata
    ours = (
        *found.limits,
        f"It learned from single axial slices with pixels of {spacing:g} mm, degraded by the task "
        f"{task!r}, and nothing from neighboring slices.",
    )
    fields = {
        "description": f"HQG-Net on distilled {metadata['modality']} images, for the task {task}.",
        "limits": [*ours, *(one for one in metadata.get("limits", ()) if one not in ours)],
        PIXEL_SPACING: spacing,
    }
    return record_fields(folder, fields).folder


def _volume(images: np.ndarray[Any, np.dtype[np.float32]], found: Distilled) -> Volume:
    """A chunk [N, H, W] in [0, 1] as a volume in the units of its modality."""
    config, modality = found.config.images, str(found.manifest["modality"])
    low, high = config.ct_window if modality == "CT" else (0.0, _MR_TOP)
    voxels = images * np.float32(high - low) + np.float32(low)
    geometry = Geometry((config.spacing_mm, config.spacing_mm, _APART_MM))
    return Volume(voxels, geometry, modality, "HU" if modality == "CT" else "")
