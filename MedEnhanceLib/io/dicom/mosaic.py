"""Mosaics: the slices of a volume side by side in one image, as two manufacturers write them.

Siemens: ImagePositionPatient and the size are those of the whole picture, whose center is that of
the first slice. The CSA header of the image (csa.py) states the direction from slice to slice; if
it was removed, the protocol lists the centers of all slices.
United Imaging: a private sequence states the place and the time of each slice.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import diffusion, slices
from MedEnhanceLib.io.dicom.csa import read_csa
from MedEnhanceLib.io.dicom.slices import Fields, Slice
from MedEnhanceLib.io.dicom.structure import DamagedError, read_elements

#: Private elements of Siemens: the number of slices, with its creator; headers of image and series.
_COUNT, _CREATOR = 0x0019100A, 0x00190010
_IMAGE_HEADER, _SERIES_HEADER = 0x00291010, 0x00291020
#: Private sequence of United Imaging: an item for each slice.
_UIH_SLICES, _UIH_WORD = 0x00651051, "VFRAME"
#: Words for mosaics in ImageType.
WORDS = ("MOSAIC", _UIH_WORD)
#: Elements that are read from every image to recognize a mosaic.
ELEMENTS = (_COUNT, _CREATOR)
_CENTER = re.compile(r"sSliceArray\.asSlice\[(\d+)\]\.sPosition\.d(Sag|Cor|Tra)\s*=\s*(\S+)")
_AXES = ("Sag", "Cor", "Tra")
#: Tolerance of the cosine between the direction of the slices and their normal.
_MOST_ASKEW = 1e-3
#: In spacings: how far the first slice may lie from its center in the protocol.
_NEAR = 0.1


def is_mosaic(picture: Slice, header: Fields) -> bool:
    """Return whether an image holds several slices; ImageType may lack the word for it."""
    return any(word in picture.image_type for word in WORDS) or _stated_count(header) > 1


def tiles_of(picture: Slice, header: Fields) -> tuple[Slice, ...]:
    """Divide a mosaic into the slices that it holds, each with its own place.

    picture: the mosaic as if it were a slice.
    header: with ELEMENTS.
    Raises InputError if the number of slices, their direction or their distance is unknown.
    """
    if _UIH_WORD in picture.image_type:
        return _united_imaging(picture)
    image, centers = _private_headers(picture)
    stated = (image.get("NumberOfImagesInMosaic") or ("",))[0]
    count = _stated_count(header) or int(stated if stated.isdecimal() else len(centers))
    if not count:
        raise _unknown("the number of its slices", "(0019,100A)")
    across = math.isqrt(count - 1) + 1
    tile = _tile(picture, count, (across, across))
    # A picture without a place is refused later, as any slice.
    positions: list[tuple[float, ...] | None] = [picture.position] * count
    if picture.position and picture.orientation and picture.pixel_spacing:
        right, down = np.reshape(np.asarray(picture.orientation), (2, 3))
        row_mm, column_mm = picture.pixel_spacing
        corner = right * column_mm * tile.columns + down * row_mm * tile.rows
        first = np.asarray(picture.position) + corner * (across - 1) / 2
        step = np.zeros(3)
        if count > 1:
            normal = np.cross(right, down)
            step = _step(picture, image, centers, first + corner / 2, normal)
        positions = [tuple((first + number * step).tolist()) for number in range(count)]
    return tuple(
        replace(tile, tile=number, position=position)
        for number, position in enumerate(positions, 1)
    )


def _tile(picture: Slice, count: int, grid: tuple[int, int]) -> Slice:
    """Return the picture with the size of a tile; grid: tiles across and down."""
    columns, rows = picture.columns // grid[0], picture.rows // grid[1]
    if (columns * grid[0], rows * grid[1]) != (picture.columns, picture.rows):
        raise InputError(
            f"a mosaic of {count} slices, whose {picture.columns}×{picture.rows} pixels cannot be "
            f"divided into {grid[0]}×{grid[1]} tiles of equal size",
            "Export the original images.",
        )
    words = tuple(word for word in picture.image_type if word not in WORDS)
    return replace(picture, rows=rows, columns=columns, image_type=words)


def _united_imaging(picture: Slice) -> tuple[Slice, ...]:
    with picture.file.open("rb") as stream:
        dataset = read_elements(stream, (_UIH_SLICES,), last=_UIH_SLICES)
    items = dataset[_UIH_SLICES].value if _UIH_SLICES in dataset else None
    if not isinstance(items, Sequence) or isinstance(items, bytes | str) or not items:
        raise _unknown("the number of its slices", "(0065,1051)")
    across = math.isqrt(len(items) - 1) + 1
    tile = _tile(picture, len(items), (across, -(-len(items) // across)))
    return tuple(
        replace(
            tile,
            tile=number,
            position=slices.floats(item, "ImagePositionPatient", 3),
            time_s=slices.acquisition_time(slices.plain_values(item)) or picture.time_s,
        )
        for number, item in enumerate(items, 1)
    )


def _stated_count(header: Fields) -> int:
    value = header.get(_COUNT)
    if not diffusion.is_of("SIEMENS MR HEADER", header, _COUNT):
        return 0
    if isinstance(value, bytes):  # of unknown VR
        return int.from_bytes(value[:2], "little")
    return int(slices.measured(header, _COUNT) or 0)


def _private_headers(picture: Slice) -> tuple[dict[str, tuple[str, ...]], Doubles]:
    """Read the CSA header of the image ({} for none), and the centers [K, 3] mm in the protocol.

    De-identification may have removed the elements that name their creator: it is not checked.
    """
    with picture.file.open("rb") as stream:
        dataset = read_elements(stream, (_IMAGE_HEADER, _SERIES_HEADER), last=_SERIES_HEADER)
    headers: list[dict[str, tuple[str, ...]]] = []
    for tag in (_IMAGE_HEADER, _SERIES_HEADER):
        value = dataset[tag].value if tag in dataset else b""
        try:
            headers.append(read_csa(value) if isinstance(value, bytes) else {})
        except DamagedError:
            headers.append({})
    protocol = "".join(headers[1].get("MrPhoenixProtocol") or headers[1].get("MrProtocol", ()))
    centers: dict[int, dict[str, float]] = defaultdict(dict)
    for number, axis, mm in _CENTER.findall(protocol):
        centers[int(number)][axis] = slices.measured({axis: mm}, axis) or 0.0  # zeros are omitted
    listed = [[centers[k].get(axis, 0.0) for axis in _AXES] for k in sorted(centers)]
    return headers[0], np.array(listed, np.float64).reshape(-1, 3)


def _step(
    picture: Slice,
    image: dict[str, tuple[str, ...]],
    centers: Doubles,
    center: Doubles,
    normal: Doubles,
) -> Doubles:
    """Return the step from slice to slice, mm in LPS; center: of the first slice."""
    stated = [
        slices.measured({"": cosine}, "") or 0.0 for cosine in image.get("SliceNormalVector", ())
    ]
    towards, mm = np.array(stated or [0.0] * 3), abs(picture.between or 0.0)
    if len(centers) > 1:
        step = (centers[-1] - centers[0]) / (len(centers) - 1)
        mm = mm or float(np.linalg.norm(step))
        away = [float(np.linalg.norm(end - center)) for end in (centers[0], centers[-1])]
        if not stated and min(away) <= _NEAR * mm:
            towards = step / mm if away[0] < away[1] else -step / mm
    if not mm:
        raise _unknown("the distance of its slices", "SpacingBetweenSlices")
    cosine = float(towards @ normal) if towards.size == 3 else 0.0
    if abs(abs(cosine) - 1) > _MOST_ASKEW:
        raise _unknown("the direction from slice to slice", "SliceNormalVector in (0029,1010)")
    return np.asarray(math.copysign(mm, cosine) * normal)


def _unknown(what: str, element: str) -> InputError:
    return InputError(
        f"a mosaic (the slices of a volume side by side in one image), and {what} is unknown: "
        f"{element} is missing",
        "Export it with its private elements; or convert the original with dcm2niix.",
    )
