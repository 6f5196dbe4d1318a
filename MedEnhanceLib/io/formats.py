"""The formats of files with volumes: endings, reading, writing; everything else asks this list.

CONTRIBUTING has a recipe for another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.metaimage import read_metaimage
from MedEnhanceLib.io.nifti import nifti_header, nifti_tables, read_nifti
from MedEnhanceLib.io.nrrd import itk_header, read_nrrd
from MedEnhanceLib.io.tags import Tags
from MedEnhanceLib.runtime.progress import Monitor

Reader = Callable[[Path, Monitor, Path | None], tuple[Volume, Tags]]
HeaderWriter = Callable[[Volume, Monitor], tuple[bytes, np.dtype[Any]]]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of files that hold a volume each.

    Attributes:
        name: in dialogs.
        endings: of names of files that hold header and voxels, in lower case, the usual one first.
            What is written as .gz is packed by gzip.
        detached: endings of headers whose voxels lie in a file of their own, which are only read →
            endings of that file.
        read: returns the volume of a file and the tags in its header; arguments and errors are
            those of `read_nifti`.
        header: makes what stands before the voxels, and the type in which these follow, slowest
            axis first and little-endian; None if the format is only read.
        beside: makes the texts of files that are written beside a volume's, with its name, by their
            endings: a sidecar, say, but not ".json", which is that of BIDS. `read` reads them.
        is_of_bids: whether it has tables of a diffusion scan and a sidecar as BIDS names them.
    """

    name: str
    endings: tuple[str, ...]
    detached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    read: Reader
    header: HeaderWriter | None = None
    beside: Callable[[Volume], Mapping[str, str]] | None = None
    is_of_bids: bool = False


FORMATS = (
    Format(
        name="NIfTI",
        endings=(".nii.gz", ".nii"),
        read=read_nifti,
        header=nifti_header,
        beside=nifti_tables,
        is_of_bids=True,
    ),
    Format(
        name="NRRD",
        endings=(".nrrd",),
        detached={".nhdr": (".raw", ".raw.gz")},
        read=read_nrrd,
        header=partial(itk_header, ".nrrd"),
    ),
    Format(
        name="MetaImage",
        endings=(".mha",),
        detached={".mhd": (".raw", ".zraw")},
        read=read_metaimage,
        header=partial(itk_header, ".mha"),
    ),
)
#: Endings of files that are no entries: those of `unicompress`, and those of `dicom` and
#: `dicomout`, where a volume is a folder or several files, most of which have none of these.
CONTAINER, DICOM_ENDINGS = ".ucv", (".dcm", ".dicom", ".ima")
#: The function that reads a container, by its place: methods lie above the formats.
READS_CONTAINER = "MedEnhanceLib.unicompress:decompress"

READABLE = tuple(ending for each in FORMATS for ending in (*each.endings, *each.detached))
WRITABLE = tuple(ending for each in FORMATS if each.header for ending in each.endings)


def ending_of(path: str | os.PathLike[str]) -> str:
    """Return the ending in lower case, with its dot; ".nii.gz" is one ending."""
    name = Path(path).name.lower()
    endings = (ending for each in FORMATS for ending in each.endings if name.endswith(ending))
    return max(endings, key=len, default=Path(name).suffix)


def stem_of(path: Path) -> str:
    """Return the name of a file without its ending, as `ending_of` has it."""
    return path.name[: -len(ending_of(path)) or None]


def format_of(path: str | os.PathLike[str]) -> Format | None:
    """Return the format that the ending of a name states; None for another ending."""
    ending = ending_of(path)
    known = (each for each in FORMATS if ending in each.endings or ending in each.detached)
    return next(known, None)


def written_format(path: str | os.PathLike[str]) -> Format | None:
    """Return the format in which a file of this name is written; None if there is none."""
    known = format_of(path)
    return known if known and known.header and ending_of(path) in known.endings else None


def voxel_endings(header: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the endings that a header's file of voxels may have; () for other files."""
    known = format_of(header)
    return known.detached.get(ending_of(header), ()) if known else ()


def listed(endings: Iterable[str]) -> str:
    """Join endings for a help text: ".nii.gz, .nii, .nrrd or .mha"."""
    *others, last = endings
    return f"{', '.join(others)} or {last}" if others else last


def dialog_filter(preferred: str) -> str:
    """Return the written formats for a dialog of Qt: "NRRD (*.nrrd);;NIfTI (*.nii.gz *.nii)".

    preferred: an ending of the format that comes first.
    """
    written = sorted(
        (each for each in FORMATS if each.header), key=lambda f: preferred not in f.endings
    )
    return ";;".join(
        f"{each.name} ({' '.join(f'*{ending}' for ending in each.endings)})" for each in written
    )
