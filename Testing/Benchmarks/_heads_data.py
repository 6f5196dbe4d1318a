"""Heads that segmentation is judged on, listed in heads.json, and what their labels count as."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from _common import QUICK, SHARED_DATA, listed
from _enhancement_data import Floats

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load

#: FreeSurfer's values of each structure, on both sides. As in the label maps that the model learned
#: from, the accumbens counts as caudate, and choroid plexus as ventricle. Labels that people drew
#: (MICCAI 2012, *_glm) are renumbered so: from 100 on, odd values are left cortex and even ones
#: right, and the vermis is cerebellar cortex.
STRUCTURES: dict[str, tuple[int, ...]] = {
    "cerebral white matter": (2, 41, 30, 62, 77, 78, 79, *range(251, 256)),
    "cerebral cortex": (3, 42, *range(1000, 3000)),
    "ventricles": (4, 43, 5, 44, 14, 15, 31, 63, 72),
    "cerebellar white matter": (7, 46),
    "cerebellar cortex": (8, 47),
    "thalamus": (10, 49),
    "caudate": (11, 50, 26, 58),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "brainstem": (16,),
    "ventral diencephalon": (28, 60),
}
CORTEX, WHITE = "cerebral cortex", "cerebral white matter"
_LEFT = (*(v for v in range(2, 32) if v not in (14, 15, 16, 24)), *range(1000, 2000))
_RIGHT = (*range(41, 64), *range(2000, 3000))
Entry = Mapping[str, Any]


def entries() -> list[Entry]:
    """What heads.json lists; of a quick run a painted head of each group."""
    if QUICK:
        groups = ("manual", "sequences", "sequences", "reach")
        names = [*((g, f"{g} {n}") for n, g in enumerate(groups)), ("not brain", "phantom")]
        return [{"group": g, "subject": g, "sequence": n, "file": n, "kind": "phantom",
                 "labels": "painted", "mask": "painted"} for g, n in names]  # fmt: skip
    return [*listed("heads.json")]


class Heads:
    """The listed volumes that are in some folders; `skipped` counts the others."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = (*folders, SHARED_DATA)
        self.entries = [entry for entry in entries() if QUICK or self._path(entry["file"])]
        self.skipped = len(entries()) - len(self.entries)

    def _path(self, file: str) -> Path | None:
        return next((folder / file for folder in self.folders if (folder / file).is_file()), None)

    def of(self, *groups: str) -> dict[str, list[Entry]]:
        """The volumes of groups, by subject."""
        subjects: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry["group"] in groups:
                subjects.setdefault(entry["subject"], []).append(entry)
        return subjects

    def named(self, file: str) -> Entry:
        """The first entry of a file."""
        return next(entry for entry in self.entries if entry["file"] == file)

    def image(self, entry: Entry) -> Volume:
        """Open a volume as it is stored, which is the one that is listed, or the script ends."""
        if QUICK:
            return _painted(entry["file"])[0]
        path = self._path(entry["file"])
        assert path is not None
        volume = load(path, modality="MR").single()
        of_file = hashlib.sha256(path.read_bytes()).hexdigest()
        if entry["sha256"] not in (of_file, fingerprint(volume)):
            sys.exit(f"{path}: the volume is not the one that is listed (sha256)")
        return volume

    def drawn(self, entry: Entry, what: str) -> Any:
        """Labels or mask of a volume ("labels", "mask"), [K, J, I]; None where there are none."""
        if QUICK:
            return _painted(entry["file"])[1]
        path = self._path(entry[what]) if entry.get(what) else None
        return path and load(path, modality="SEG").single().voxels.astype(np.int32)


def fingerprint(volume: Volume) -> str:
    """Hash voxels and affine, which stay the same where a file is converted again."""
    affine = volume.geometry.affine_ras.round(3).astype("<f4") + 0.0  # no −0
    return hashlib.sha256(volume.voxels.astype("<f4").tobytes() + affine.tobytes()).hexdigest()


@cache
def _table(groups: tuple[tuple[int, ...], ...]) -> Any:
    """Number of the group of each value, from 1 on; 0 for none."""
    table = np.zeros(16384, np.uint8)
    for number, values in enumerate(groups, 1):
        table[list(values)] = number
    return table


_VALUES = tuple(STRUCTURES.values())


def structures_of(labels: Any) -> Any:
    """Number of each voxel's structure, from 1 on."""
    return _table(_VALUES)[labels]


def agreement(labels: Any, others: Any) -> dict[str, float]:
    """Dice of each structure that either shows; 0 of all where neither shows any."""
    first, second = structures_of(labels), structures_of(others)
    count = len(STRUCTURES) + 1
    both = np.bincount(first[first == second], minlength=count)
    sizes = sum(np.bincount(each.ravel(), minlength=count) for each in (first, second))
    return {
        name: round(float(2 * both[n] / max(1, sizes[n])), 4)
        for n, name in enumerate(STRUCTURES, 1)
        if sizes[n] or not sizes[1:].any()
    }


def agreement_of_labels(labels: Any, others: Any) -> float:
    """Mean Dice of all values that either shows, sides apart."""
    sizes = [np.bincount(each.ravel(), minlength=16384) for each in (labels, others)]
    both = np.bincount(labels[labels == others].ravel(), minlength=16384)
    shown = (sum(sizes) > 0) & (np.arange(16384) > 0)
    return float(np.mean(2 * both[shown] / sum(sizes)[shown])) if shown.any() else 0.0


def volume_errors(labels: Any, truth: Any) -> dict[str, float]:
    """Signed error of each structure's volume, as a share of what the truth shows of it."""
    found, true = volumes_of(labels), volumes_of(truth)
    return {
        name: round(float(found[n] / true[n] - 1), 4)
        for n, name in enumerate(STRUCTURES)
        if true[n]
    }


def on_wrong_side(labels: Any, others: Any) -> float:
    """Share of the voxels of a side in both that are of the other side."""
    first, second = (_table((_LEFT, _RIGHT))[each] for each in (labels, others))
    sided = (first > 0) & (second > 0)
    return float(np.mean(first[sided] != second[sided])) if sided.any() else 1.0


def volumes_of(labels: Any) -> Floats:
    """Voxels of each structure."""
    counts = np.bincount(structures_of(labels).ravel(), minlength=len(STRUCTURES) + 1)
    return counts[1:].astype(np.float32)


def onto(labels: Volume, grid: Volume) -> Any:
    """Labels at the places of another grid; −1 outside their own."""
    import SimpleITK as sitk  # noqa: N813 - its own short name

    image = sitk.Cast(labels.to_sitk(), sitk.sitkInt32)
    nearest = sitk.sitkNearestNeighbor
    return sitk.GetArrayFromImage(
        sitk.Resample(image, grid.to_sitk(), sitk.Transform(), nearest, -1.0)
    )


def _painted(name: str) -> tuple[Volume, Any]:
    """A small head of ellipsoids, and its labels; a phantom is a cylinder."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 52, 44)), indexing="ij")
    labels = np.zeros(k.shape, np.int32)
    radius = np.sqrt((k / 0.8) ** 2 + (j / 0.8) ** 2 + (i / 0.8) ** 2)
    for reach, left, right in ((1.0, 3, 42), (0.75, 2, 41), (0.35, 10, 49), (0.15, 4, 43)):
        labels[radius < reach] = np.where(i < 0, left, right)[radius < reach]
    if name == "phantom":
        labels = np.where(i**2 + j**2 < 0.5, 3, 0)
    gray = np.random.default_rng(len(name)).uniform(200, 900, 64)[labels]
    voxels = np.where(labels > 0, gray, 300.0 * (radius < 1.2)).astype(np.float32)
    return Volume(voxels, Geometry((2.0, 2.0, 2.0)), modality="MR"), labels
