"""Inside a series: which slices make a volume, which make the frames of one, which stand apart.

A series is taken apart only where it must be: where slices lie at one place, or where they make no
even stack and an attribute divides them into stacks that are even. For many attributes differ from
slice to slice in ordinary series: AcquisitionNumber, TriggerTime, AcquisitionTime.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.io.dicom.frames import Part, divided
from MedEnhanceLib.io.dicom.slices import Slice, Slices
from MedEnhanceLib.io.dicom.words import named
from MedEnhanceLib.runtime.progress import Monitor

#: Of a direction cosine, within one orientation: far more than rounding, far less than a new scan.
_SAME_DIRECTION = 0.01
_ORTHOGONAL = 0.1
_PLANES = ("sagittal", "coronal", "axial")


def parts_of(slices: Slices, name: str, monitor: Monitor) -> list[Part]:
    """The volumes that a series makes, in a fixed order; one part where it is plain.

    Parts of equal geometry that differ in one attribute become the frames of one part. What makes
    no sense in any way stays together in one part, for `stack` to say what is wrong with it.
    Localiser frames among other slices are left out, with a warning that names them.
    """
    slices = _without_localisers(slices, name, monitor)
    groups = _by_geometry(slices)
    lone = [group for group in groups if _is_lone_scout(group, groups)]
    if lone:
        groups = [group for group in groups if group not in lone]
        _tell_left_out([one for group in lone for one in group.slices], name, monitor)
    return [
        replace(part, name=", ".join(filter(None, (group.name, part.name))))
        for group in groups
        for part in divided(group.slices)
    ]


# ------------------------------------------------------------ geometry


@dataclass(frozen=True)
class _Group:
    name: str
    slices: tuple[Slice, ...]


def _without_localisers(slices: Slices, name: str, monitor: Monitor) -> Slices:
    scouts = [one for one in slices if "LOCALIZER" in one.image_type]
    if not scouts or len(scouts) == len(slices):
        return slices
    _tell_left_out(scouts, name, monitor)
    return [one for one in slices if "LOCALIZER" not in one.image_type]


def _tell_left_out(scouts: Slices, name: str, monitor: Monitor) -> None:
    names = named([one.file.name for one in scouts])
    monitor.warn(f"{name}: left out, as they are localisers (scout views): {names}")


def _by_geometry(slices: Slices) -> list[_Group]:
    """Slices that could be one stack: of one size, orientation and frame of reference.

    A slice that does not say where it lies stays with the others, for `stack` to name it.
    """
    placed = [one for one in slices if one.position and one.orientation]
    directions: list[tuple[float, ...]] = []
    told = {one.frame_of_reference for one in placed} - {""}
    groups: dict[tuple[str, str, int], list[Slice]] = defaultdict(list)
    for one in placed:
        reference = one.frame_of_reference if len(told) > 1 else ""
        key = (f"{one.columns}×{one.rows}", reference, _direction(one, directions))
        groups[key].append(one)
    if not groups:
        return [_Group("", tuple(slices))]
    largest = max(groups.values(), key=len)
    largest += [one for one in slices if not (one.position and one.orientation)]
    keys = list(groups)
    several = [len({key[index] for key in keys}) > 1 for index in range(3)]
    references = list(dict.fromkeys(key[1] for key in keys))
    planes = [_plane_name(direction) for direction in directions]
    made = []
    for (size, reference, direction), group in groups.items():
        words = (
            (size, several[0]),
            (_numbered(planes, direction), several[2]),
            (f"frame of reference {references.index(reference) + 1}", several[1]),
        )
        made.append(_Group(", ".join(word for word, told in words if told), tuple(group)))
    return made


def _direction(one: Slice, known: list[tuple[float, ...]]) -> int:
    orientation = one.orientation or ()
    for index, other in enumerate(known):
        if max(abs(a - b) for a, b in zip(orientation, other, strict=True)) <= _SAME_DIRECTION:
            return index
    known.append(orientation)
    return len(known) - 1


def _plane_name(orientation: tuple[float, ...]) -> str:
    along = np.abs(np.cross(orientation[:3], orientation[3:]))
    return _PLANES[int(along.argmax())]


def _numbered(names: Sequence[str], index: int) -> str:
    """The name, with a number where several share it."""
    same = [place for place, name in enumerate(names) if name == names[index]]
    return names[index] if len(same) == 1 else f"{names[index]} {same.index(index) + 1}"


def _is_lone_scout(group: _Group, groups: Sequence[_Group]) -> bool:
    """Whether it is a single slice across a stack of at least three."""
    one = group.slices[0]
    if len(group.slices) > 1 or not one.orientation:
        return False
    return any(
        len(other.slices) >= 3
        and other.slices[0].orientation
        and abs(_normal(one) @ _normal(other.slices[0])) < _ORTHOGONAL
        and abs(_normal(one) @ _normal(one) - 1) < _ORTHOGONAL  # not one with a damaged direction
        for other in groups
    )


def _normal(one: Slice) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    orientation = np.asarray(one.orientation, dtype=np.float64)
    return np.cross(orientation[:3], orientation[3:])
