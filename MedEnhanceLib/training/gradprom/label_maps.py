"""The label maps of a training, and images with label maps of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch

from MedEnhanceLib.core.labels import Label, color_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.gradprom.structures.anatomy import UNLABELED, Anatomy
from MedEnhanceLib.gradprom.structures.space import TissueMap
from MedEnhanceLib.io import load
from MedEnhanceLib.io.formats import READABLE, ending_of, stem_of
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.painting import normalize

#: Largest value of a label map; room around what it labels, in voxels.
_LARGEST, _RIM = 65535, 8
#: End of a label map's name in BIDS.
_DSEG = "dseg"
#: Voxels by which an image may lie off its label map.
_OFF = 0.01


def split_maps(config: TrainHeadConfig, folder: Path) -> tuple[list[Path], list[Path]]:
    """Find the label maps for training, and those held out."""
    paths = sorted({path for pattern in config.maps for path in folder.glob(pattern)})
    paths = [path for path in paths if path.is_file()]
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    held = [
        path for path in paths if any(fnmatchcase(names[path], item) for item in config.held_out)
    ]
    training = [path for path in paths if path not in held]
    if not training:
        raise InputError(
            f"{folder}: no label map for training matches {', '.join(config.maps)}",
            "Give the folder that the patterns start from, with more files than are held out.",
        )
    return training, held


def read_maps(paths: list[Path], monitor: Monitor) -> list[Volume]:
    """Read label maps, each cropped to what it labels."""
    volumes = []
    for number, path in enumerate(paths):
        monitor.progress(number / len(paths), f"reading {path.name}")
        volumes.append(_cropped(read_labels(path)))
    return volumes


def labels_of(values: list[int]) -> Iterable[Label]:
    """Make a label of each value up to 255."""
    for value in values:
        if 0 < value <= 255:
            yield Label(value=value, name=f"value {value}", color=color_of(value))


def tissue_map(volume: Volume, anatomy: Anatomy) -> TissueMap:
    """Return the tissues of a label map."""
    return TissueMap(anatomy.painted(volume.voxels), volume.geometry.affine_lps)


def find_labeled_images(folder: Path) -> dict[Path, list[Path]]:
    """Find label maps in and below a folder, with the images of each.

    As BIDS names them: NAME_dseg.nii.gz is the label map of NAME_T1w.nii.gz, NAME_T2w.nii.gz and
    so on in the same folder. Raises InputError for an image without one, and where none is.
    """
    found: dict[Path, list[Path]] = {}
    paths = [path for path in sorted(folder.rglob("*")) if ending_of(path) in READABLE]
    for path in paths:
        name, _, suffix = stem_of(path).rpartition("_")
        if suffix == _DSEG:
            continue
        labels = [path.with_name(f"{name}_{_DSEG}{ending}") for ending in READABLE]
        beside = next((each for each in labels if each in paths), None)
        if beside is None:
            raise InputError(f"{path}: no label map beside it", f"Put it at {labels[0]}.")
        found.setdefault(beside, []).append(path)
    if not found:
        raise InputError(
            f"{folder}: no images", f"Put NAME_T1w.nii.gz and NAME_{_DSEG}.nii.gz there."
        )
    return found


def read_labeled_images(
    found: Mapping[Path, list[Path]], anatomy: Anatomy, modality: str, monitor: Monitor
) -> list[TissueMap]:
    """Read label maps with the images of each.

    A label map may label less than those that are painted. Nothing is learned from voxels of a
    value that neither these nor the configuration state, nor from those of value 0 unless it
    labels all classes outside the structures: what surrounds a brain would teach that skull and
    fluid are background.

    Args:
        found: the images of each label map.
        anatomy: of the maps that are painted.
        modality: of the images.
        monitor: progress and cancelling.
    Raises InputError for files that do not belong together, and for a label map that lacks a
    structure, which its unlabeled voxels could show.
    """
    maps = []
    stated = [value for tissue in anatomy.tissues for value in tissue.values]
    for number, (path, images) in enumerate(found.items()):
        monitor.progress(number / len(found), f"reading {path.name}")
        volume = read_labels(path)
        item = tissue_map(volume, anatomy)
        shown = {0, *anatomy.tissue_classes[np.unique(item.tissues & 127)].tolist()}
        lacking = [name for index, name in enumerate(anatomy.classes) if index not in shown]
        if lacking and lacking[0] in anatomy.structures:
            raise InputError(
                f"{path} labels no {lacking[0]}",
                "Label every structure, by the values of the configuration, or leave it out.",
            )
        item.tissues[~np.isin(volume.voxels, stated if lacking else [0, *stated])] = UNLABELED
        shots = [image_beside(each, volume, modality).voxels for each in images]
        scaled = tuple(normalize(torch.from_numpy(shot.astype(np.float32))) for shot in shots)
        maps.append(replace(item, images=scaled))
    return maps


def read_labels(path: Path) -> Volume:
    """Read a label map, upright; raises InputError where its values are no labels."""
    volume = load(path, modality="SEG").single().upright()
    voxels = volume.voxels
    is_whole = np.issubdtype(voxels.dtype, np.integer) or bool((voxels == voxels.round()).all())
    if not is_whole or voxels.min() < 0 or voxels.max() > _LARGEST or not voxels.any():
        raise InputError(
            f"{path.name} is no label map: its values are {voxels.min():g} to {voxels.max():g}",
            f"Give whole numbers from 0 (background) to {_LARGEST}, and at least one label.",
        )
    return replace(volume, voxels=voxels.astype(np.uint16))


def image_beside(path: Path, labels: Volume, modality: str) -> Volume:
    """Read an image that lies on the grid of its label map.

    Args:
        path: of the image.
        labels: its label map, upright.
        modality: of the image.
    Raises InputError for an image on another grid.
    """
    volume = load(path, modality=modality).single().upright()
    if volume.shape != labels.shape or not volume.geometry.is_close(
        labels.geometry, _OFF, shape=volume.shape
    ):
        raise InputError(f"{path}: not on the grid of its label map", "Resample that to the image.")
    return volume


def _cropped(volume: Volume) -> Volume:
    """Crop a map to what it labels."""
    lines = [np.flatnonzero(volume.voxels.any((axis - 2, axis - 1))) for axis in range(3)]
    k, j, i = (max(int(line[0]) - _RIM, 0) for line in lines)
    ends = [int(line[-1]) + _RIM + 1 for line in lines]
    part = np.ascontiguousarray(volume.voxels[k : ends[0], j : ends[1], i : ends[2]])
    return replace(volume, voxels=part, geometry=volume.geometry.cropped((k, j, i)))
