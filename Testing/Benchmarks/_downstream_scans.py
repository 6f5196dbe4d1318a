"""What is looked at after compression: tumours outlined by readers, and the shipped heads.

Heads are asked on patients that they did not learn from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _common import SHARED_DATA
from _enhancement_data import sample_labels, sample_volume

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load

TUMOUR_HEAD, TISSUE_HEAD = "sts-tumour-ct", "brain-tissue"
#: Patients that the tumour head did not learn from.
HELD_OUT = ("STS_013", "STS_025", "STS_037")
#: Central slices that the tissue head sees: minutes instead of hours.
HEAD_SLICES = 40
THIN_SLICES = 16


@dataclass(frozen=True)
class Scan:
    """A whole volume; what compression sees.

    tumour: bool [K, J, I], where features are taken. head: the bundle that segments it, labels
    its reference, and slab the slices that it sees.
    """

    name: str
    volume: Volume
    tumour: Any = None
    head: str = ""
    labels: Volume | None = None
    slab: slice | None = None

    @property
    def modality(self) -> str:
        return self.volume.modality


def load_scans(quick: bool, *, thin: bool = False) -> Iterator[Scan]:
    """Brains first, then bodies; one at a time, as they are large.

    quick: a few of them; thin: the slices around what is looked at alone.
    """
    found = [*_brains(), *_tumours("ct", "CT"), *_tumours("mr", "MR_T1")]
    wanted = {"open_ms C19", "STS_013", "STS_008 MR"} if quick else set(found)
    for name, make in found:
        if not quick or name in wanted:
            scan = make()
            yield _thin(scan) if thin else scan


def _brains() -> list[tuple[str, Any]]:
    return [("sample template", _template), ("open_ms C19", _c19)]


def _template() -> Scan:
    volume = sample_volume()
    slab = _central(volume)
    return Scan("sample template", volume, None, TISSUE_HEAD, sample_labels(), slab)


def _c19() -> Scan:
    from MedEnhanceLib.gradprom.atlas import propagate_labels

    volume = load(SHARED_DATA / "mr/open_ms/C19/T1.nii.gz", modality="MR")
    labels = propagate_labels(sample_volume(), sample_labels(), volume)
    return Scan("open_ms C19", volume, None, TISSUE_HEAD, labels, _central(volume))


def _tumours(folder: str, stem: str) -> list[tuple[str, Any]]:
    modality = folder.upper()
    patients = sorted((SHARED_DATA / folder / "sts").glob(f"*/{stem}.nii.gz"))

    def scan(path: Any, name: str) -> Scan:
        volume = load(path, modality=modality)
        outline = load(path.with_name(f"{stem}_gtv.nii.gz"), modality="SEG")
        head = TUMOUR_HEAD if modality == "CT" and name in HELD_OUT else ""
        return Scan(name, volume, outline.voxels > 0, head, outline if head else None)

    suffix = "" if modality == "CT" else " MR"
    return [
        (name := path.parent.name + suffix, lambda path=path, name=name: scan(path, name))
        for path in patients
    ]


def _central(volume: Volume) -> slice:
    start = (len(volume.voxels) - HEAD_SLICES) // 2
    return slice(start, start + HEAD_SLICES)


def _thin(scan: Scan) -> Scan:
    """Slices around the middle of the tumour or the volume."""
    count = len(scan.volume.voxels)
    centre = count // 2
    if scan.tumour is not None:
        centre = int(np.median(np.flatnonzero(scan.tumour.any(axis=(1, 2)))))
    start = min(max(centre - THIN_SLICES // 2, 0), max(count - THIN_SLICES, 0))
    part = slice(start, start + THIN_SLICES)
    labels = scan.labels
    return Scan(
        scan.name,
        sliced(scan.volume, part),
        None if scan.tumour is None else scan.tumour[part],
        scan.head,
        None if labels is None else sliced(labels, part),
    )


def sliced(volume: Volume, part: slice | None) -> Volume:
    """Some slices of a volume, where they are; None takes all."""
    if part is None:
        return volume
    return replace(
        volume,
        voxels=np.ascontiguousarray(volume.voxels[part]),
        geometry=volume.geometry.cropped((part.start, 0, 0)),
    )
