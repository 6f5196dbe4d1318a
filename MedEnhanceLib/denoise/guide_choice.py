"""Automatic choice of a guide (`auto`): another series of the same examination.

It is searched for beside the volume: among the other series of its DICOM study, in its folder and
in those beside it, or among the other files of its folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from MedEnhanceLib import io
from MedEnhanceLib.core.imaging import mean_frame
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.core.quantity import quantity_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.decide import VolumeCache
from MedEnhanceLib.denoise.guide import Candidate, align, relative_noise, suggest
from MedEnhanceLib.errors import Cancelled, InputError, MedEnhanceError
from MedEnhanceLib.io.dicom.listing import choices
from MedEnhanceLib.io.formats import CONTAINER
from MedEnhanceLib.runtime.progress import Monitor

#: More files than this beside a volume are not one examination; more folders are not searched.
_MOST_BESIDE = 20
#: Most series that are registered to the volume, each of which takes seconds.
_MOST_TRIES = 3


def choose_guide(path: Path, volume: Volume, cache: VolumeCache, monitor: Monitor) -> list[Volume]:
    """Return the best guide of a volume among the other series of its examination.

    Files whose names begin with the same words as the volume's come first, then series of little
    noise; a series whose anatomy does not fit the volume gives way to the next one.

    Args:
        path: of the volume: a file, or a folder of DICOM.
        volume: to be enhanced.
        cache: of the volume; keeps the copy of the guide on its grid for the enhancement.
        monitor: warned if no series is suitable.
    Returns none if no series is suitable.
    Raises InputError if a folder without DICOM has too many volumes to be one examination.
    """
    origin = volume.dicom_origin
    beside = _files_beside(path) if origin is None else _series_beside(path, origin, monitor)
    places = [*beside]
    groups: dict[int, list[Candidate]] = {}
    for number, (place, series, description) in enumerate(places):
        other = _series_at(place, series, volume.modality, monitor)
        if other is not None:
            words, others = (re.split(r"[\W_]+", name) for name in (path.name, description))
            common = 0 if origin else sum(words[:n] == others[:n] for n in range(1, len(words)))
            groups.setdefault(common, []).append(_candidate(other, str(number), description))
    itself = _candidate(volume, volume.source, path.name) if groups else None
    mean = mean_frame(volume.frames()) if groups else volume
    quiet, tries = Monitor(cancel=lambda: monitor.cancelled), 0
    for _, candidates in sorted(groups.items(), reverse=True):
        while itself and tries < _MOST_TRIES and (suggestion := suggest(itself, candidates)):
            (best, reason), tries = suggestion, tries + 1
            candidates.remove(best)
            place, series, _ = places[int(best.key)]
            guide = _series_at(place, series, volume.modality, monitor)
            aligned = align(guide, mean, quiet) if guide else None
            if guide and aligned and aligned.is_usable:
                cache.guides = ((guide, aligned),)
                monitor.log(f"guide: {reason}")
                return [guide]
    suits = f"fits ({tries} tried)" if tries else "is suitable"
    monitor.warn(f"no other series of this examination {suits}: enhanced without a guide")
    return []


def _candidate(volume: Volume, key: str, description: str) -> Candidate:
    depth, rows, columns = volume.shape[-3:]
    return Candidate(
        key=key,
        description=description,
        modality=volume.modality,
        geometry=volume.geometry,
        shape=(depth, rows, columns),
        noise=relative_noise(volume),
    )


def _series_at(path: Path, series: str | None, modality: str, monitor: Monitor) -> Volume | None:
    """Load a volume; None for results, labels, sequences, another modality, and if it fails."""
    monitor.progress(0.0, "looking for a guide")
    try:
        quiet = Monitor(cancel=lambda: monitor.cancelled)
        volume = io.load(path, series=series, monitor=quiet)
    except Cancelled:
        raise
    except MedEnhanceError as error:
        monitor.log(f"no guide: {error.message}")
        return None
    is_result = any(step.startswith("DERIVED") for step in volume.history)
    if is_result or len(volume.frames()) > 1:
        return None
    volume = volume.single()
    if quantity_of(volume)[0]:
        return None
    if volume.modality_is_guess:
        volume = replace(volume, modality=modality)
    return volume if volume.modality == modality else None


def _series_beside(
    path: Path, origin: DicomOrigin, monitor: Monitor
) -> Iterator[tuple[Path, str | None, str]]:
    """Yield the other series of the study, in its folder and in those beside: folder, key, name."""
    home = path if path.is_dir() else path.parent
    beside = [each for each in sorted(home.parent.iterdir()) if each.is_dir() and each != home]
    for folder in (home, *beside[:_MOST_BESIDE]):
        monitor.check()
        try:
            listed = choices(folder, monitor)
        except MedEnhanceError:
            continue  # a folder without DICOM
        for choice in listed:
            header = choice.about
            is_other = header.study == origin.study and header.series != origin.series
            if is_other and choice.row.readable:
                yield folder, choice.row.key, header.description or folder.name


def _files_beside(path: Path) -> Iterator[tuple[Path, str | None, str]]:
    """Yield file, None and name of the folder's other volumes; InputError for too many."""
    files = [
        file
        for file in sorted(path.parent.iterdir())
        if io.ending_of(file) in (*io.READABLE, CONTAINER) and not file.name.startswith(".")
    ]
    if len(files) > _MOST_BESIDE:
        raise InputError(
            f"{path.parent} has {len(files)} volumes: no guide is chosen among them, as they can "
            "hardly be one examination",
            "Put each examination into a folder, or name the guide.",
        )
    for file in files:
        if file.resolve() != path.resolve():
            yield file, None, file.name
