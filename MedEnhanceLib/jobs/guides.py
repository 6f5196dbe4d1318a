"""The guide that is chosen where `auto` is asked for: another series of the same examination.

They are looked for where the volume lies: the other series of its DICOM study, there and in the
folders beside, or the other files of its folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.jobs.files import AUTO, CONTAINER, load_volume
from MedEnhanceLib.runtime.progress import Monitor

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
    """Where another series lies. series: which one there."""

    path: Path
    description: str
    series: str | None = None

    def load(self, modality: str, monitor: Monitor) -> Volume | None:
        """The volume; None for results, labels, sequences, and what cannot be read."""
        monitor.check()
        quiet = Monitor(cancel=lambda: monitor.cancelled)
        try:
            volume = load_volume(self.path, series=self.series, monitor=quiet)
        except Cancelled:
            raise
        except MedEnhanceError as error:
            monitor.log(f"no guide: {error.message}")
            return None
        is_result = any(step.startswith("DERIVED") for step in volume.history)
        if is_result or volume.is_sequence:
            return None
        if volume.dtype.kind in "iub" and len(np.unique(volume.voxels)) < _FEWEST_VALUES:
            return None
        if volume.modality_is_guess:
            volume = replace(volume, modality=modality)
        return volume if volume.modality == modality else None


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
    from MedEnhanceLib.hqg.guide import Candidate, noise_of, suggest

    def candidate(series: Volume, key: str, description: str) -> Candidate:
        depth, rows, columns = series.shape[-3:]
        return Candidate(
            key=key,
            description=description,
            modality=series.modality,
            geometry=series.geometry,
            shape=(depth, rows, columns),
            noise=noise_of(series),
        )

    origin = volume.origin
    beside = _files_beside(path) if origin is None else _series_beside(path, origin, monitor)
    places = list(beside)
    candidates = [
        candidate(series, str(number), place.description)
        for number, place in enumerate(places)
        if (series := place.load(volume.modality, monitor)) is not None
    ]
    own = candidate(volume, volume.source, path.name) if candidates else None
    suggestion = suggest(own, candidates) if own else None
    if suggestion is None:
        monitor.warn("no other series of this examination suits: enhanced without a guide")
        return None
    best, reason = suggestion
    monitor.log(f"guide: {reason}")
    return places[int(best.key)].load(volume.modality, monitor)


def _series_beside(path: Path, origin: DicomOrigin, monitor: Monitor) -> Iterator[_Place]:
    """The other series of the examination: in the folder of one, and in the folders beside it.

    They are of the same study, or of the same patient on the same day.
    """
    from MedEnhanceLib.io.dicom.listing import choices

    here = path if path.is_dir() else path.parent
    beside = [each for each in sorted(here.parent.iterdir()) if each.is_dir() and each != here]
    listed = []
    for folder in (here, *beside[:_MOST_BESIDE]):
        monitor.check()
        try:
            listed += [(folder, choice) for choice in choices(folder, monitor)]
        except MedEnhanceError:
            continue  # a folder without DICOM
    visits = {
        (choice.about.patient, choice.about.date)
        for _, choice in listed
        if choice.about.series == origin.series and choice.about.patient and choice.about.date
    }
    for folder, choice in listed:
        header = choice.about
        is_here = header.study == origin.study or (header.patient, header.date) in visits
        if is_here and header.series != origin.series and choice.row.readable:
            yield _Place(folder, header.description or folder.name, choice.row.key)


def _files_beside(path: Path) -> Iterator[_Place]:
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
    for file in files:
        if file.resolve() != path.resolve():
            yield _Place(file, file.name)
