"""What all slices of a volume must share, and the one grid on which its frames must lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.dicom.repair import Repair
from MedEnhanceLib.io.dicom.slices import Slice, Slices
from MedEnhanceLib.io.dicom.stack import Repairs, Stack, require_same, stack
from MedEnhanceLib.runtime.progress import Monitor

#: Voxels: how far apart the frames of one 4D volume may lie, at any corner.
_SAME_GRID = 0.05
#: Pixels, and slices: how far the repairs of frames may differ.
_SAME_REPAIR = 0.01


def require_alike(slices: Slices, name: str) -> None:
    """Raise InputError for slices that are no one image: of two people, scales or displays.

    A slice that does not say how it is scaled, among others that do, holds other numbers.
    """
    shared: tuple[tuple[str, Callable[[Slice], Any]], ...] = (
        ("PatientID", lambda one: repr(one.patient)),
        ("Modality", lambda one: one.modality or "none"),
        ("PhotometricInterpretation", lambda one: one.photometric),
        ("units", lambda one: (one.rescale_type, one.units)),
    )
    for what, value in shared:
        require_same(slices, what, value, name)
    _require_scaled_alike(slices, name)


def _require_scaled_alike(slices: Slices, name: str) -> None:
    told: tuple[tuple[str, Callable[[Slice], Any]], ...] = (
        ("ModalityLUTSequence", lambda one: one.has_lut or None),
        ("RescaleSlope", lambda one: one.slope),
        ("RescaleIntercept", lambda one: one.intercept),
    )
    for element, value in told:
        lacking = [one for one in slices if value(one) is None]
        if lacking and len(lacking) < len(slices):
            raise InputError(
                f"{name}: {element} is missing in {len(lacking)} of {len(slices)} slices "
                f"({lacking[0].label} first), so that their numbers are no one scale",
                "Export the series again, complete.",
            )


def stack_frames(
    frames: Sequence[Slices], name: str, monitor: Monitor, repairs: Repairs | None = None
) -> list[Stack]:
    """One stack for each frame, all of them on one grid, to be repaired in one way.

    The first frame's warnings stand for all. Raises as `stack`; GeometryError for a frame that
    lies elsewhere than the first, or that would have to be resampled in another way.
    """
    first = stack(frames[0], name, monitor, repairs)
    stacks = [first]
    for number, frame in enumerate(frames[1:], 2):
        monitor.check()
        stacks.append(stack(frame, name, Monitor(), repairs))
        _require_one_grid(stacks[-1], first, number, name)
    return stacks


def _require_one_grid(one: Stack, first: Stack, number: int, name: str) -> None:
    where = f"{name}: frame {number} ({one.slices[0].label} first)"
    if not one.geometry.is_close(first.geometry, _SAME_GRID, shape=first.shape):
        raise GeometryError(
            f"{where} lies elsewhere than the first",
            "Put the frames in folders of their own and load one.",
        )
    if not _are_repaired_alike(one.repair, first.repair):
        raise GeometryError(
            f"{where} is tilted or spaced otherwise than the first, so that no one way of "
            "resampling fits both",
            "Put the frames in folders of their own and load one.",
        )


def _are_repaired_alike(one: Repair | None, other: Repair | None) -> bool:
    if one is None or other is None:
        return one is other
    if (one.rows, one.columns, len(one.mixes)) != (other.rows, other.columns, len(other.mixes)):
        return False
    moves = [np.asarray(each.places if each.places is not None else 0.0) for each in (one, other)]
    mixes = [np.sum(each.mixes, axis=1) for each in (one, other)]  # a slice's number and a share
    return all(
        a.shape == b.shape and np.abs(a - b).max(initial=0) <= _SAME_REPAIR
        for a, b in (moves, mixes)
    )
