"""Reading and writing of volumes, in the format that the ending of the file name states."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import looks_like_labels, slabs
from MedEnhanceLib.core.diffusion_gradients import (
    Gradient,
    are_same,
    read_fsl_tables,
)
from MedEnhanceLib.core.modality import PROFILES, guess_modality, profile_of
from MedEnhanceLib.core.options import in_their_case
from MedEnhanceLib.core.quantity import LABELS, PHASE, quantity_in
from MedEnhanceLib.core.sequence_kind import DIFFUSION, stated_kind
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, EndingError, InputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.io.describe import refuse_not_finite, warn_of_content
from MedEnhanceLib.io.dicom.load import load_dicom
from MedEnhanceLib.io.dicom.sources import is_dicom, is_source
from MedEnhanceLib.io.formats import (
    CONTAINER,
    DICOM_ENDINGS,
    READABLE,
    WRITABLE,
    ending_of,
    format_of,
    stem_of,
    written_format,
)
from MedEnhanceLib.io.json_input import read_object
from MedEnhanceLib.io.packing import pack
from MedEnhanceLib.io.voxels import refuse_pipe
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import reason_of

#: Fields of a sidecar that may differ from frame to frame → the attribute of DICOM; and fields that
#: state a kind → a word for it.
_AXES = {"EchoTime": "echo", "InversionTime": "inversion time"}
_STATES = {"ArterialSpinLabelingType": "asl", "TaskName": "bold"}
#: Names of BIDS for files whose frames are repetitions.
_REPEATED = re.compile("_(sbref|m0scan)$|_(echo|inv)-.*_(MESE|MEGRE|IRT1)$")


def load(
    path: str | os.PathLike[str],
    *,
    modality: str | None = None,
    series: str | None = None,
    resample: bool = False,
    complete_frames: bool = False,
    scratch: Path | None = None,
    monitor: Monitor | None = None,
) -> Volume:
    """Read a volume: NIfTI, NRRD, MetaImage or DICOM; raises as `api.load` does.

    Args:
        path: file or folder.
        modality: instead of that in the file.
        series: of a DICOM folder, its number or UID.
        resample: whether an uneven or tilted DICOM series is resampled instead of refused.
        complete_frames: whether the last frame of a DICOM sequence is left out if it lacks slices.
        scratch: a folder with free space; if given, the voxels of large NIfTI, NRRD and MetaImage
            files stay on disk: in the file, which must not change meanwhile, or unpacked there.
        monitor: notified of warnings and progress; may cancel.
    """
    path, monitor = Path(path), monitor or Monitor()
    modality = modality and in_their_case(modality, PROFILES)
    path = path if path.name else path.absolute()  # the present folder, by its name
    refuse_pipe(path)
    is_folder = path.is_dir()
    if not is_folder and path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes)", "Copy or download the file again.")
    known = format_of(path)
    if is_folder or (
        known is None and (ending_of(path) in DICOM_ENDINGS or is_dicom(path) or is_source(path))
    ):
        volume = load_dicom(
            path,
            modality=modality,
            series=series,
            resample=resample,
            complete_frames=complete_frames,
            monitor=monitor,
        )
    elif known is not None:
        if series is not None:
            raise ConfigError(f"{path.name} is not DICOM and has no series", "Leave series out.")
        volume = _meaning(*known.read(path, monitor, scratch), modality)
        if known.is_of_bids:
            volume = _with_tables(volume, path, monitor)
    else:
        raise InputError(
            f"{path.name}: files that end in {ending_of(path) or 'nothing'} cannot be read",
            "Give DICOM (a folder or a file; a zip unpacked), or one of: "
            f"{', '.join(READABLE)}, {CONTAINER}.",
        )
    refuse_not_finite(volume)
    # Labels may be stored as images of the modality that they were drawn on.
    origin = volume.dicom_origin if modality and not volume.profile.is_labels else None
    warn_of_content(volume, path.name, monitor, stated=origin.modality if origin else "")
    return volume


def save(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> None:
    """Write a volume in the format that the ending of `path` names, completely or not at all.

    .nii and .nii.gz keep the geometry in float32, and exactly in a header extension; .nrrd and
    .mha keep every bit and are written uncompressed. All keep modality, units and history in the
    header. None of them supports bool and float16: these become uint8 and float32. The tables .bval
    and .bvec of a diffusion scan are written beside a NIfTI file.

    Args:
        volume: the volume to write; its voxels must be finite.
        path: the file; its ending is one of WRITABLE.
        overwrite: whether an existing file is replaced.
        monitor: may cancel; then an earlier file stays as it was.
    Raises OutputError: an unknown ending, an existing file, no permission, no space.
    Raises InputError: voxels that are not finite.
    """
    path, monitor = Path(path), monitor or Monitor()
    known = written_format(path)
    if known is None or known.header is None:
        raise EndingError(
            f"{path.name}: volumes cannot be written as {ending_of(path) or 'a name without end'}",
            f"Use one of: {', '.join(WRITABLE)}.",
        )
    refuse_not_finite(volume)
    if ending_of(path) != ".nrrd":
        tags.warn_of_segments(volume, monitor)
    texts = texts_beside(volume, path)
    with contextlib.ExitStack() as files:
        temporary = files.enter_context(atomic_write(path, overwrite=overwrite))
        for place, text in texts.items():
            beside = files.enter_context(atomic_write(place, overwrite=overwrite))
            beside.write_text(text, encoding="utf-8")
        header, dtype = known.header(volume, monitor)
        content = _content(header, volume, dtype, monitor)
        with temporary.open("wb") as file:
            file.writelines(
                pack(content, monitor) if path.name.lower().endswith(".gz") else content
            )


def texts_beside(volume: Volume, path: Path) -> dict[Path, str]:
    """Return the texts of the files to write beside a volume's; {} for tables that exist."""
    known = written_format(path)
    if known is None or known.beside is None:
        return {}
    if known.is_of_bids and volume.gradients:
        with contextlib.suppress(OSError, ValueError):
            places = gradient_tables_of(path, inherit=False)
            if are_same(_read_tables(places, volume), volume.gradients):
                return {}
    texts = known.beside(volume)
    return {path.with_name(stem_of(path) + ending): text for ending, text in texts.items()}


def gradient_tables_of(path: Path, *, inherit: bool = True) -> list[Path]:
    """Find the tables of b-values and directions that belong to a NIfTI file by their names.

    inherit: whether tables in upper folders of a BIDS dataset count.
    """
    stem, places = stem_of(path), list[Path]()
    for kind in ("bval", "bvec"):
        names = [f"{stem}.{kind}", f"{stem}.{kind}s", *([f"{kind}s"] if stem == "data" else [])]
        beside = [place for place in map(path.with_name, names) if place.is_file()]
        places += (beside or [*(_inherited(path, f".{kind}") if inherit else ())])[:1]
    return places


def _inherited(path: Path, ending: str) -> Iterator[Path]:
    """Yield the files in upper folders of a BIDS dataset that hold for an image, nearest first."""
    folders, parts = path.absolute().parents[:4], stem_of(path).split("_")
    tops = (n for n, top in enumerate(folders, 1) if (top / "dataset_description.json").is_file())
    for folder in folders[: next(tops, 0)]:
        for place in sorted(folder.glob(f"*{ending}")):
            entities = place.stem.split("_")
            if entities[-1] == parts[-1] and {*entities} <= {*parts}:
                yield place


def _read_tables(places: list[Path], volume: Volume) -> tuple[Gradient, ...]:
    """Read the tables of a volume; ValueError with the reason if they are wrong."""
    if len(places) != 2:
        raise ValueError("one of the two tables, .bval and .bvec, is missing")
    b_values, directions = (place.read_text("utf-8-sig", "replace") for place in places)
    return read_fsl_tables(b_values, directions, len(volume.frames()), volume.geometry)


def _with_tables(volume: Volume, path: Path, monitor: Monitor) -> Volume:
    """Take the gradients from the tables beside a file, if these differ from the header's."""
    if not (places := gradient_tables_of(path)):
        return volume
    try:
        gradients = _read_tables(places, volume)
    except (OSError, ValueError) as cause:
        names = " and ".join(place.name for place in places)
        monitor.warn(f"{names}: not read, and not written beside results: {reason_of(cause)}")
        return volume
    is_known = are_same(gradients, volume.gradients)  # from the header, with every bit
    return volume if is_known else dataclasses.replace(volume, gradients=gradients)


def _content(
    header: bytes, volume: Volume, dtype: np.dtype[Any], monitor: Monitor
) -> Iterator[memoryview]:
    yield memoryview(header)
    for part in slabs(volume.voxels):
        for plane in part:
            monitor.check()
            yield np.ascontiguousarray(plane, dtype.newbyteorder("<")).data


def _meaning(volume: Volume, facts: tags.Tags, modality: str | None) -> Volume:
    """Add modality, units and history: from the user, else the header, else guessed."""
    resolved = modality or facts.modality
    frames = volume.shape[0] if volume.is_sequence else 1
    if resolved is None:
        resolved = guess_modality(volume.voxels, volume.geometry.spacing)
    return dataclasses.replace(
        volume,
        modality=resolved,
        modality_is_guess=not modality and (facts.modality_is_guess or not facts.modality),
        units=facts.units if resolved == facts.modality else profile_of(resolved).units,
        history=facts.history,
        lossy=facts.lossy,
        source=facts.source or volume.source,
        gradients=facts.gradients if len(facts.gradients) == frames else volume.gradients,
        quantity=facts.quantity or volume.quantity or _quantity_beside(volume),
        sequence_kind=facts.sequence_kind or volume.sequence_kind or _kind_beside(volume),
        header_fields=volume.header_fields or facts.header_fields,
    )


def _quantity_beside(volume: Volume) -> str:
    """Return the quantity that a file's name, or the JSON beside it, states as BIDS does."""
    stem, stated, words = _sidecar_of(volume)
    if quantity := quantity_in([*words, f"[{stated.get('Units', '')}]"]):
        return quantity
    *entities, suffix = stem.split("_")
    is_bids = stem.startswith("sub-")
    # FA may be a person, or a flip angle; a phase one of the contrast medium.
    if not (is_bids or len(suffix) > 2 or volume.dtype.kind == "f"):
        return ""
    quantity = quantity_in([suffix, *("PHASE" for each in entities if each == "part-phase")])
    is_other = quantity == LABELS and not looks_like_labels(volume.voxels)
    return "" if is_other or (quantity == PHASE and not is_bids) else quantity


def _kind_beside(volume: Volume) -> str:
    """Return the kind of a sequence that tables, sidecar or name state; "" if none does."""
    path = Path(volume.source)
    if not volume.is_sequence:
        return ""
    if gradient_tables_of(path):  # also where these cannot be used
        return DIFFUSION
    stem, stated, words = _sidecar_of(volume)
    lists = {key: value for key, value in stated.items() if isinstance(value, list)}
    axes = [_AXES[key] for key in _AXES if len({*map(str, lists.get(key, ()))}) > 1]
    words += [word for key, word in _STATES.items() if key in stated]
    if not _REPEATED.search(stem):
        words += [stem.split("_")[-1], *([path.parent.name] if stem.startswith("sub-") else [])]
    return stated_kind(words, *axes[:1], is_followed="ContrastBolusIngredient" in stated)


def _sidecar_of(volume: Volume) -> tuple[str, dict[str, Any], list[str]]:
    """Return the stem of a volume's file, the JSON beside it, and the words of its ImageType."""
    path = Path(volume.source)
    fields = read_object(path.with_name(f"{stem_of(path)}.json"))
    words = fields.get("ImageType")
    return stem_of(path), fields, [*map(str, words)] if isinstance(words, list) else []
