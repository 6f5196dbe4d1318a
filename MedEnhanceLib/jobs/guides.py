"""The volumes beside the one that is enhanced: its guides, and its look.

A guide is another series of the same examination; `auto` lets the best one be chosen from where the
volume lies: the other series of its DICOM study, or the other files of its folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.jobs.files import CONTAINER, load_volume
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.io.dicom.listing import Choice

AUTO = "auto"
#: Files or folders beside a volume, more than which are no examination.
_MOST_BESIDE = 20
#: Different values of whole numbers, fewer than which are labels.
_FEWEST_VALUES = 32


def check_guides(guides: Sequence[str]) -> None:
    """Raise ConfigError for no guide at all, and for "auto" beside files."""
    if not guides:
        raise ConfigError("guide is an empty list", 'Name files, or give "auto".')
    if AUTO in guides and len(guides) > 1:
        raise ConfigError("guide is auto and names files too", "Give one or the other.")


def chosen_guide(path: Path, volume: Volume, monitor: Monitor) -> Volume | None:
    """The best guide of a volume among the other series of its examination.

    Args:
        path: where the volume was read: a file, or a folder of DICOM.
        volume: what was read there.
        monitor: messages, warnings and cancelling.

    Returns:
        None, with a warning, where nothing suits.
    """
    from MedEnhanceLib.hqg.guide import suggest

    beside = _series_beside if volume.origin is not None else _files_beside
    suggested = suggest(volume, list(beside(path, volume, monitor)))
    if suggested is None:
        monitor.warn("no other series of this examination was found: enhanced without a guide")
        return None
    monitor.log(f"guide: {suggested.source}")
    return suggested


def volumes_in(places: Sequence[str]) -> list[Path]:
    """The volumes that a look is made of: files, and those in folders, DICOM series as they are."""
    from MedEnhanceLib.io import READABLE, ending_of

    known = (*READABLE, CONTAINER)
    found: list[Path] = []
    for place in map(Path, places):
        inside = sorted(place.iterdir()) if place.is_dir() else []
        found += [file for file in inside if ending_of(file) in known] or [place]
    return found


def _series_beside(path: Path, volume: Volume, monitor: Monitor) -> Iterator[Volume]:
    """The other series of the study: in the same place, and in the folders beside it."""
    from MedEnhanceLib.io.dicom.listing import choices
    from MedEnhanceLib.io.dicom.scan import scan

    origin = volume.origin
    assert origin is not None
    here = path if path.is_dir() else path.parent
    beside = [one for one in sorted(here.parent.iterdir()) if one.is_dir() and one != here]
    for place in (here, *beside[:_MOST_BESIDE]):
        monitor.check()
        try:
            found: list[Choice] = choices(scan(place, monitor), place.name)
        except MedEnhanceError:
            continue  # a folder without DICOM
        for one in found:
            is_other = one.about.study == origin.study and one.about.series != origin.series
            if is_other and one.is_gray and one.row.readable:
                yield from _usable(place, volume, monitor, series=one.row.key)


def _files_beside(path: Path, volume: Volume, monitor: Monitor) -> Iterator[Volume]:
    """The other volumes of the folder.

    Raises InputError for a folder with too many of them to be one examination.
    """
    from MedEnhanceLib.io import READABLE, ending_of

    folder = path.parent
    files = [
        file
        for file in sorted(folder.iterdir())
        if ending_of(file) in (*READABLE, CONTAINER) and not file.name.startswith(".")
    ]
    if len(files) > _MOST_BESIDE:
        raise InputError(
            f"{folder} has {len(files)} volumes: no guide is chosen among them, as they can "
            "hardly be one examination",
            "Put each examination into a folder, or name the guide.",
        )
    for file in files:
        if file.resolve() != path.resolve():
            yield from _usable(file, volume, monitor)


def _usable(
    path: Path, volume: Volume, monitor: Monitor, *, series: str | None = None
) -> Iterator[Volume]:
    """The volume at a path, unless it is a result, labels, a sequence, or cannot be read."""
    monitor.check()
    try:
        found = load_volume(path, series=series, monitor=Monitor(cancel=lambda: monitor.cancelled))
    except MedEnhanceError as error:
        monitor.log(f"no guide: {error.message}")
        return
    is_result = any(step.startswith("DERIVED") for step in found.history)
    if is_result or found.is_sequence or _is_labels(found):
        return
    if found.modality_is_guess:
        found = replace(found, modality=volume.modality)
    if found.modality == volume.modality:
        yield found


def _is_labels(volume: Volume) -> bool:
    is_whole = volume.dtype.kind in "iub"
    return is_whole and len(np.unique(volume.voxels)) < _FEWEST_VALUES
