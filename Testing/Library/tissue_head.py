"""A head of slices for T1 brains: random weights, and a true description of its only image."""

from __future__ import annotations

from pathlib import Path

import torch

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.head import export_head, make_head
from MedEnhanceLib.gradprom.likeness import record_likeness
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

NAME = "tissue"
WARNING = "Labels are rough."
STRUCTURES = [
    {"value": 2, "name": "Gray matter", "color": "#c9a227"},
    {"value": 3, "name": "White matter", "color": "#e8e8e8"},
]


def sample(step: int, origin: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Volume:
    """The template, every n-th voxel."""
    whole = load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    voxels = whole.voxels[::step, ::step, ::step].copy()
    return Volume(voxels, Geometry((step,) * 3, origin), modality="MR")


def write_tissue_head(folder: Path) -> Path:
    """Write its bundle into a folder; returns the folder of the bundle."""
    fields = {
        "preset": "smoke",
        "labels": ["labels.nrrd"],
        "structures": STRUCTURES,
        "name": NAME,
        "anatomy": "brain",
        "warnings": [WARNING],
        "steps": 100,  # as fewer are warned of
    }
    config = TrainHeadConfig.from_json(fields)
    torch.manual_seed(0)
    network = make_head(config.network, len(STRUCTURES))
    bundle = export_head(folder / NAME, config, network, 0.0)
    record_likeness(bundle.folder, [sample(2)])
    return bundle.folder
