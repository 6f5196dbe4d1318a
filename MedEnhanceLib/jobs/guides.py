"""The volumes beside the one that is enhanced: its guides.

A guide is another series of the same examination; `auto` lets the best one be chosen from where the
volume lies: the other series of its DICOM study, or the other files of its folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.jobs.files import CONTAINER, load_volume
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.core.origin import DicomOrigin
    from MedEnhanceLib.hqg.guide import Candidate
    from MedEnhanceLib.io.dicom.headers import Header

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


@dataclass(frozen=True)
class _Place:
    """Where another series lies. series: which one there; header: of DICOM."""

    path: Path
    series: str | None = None
    header: Header | None = None


def chosen_guide(path: Path, volume: Volume, monitor: Monitor) -> Volume | None:
    """The best guide of a volume among the other series of its examination.

    Args:
        path: where the volume was read: a file, or a folder of DICOM.
        volume: what was read there.
        monitor: messages, warnings and cancelling.

    Returns:
        None, with a warning, where nothing suits.

    Raises:
        InputError: a folder without DICOM has too many volumes to be one examination.
    """
    from MedEnhanceLib.hqg.guide import suggest

    if volume.origin is not None:
        own, beside = _series_beside(path, volume.origin, monitor)
    else:
        own, beside = _Place(path), _files_beside(path)
    places = {}
    candidates = []
    for place in beside:
        found = _usable(place, volume, monitor)
        if found is not None:
            candidates.append(_candidate(found, place))
            places[found.source] = place
    suggestion = suggest(_candidate(volume, own), candidates) if candidates else None
    if suggestion is None:
        monitor.warn("no other series of this examination suits: enhanced without a guide")
        return None
    monitor.log(f"guide: {suggestion.reason}")
    return _usable(places[suggestion.candidate.key], volume, monitor)


def _series_beside(
    path: Path, origin: DicomOrigin, monitor: Monitor
) -> tuple[_Place, list[_Place]]:
    """The volume's series, and the others of its examination: there and in the folders beside."""
    from MedEnhanceLib.io.dicom.listing import choices
    from MedEnhanceLib.io.dicom.scan import scan

    here = path if path.is_dir() else path.parent
    beside = [one for one in sorted(here.parent.iterdir()) if one.is_dir() and one != here]
    own, others = _Place(path), []
    for folder in (here, *beside[:_MOST_BESIDE]):
        monitor.check()
        try:
            found = choices(scan(folder, monitor), folder.name)
        except MedEnhanceError:
            continue  # a folder without DICOM
        for one in found:
            place = _Place(folder, one.row.key, one.about)
            if one.about.series == origin.series:
                own = place
            elif one.is_gray and one.row.readable:
                others.append(place)
    return own, [one for one in others if _is_of_examination(one.header, own.header, origin.study)]


def _is_of_examination(other: Header | None, own: Header | None, study: str) -> bool:
    """Whether a series is worth reading: of the study, or of the patient on the same day."""
    if other is None or other.study == study:
        return other is not None
    return own is not None and (other.patient, other.date) == (own.patient, own.date)


def _files_beside(path: Path) -> list[_Place]:
    """The other volumes of the folder.

    Raises InputError for a folder with too many of them to be one examination.
    """
    from MedEnhanceLib.io import READABLE, ending_of

    files = [
        file
        for file in sorted(path.parent.iterdir())
        if ending_of(file) in (*READABLE, CONTAINER) and not file.name.startswith(".")
    ]
    if len(files) > _MOST_BESIDE:
        raise InputError(
            f"{path.parent} has {len(files)} volumes: no guide is chosen among them, as they can "
            "hardly be one examination",
            "Put each examination into a folder, or name the guide.",
        )
    return [_Place(file) for file in files if file.resolve() != path.resolve()]


def _usable(place: _Place, volume: Volume, monitor: Monitor) -> Volume | None:
    """The volume there; None for results, labels, sequences, and what cannot be read."""
    monitor.check()
    quiet = Monitor(cancel=lambda: monitor.cancelled)
    try:
        found = load_volume(place.path, series=place.series, monitor=quiet)
    except Cancelled:
        raise
    except MedEnhanceError as error:
        monitor.log(f"no guide: {error.message}")
        return None
    is_result = any(step.startswith("DERIVED") for step in found.history)
    if is_result or found.is_sequence or _is_labels(found):
        return None
    if found.modality_is_guess:
        found = replace(found, modality=volume.modality)
    return found if found.modality == volume.modality else None


def _candidate(volume: Volume, place: _Place) -> Candidate:
    from MedEnhanceLib.hqg.guide import Candidate, noise_of

    depth, rows, columns = volume.shape[-3:]
    description = Path(volume.source).name
    if place.header is not None:
        description = place.header.description or place.path.name
    return Candidate(
        key=volume.source,
        description=description,
        modality=volume.modality,
        geometry=volume.geometry,
        shape=(depth, rows, columns),
        noise=noise_of(volume),
    )


def _is_labels(volume: Volume) -> bool:
    is_whole = volume.dtype.kind in "iub"
    return is_whole and len(np.unique(volume.voxels)) < _FEWEST_VALUES
