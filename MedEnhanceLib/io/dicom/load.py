"""DICOM at a path → Volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin, Instance, Lossy
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import InputError, MedEnhanceError
from MedEnhanceLib.io.dicom import archives, segmentation
from MedEnhanceLib.io.dicom.copies import require_identical
from MedEnhanceLib.io.dicom.derived import earlier_steps
from MedEnhanceLib.io.dicom.kinds import not_an_image
from MedEnhanceLib.io.dicom.listing import Choice, choices, said
from MedEnhanceLib.io.dicom.pixels import read_intensities
from MedEnhanceLib.io.dicom.scan import scan
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.stack import Repairs, Stack
from MedEnhanceLib.io.dicom.together import stack_frames
from MedEnhanceLib.io.dicom.words import named
from MedEnhanceLib.io.modality import default_units
from MedEnhanceLib.runtime.progress import Monitor

_MODALITIES = ("CT", "MR", "PT")
_UNITS = {"GML": "SUV", "BQML": "Bq/ml", "CNTS": "counts", "GY": "Gy"}


def load_dicom(
    path: Path,
    *,
    modality: str | None = None,
    series: str | None = None,
    repairs: Repairs | None = None,
    monitor: Monitor,
) -> Volume:
    """Read one series of grey images; a series of several frames becomes [T, K, J, I].

    path: a folder, zip, DICOMDIR, list of files or one file (see sources.find_files).
    series: which one, by its number in the list that the error shows, by UID or by UID/part.
    Left out, it is the one series of images that is there. repairs: what may be resampled.
    A segmentation that is named, or the only one where no image is, becomes a volume of labels.
    Raises InputError (GeometryError) where several series fit, and for what gives no volume: with
    the file and the reason.
    """
    try:
        found = choices(scan(path, monitor.part(0, 0.3)), path.name)
        choice = _choose(found, series, path, monitor)
        if choice.part is None and _is_segmentation(choice):
            return _segmentation(choice, path, monitor)
        return _volume(choice, path, modality, repairs, monitor)
    finally:
        archives.forget()


def read_grid(
    path: Path, *, series: str | None, monitor: Monitor
) -> tuple[DicomOrigin, Geometry, tuple[int, ...]]:
    """The images, the geometry and the shape of what `load_dicom` would give; no pixels are read.

    Of a series that it would refuse for its tilt or gaps, the grid that it would be resampled to.
    Raises as `load_dicom`.
    """
    try:
        found = choices(scan(path, monitor.part(0, 0.9)), path.name)
    finally:
        archives.forget()
    choice = _choose(found, series, path, monitor)
    if choice.fault or choice.part is None:
        raise choice.fault or _object_error(choice)
    repairs = Repairs(tilt=True, spacing=True)
    stacks = stack_frames(choice.part.frames, path.name, monitor, repairs)
    frames = (len(stacks),) if len(stacks) > 1 else ()
    is_on_grid = stacks[0].repair is None
    shape = (*frames, *stacks[0].shape)
    return _origin(stacks, is_on_grid=is_on_grid), stacks[0].geometry, shape


# ------------------------------------------------------------ which one


def _choose(found: Sequence[Choice], wish: str | None, path: Path, monitor: Monitor) -> Choice:
    fitting = _all_volumes(found) if wish is None else _wished(found, wish)
    if not fitting and wish is None:
        labels = [one for one in found if _is_segmentation(one)]
        if len(labels) != 1:
            raise _no_volume(found, path)
        fitting = labels
    if wish is None and len(fitting) == 1:  # else the error tells what there is
        _tell_others([one for one in found if one not in fitting], path.name, monitor)
    if len(fitting) != 1:
        raise _ask(fitting or _all_volumes(found), bool(fitting), wish, path)
    chosen = fitting[0]
    if chosen.part is None and not _is_segmentation(chosen):
        raise _object_error(chosen)
    return chosen


def _is_segmentation(choice: Choice) -> bool:
    return choice.about.sop_class in segmentation.CLASSES and not choice.about.damaged


def _segmentation(choice: Choice, path: Path, monitor: Monitor) -> Volume:
    if choice.row.files > 1:
        raise InputError(
            f"{path} holds {choice.row.files} segmentations in one series "
            f"({choice.about.file.name} first)",
            "Give the file of the one that you want.",
        )
    source = f"{path} (series {choice.row.key})"
    labels = segmentation.read_segmentation(choice.about.file, source, monitor.part(0.3, 1))
    return replace(labels, history=earlier_steps(choice.about.file))


def _all_volumes(found: Sequence[Choice]) -> list[Choice]:
    """What a user may mean: grey images; pictures of colours only where there is nothing else."""
    pictures = [one for one in found if one.part is not None]
    return [one for one in pictures if one.is_grey] or pictures


def _wished(found: Sequence[Choice], wish: str) -> list[Choice]:
    exactly = [one for one in found if wish in (str(one.row.number), one.row.key)]
    volumes = [one for one in found if one.part is not None]
    return (
        [one for one in exactly if one in volumes]
        or exactly
        or [one for one in volumes if one.row.uid == wish]
    )


def _ask(fitting: Sequence[Choice], fits: bool, wish: str | None, path: Path) -> InputError:
    if wish is None:
        what = f"holds {len(fitting)} series"
    else:
        what = f"holds {len(fitting)} parts of {wish}" if fits else f"has no series {wish!r} but"
    listing = "".join(f"\n  {one.row.number}: {one.row}" for one in fitting)
    return InputError(
        f"{path} {what}:{listing}",
        "Choose one by its number or UID (--series 1, series='1').",
    )


def _no_volume(found: Sequence[Choice], path: Path) -> MedEnhanceError:
    first = found[0]
    if len(found) == 1 and first.row.files == 1 and first.about.file.path == str(path):
        return _object_error(first)
    return InputError(
        f"{path} holds no image that gives a volume, only {_counted(found)}; {said(first.about)}",
        first.about.hint,
    )


def _object_error(choice: Choice) -> MedEnhanceError:
    about = choice.about
    if about.damaged or not_an_image(about.sop_class) is None:
        return InputError(said(about), about.hint)
    return InputError(
        f"{about.file.name} is no image but: {about.kind}, {about.reason}", about.hint
    )


def _tell_others(others: Sequence[Choice], name: str, monitor: Monitor) -> None:
    damaged = [said(one.about) for one in others if one.about.damaged]
    others = [one for one in others if not one.about.damaged]
    if others:
        monitor.warn(f"{name}: left out, as they give no volume: {_counted(others)}")
    if damaged:
        monitor.warn(f"{name}: left out, as they cannot be read: {named(damaged)}")


def _counted(choices: Sequence[Choice]) -> str:
    counts: Counter[str] = Counter()
    for one in choices:
        counts["damaged file" if one.about.damaged else one.about.kind] += one.row.files
    return ", ".join(f"{count} × {kind}" for kind, count in sorted(counts.items()))


# ------------------------------------------------------------ the volume


def _volume(
    choice: Choice, path: Path, modality: str | None, repairs: Repairs | None, monitor: Monitor
) -> Volume:
    part, about, name = choice.part, choice.about, path.name
    if choice.fault or part is None:
        raise choice.fault or _object_error(choice)
    for note in choice.notes:
        monitor.warn(note)
    stacks = stack_frames(part.frames, name, monitor, repairs)
    require_identical(choice.copies, name, monitor.part(0.3, 0.4))
    own = about.modality if about.modality in _MODALITIES else "OT"
    meaning = modality or own
    ordered = [one for each in stacks for one in each.slices]
    read_till = 1.0 if stacks[0].repair is None else 0.85
    voxels = read_intensities(ordered, meaning, name, monitor.part(0.4, read_till))
    voxels = voxels.reshape(len(stacks), -1, *voxels.shape[-2:])
    voxels, geometry, notes = _repaired(voxels, stacks[0], monitor.part(read_till, 1))
    return Volume(
        voxels if len(stacks) > 1 else voxels[0],
        geometry,
        modality=meaning,
        units=_units(ordered[0], own) if meaning == own else default_units(meaning),
        source=f"{path} (series {choice.row.key})",
        history=(*earlier_steps(ordered[0].file), *notes),
        frame_interval_s=part.interval_s,
        origin=_origin(stacks, is_on_grid=stacks[0].repair is None),
        lossy=_lossy(ordered),
    )


def _repaired(
    frames: Voxels, first: Stack, monitor: Monitor
) -> tuple[Voxels, Geometry, tuple[str, ...]]:
    """The frames [T, K, J, I] on a true grid, and what was done to get there."""
    if first.repair is None:
        return frames, first.geometry, ()
    return first.repair.apply(frames, monitor)


def _units(first: Slice, modality: str) -> str:
    if first.units:
        return _UNITS.get(first.units.upper(), first.units)
    if modality == "CT" and first.rescale_type not in ("", "HU"):
        return first.rescale_type
    return default_units(modality)


def _origin(stacks: Sequence[Stack], *, is_on_grid: bool) -> DicomOrigin:
    first = stacks[0].slices[0]
    return DicomOrigin(
        first.study,
        first.series,
        tuple(
            tuple(
                Instance(str(one.file), one.sop_class, one.instance, one.frame)
                for one in each.slices
            )
            for each in stacks
        ),
        on_grid=is_on_grid,
        body_part=first.body_part,
    )


def _lossy(slices: Sequence[Slice]) -> tuple[Lossy, ...]:
    """The steps that any slice went through, each with the ratio of the slice that lost most."""
    ratios: dict[tuple[int, str], float] = {}
    for one in slices:
        for place, step in enumerate(one.lossy):
            key = (place, step.method)
            ratios[key] = max(ratios.get(key, 0.0), step.ratio)
    return tuple(Lossy(method, ratio) for (_, method), ratio in sorted(ratios.items()))
