"""NRRD (.nrrd, .nhdr): the header read by its definition, the voxels as in every other format.

Headers of .nrrd and .mha are written by SimpleITK (`itk_header`).

ITK is not used to read: it refuses axes of time that have no direction, ignores units, takes an
unknown space for LPS, and follows a header to any other file.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.diffusion_gradients import Gradient, gradients_of
from MedEnhanceLib.core.geometry import Geometry, Vector
from MedEnhanceLib.core.sequence_kind import DIFFUSION
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.header_lines import NO_UNIT, TextHeader, header_start, warn_of_lost
from MedEnhanceLib.io.voxels import Payload, read_voxels, written_type
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

_SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
#: Names of types, without "signed", "int" after another word, and "_t".
_TYPES = {
    "char": "i1", "int8": "i1", "unsigned char": "u1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "unsigned short": "u2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "unsigned": "u4", "uint": "u4", "uint32": "u4",
    "long long": "i8", "longlong": "i8", "int64": "i8",
    "unsigned long long": "u8", "ulonglong": "u8", "uint64": "u8", "float": "f4", "double": "f8",
}  # fmt: skip
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3}
_IN_SPACE, _OF_FRAMES = {"domain", "space", "none", "???"}, {"list", "time"}
#: Fields with a value for each axis, fastest first → the pattern of a value.
_PER_AXIS = {
    "kinds": r"\S+",
    "space directions": r"none|\([^()]*\)",
    "spacings": r"\S+",
    "units": r'"[^"]*"|\S+',
}
#: Fields and keys that are read, or that follow from the voxels and their place.
_KEPT = (
    "dimension|sizes|type|endian|encoding|space|space (?:dimension|directions|origin|units)|kinds|"
    "spacings|units|data ?file|(?:line|byte) ?skip|old ?m(?:in|ax)|centerings|centers|min|max|"
    rf"Segment(?:\d+_Extent|ation_\w+)|modality|DWMRI_.*|{tags.KEY}|ITK_.*|NRRD_.*"
)
#: Keys of segments that are kept, a color as three numbers of 0 to 1 alone.
_SEGMENT = re.compile(
    rb"(?m)^(Segment\d+_(?:(?!Extent:|Color:)\w+|Color(?=:="
    rb"(?: *(?:[01](?:\.0*)?|0?\.\d+|\d(?:\.\d+)?e-0*[1-9]\d*)(?=\s|$)){3} *\r?$))):=(.*?)\r?$"
)


def read_nrrd(path: Path, monitor: Monitor, scratch: Path | None) -> tuple[Volume, tags.Tags]:
    """Read the volume of a NRRD file, and the tags in its header.

    Args:
        path: the header; voxels may lie in another file beside it.
        monitor: as in `read_nifti`.
        scratch: likewise.
    Results and errors are those of `read_nifti`.
    """
    start = header_start(path)
    head, *rest = re.split(rb"\r?\n\r?\n", start, maxsplit=1)
    if not start.startswith(b"NRRD000"):
        raise InputError(
            f"{path.name} is not a NRRD file: it does not begin with a NRRD header",
            "Check that it is an image and that its name has the right ending.",
        )
    header = TextHeader.parse(path, head, r"(?P<key>[^:#=]+): (?P<value>.*)")
    key = re.search(rb"(?m)^%s:=(.*)$" % tags.KEY.encode(), head)
    facts = tags.from_text(_unescaped(key[1]) if key else "")
    payload = _payload(header, len(start) - sum(map(len, rest)))
    axes = len(payload.shape)
    kinds, directions, spacings, units = (_axis_values(header, field, axes) for field in _PER_AXIS)
    scan = TextHeader.parse(path, head, r"(?P<key>modality|DWMRI_[^:=]+):=(?P<value>.*)")
    is_diffusion = scan.get("modality").upper() == "DWMRI"
    segments = {key.decode(): _unescaped(value) for key, value in _SEGMENT.findall(head)}
    if facts.modality is None and (segments or is_diffusion):
        facts = replace(facts, modality="SEG" if segments else "MR")
    is_plain = re.sub(r"\D", "", header.get("measurement frame")) == "100010001"
    is_used = is_diffusion or is_plain  # the identity says nothing
    used = [*segments, "measurement frame"] if is_used else segments
    warn_of_lost(path, head, "|".join([_KEPT, *used]), monitor)
    kinds = ["list" if kind == "vector" and is_diffusion else kind for kind in kinds]
    frames = _frame_axis(header, [kind.lower() for kind in kinds])
    if {"oldmin", "oldmax"} & header.fields.keys():
        monitor.warn(f"{path.name} is quantized (old min, old max): its values are taken as stored")
    space_units = re.findall(r'[^\s"]+|""', header.get("space units"))
    in_space = [axis for axis in range(axes) if axis != frames]
    mm = header.unit_mm(space_units[:3] + [units[axis].strip('"') for axis in in_space])
    vectors = [_vector(header, directions[axis]) for axis in in_space]
    if any(vectors):
        geometry = _placed(header, vectors, mm, monitor)
    else:
        geometry = _unplaced(header, [spacings[axis] for axis in in_space], mm, monitor)
    interval = None
    if frames is not None:
        vector = _vector(header, directions[frames])
        if vector and (len(vector) < 4 or any(vector[:3])):
            raise header.refused("space directions", directions, f"axis {frames + 1} holds frames")
        step = str(vector[3]) if vector else spacings[frames]
        unit = ([*space_units, "", "", "", ""][3] if vector else units[frames]).strip('"').lower()
        seconds = None if unit in NO_UNIT else _SECONDS.get(unit, 0.0)
        field = f"{path.name}: {'space directions' if vector else 'spacings'} of time"
        interval = tags.frame_interval(_float(header, field, step), seconds, facts, field, monitor)
    voxels = read_voxels(payload, monitor, scratch)
    if frames is not None:
        voxels = np.moveaxis(voxels, axes - 1 - frames, 0)
    if segments and frames is not None:
        voxels, interval = _joined(voxels, segments, path.name, monitor), None
    # NRRD keeps spacing × direction, which loses the last bit; the tags' geometry is exact.
    geometry = tags.exact_geometry(geometry, facts)
    volume = Volume(
        voxels,
        geometry,
        source=str(path),
        frame_interval_s=interval,
        header_fields=facts.header_fields | segments if segments else {},
    )
    if is_diffusion and frames is not None:
        gradients = _gradients(header, scan, len(voxels), monitor)
        volume = replace(volume, sequence_kind=DIFFUSION, gradients=gradients)
    return volume, facts


def _unescaped(text: bytes) -> str:
    """Read the value of a key, in which a backslash stands before n (a new line) and itself."""
    plain = re.sub(rb"\\(.)", lambda match: match[1].replace(b"n", b"\n"), text)
    return plain.decode("utf-8", "replace")


def _joined(layers: Voxels, segments: dict[str, str], name: str, monitor: Monitor) -> Voxels:
    """Join the layers of a segmentation to one label map; segments get their new values.

    Raises InputError if segments overlap, as two of one value in one layer do, or a layer has
    values of no segment.
    """
    labels, stated, covered = np.zeros(layers.shape[1:], np.uint16), list[str](), 0
    names = {key.partition("_")[0] for key in segments}
    for number, segment in enumerate(sorted(names, key=lambda name: int(name[7:])), 1):
        layer = segments.get(f"{segment}_Layer", str(number - 1))
        value = segments.get(f"{segment}_LabelValue", "1")
        if not (layer.isdecimal() and value.isdecimal() and int(layer) < len(layers)):
            raise InputError(f"{name}: {segment}_Layer or _LabelValue is wrong", "Export it again.")
        mask = layers[int(layer)] == int(value)
        labels[mask], covered = number, covered + int(np.count_nonzero(mask))
        segments |= {f"{segment}_LabelValue": str(number), f"{segment}_Layer": "0"}
        stated.append(f"{number} = {segments.get(f'{segment}_Name', segment)}")
    if not np.count_nonzero(labels) == np.count_nonzero(layers) == covered:
        raise InputError(
            f"{name}: its layers hold segments that overlap, or values of no segment",
            "In 3D Slicer, export the segments to a label map, and save that.",
        )
    if len(layers) > 1 or not np.array_equal(labels, layers[0]):
        what = f"{len(layers)} layers joined to" if len(layers) > 1 else "new values in"
        monitor.warn(f"{name}: {what} one label map: {', '.join(stated)}")
    return labels


def _gradients(
    header: TextHeader, scan: TextHeader, frames: int, monitor: Monitor
) -> tuple[Gradient, ...]:
    """Read the gradients of a diffusion scan of 3D Slicer; () with a warning for faulty ones.

    The b-value is that of the longest vector, and falls with the square of the length. The columns
    of the measurement frame are in the space of the file.

    scan: the keys and values of diffusion.
    """
    vectors = list[list[str]]()
    try:
        while len(vectors) < frames:
            at = f"{len(vectors):04}"
            repeats = min(int(scan.get(f"DWMRI_NEX_{at}", "1")), frames - len(vectors))
            vectors += [scan.get(f"DWMRI_gradient_{at}").split()] * max(repeats, 1)
        measured = np.array(vectors, float).reshape(frames, 3)
        columns = re.findall(r"[^(),\s]+", header.get("measurement frame", "1 0 0 0 1 0 0 0 1"))
        axes, highest = np.array(columns, float).reshape(3, 3), float(scan.get("DWMRI_b-value"))
        if not (np.abs([*measured, *axes]).max() < 1e6 and 0 <= highest < np.inf):
            raise ValueError("a number is too large, negative or not finite")
    except ValueError as cause:
        monitor.warn(f"{header.path.name}: keys DWMRI, which are not kept, are not read: {cause}")
        return ()
    squares = (measured**2).sum(axis=1)
    b_values = (highest * squares / (squares.max() or 1.0)).round(2)
    along = measured @ axes * _SPACES.get(header.get("space").lower(), (1, 1, 1))
    lengths = np.linalg.norm(along, axis=1)[:, None]
    return gradients_of(b_values, along / np.where(lengths > 0, lengths, 1))


def _axis_values(header: TextHeader, field: str, axes: int) -> list[str]:
    if field.replace(" ", "") not in header.fields:
        return [{"kinds": "???", "space directions": "none"}.get(field, "")] * axes
    values = re.findall(_PER_AXIS[field], header.get(field))
    if len(values) != axes:
        why = f"not one value for each of {axes} axes"
        raise header.refused(field, header.get(field), why)
    return values


def _float(header: TextHeader, field: str, text: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        raise header.refused(field, text, "not a number") from None


def _vector(header: TextHeader, text: str) -> Vector | None:
    if text == "none":
        return None
    numbers = text.strip("() ").split(",")
    return tuple(_float(header, "space directions", number) for number in numbers)


def _frame_axis(header: TextHeader, kinds: list[str]) -> int | None:
    """Find the axis that holds frames; the last of four axes if no kind states it."""
    text = " ".join(kinds)
    if not set(kinds) <= _IN_SPACE | _OF_FRAMES:
        raise header.refused("kinds", text, "several values per voxel, a color or vector")
    marked = [at for at, kind in enumerate(kinds) if kind in _OF_FRAMES]
    if not marked and len(kinds) == 4:
        marked = [3]
    if len(marked) != len(kinds) - 3:
        raise header.refused("kinds", text, "this does not leave three axes of space")
    return marked[0] if marked else None


def _payload(header: TextHeader, begin: int) -> Payload:
    shape = header.shape("sizes", header.get("dimension"))
    name = re.sub(r"^signed | int$|_t$", "", header.get("type").lower())
    if name not in _TYPES:
        raise header.refused("type", header.get("type", "missing"), "not a type of numbers")
    encoding = header.get("encoding").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise header.refused("encoding", encoding, "only raw and gzip are read")
    dtype, order = np.dtype(_TYPES[name]), header.get("endian").lower()
    if order not in ("little", "big") and (order or dtype.itemsize > 1):
        raise header.refused("endian", order or "missing", "neither little nor big")
    voxel_file = header.path
    if "datafile" in header.fields:
        voxel_file, begin = header.file_beside("data file", header.get("data file")), 0
    for field in ("line skip", "byte skip"):
        if header.get(field, "0") != "0":
            raise header.refused(field, header.get(field), "only 0 is read")
    dtype = dtype.newbyteorder(">" if order == "big" else "<")
    return Payload(voxel_file, shape, dtype, encoding != "raw", begin)


def _unplaced(header: TextHeader, spacings: list[str], mm: float, monitor: Monitor) -> Geometry:
    """Make the geometry of three axes without directions."""
    has_spacings = any(spacings)
    text = " ".join(spacings) if has_spacings else "1 1 1"
    try:
        i, j, k = (float(spacing) * mm for spacing in text.split())
        geometry = Geometry((i, j, k))
    except (ValueError, GeometryError):
        raise header.refused("spacings", text, "no voxel size") from None
    monitor.warn(
        f"{header.path.name} has no space directions: its place in the patient, and which side is "
        "left, are unknown; its axes are taken as LPS"
        + ("" if has_spacings else ", and its voxels as 1 mm wide (no spacings)")
    )
    return geometry


def _placed(
    header: TextHeader, vectors: list[Vector | None], mm: float, monitor: Monitor
) -> Geometry:
    """Make the geometry of three axes with directions."""
    name, space = header.path.name, header.get("space").lower()
    signs = _SPACES.get(space.removesuffix("-time" if "-" in space else "t"))
    if space and signs is None:
        why = "no anatomical directions (left-posterior-superior, say)"
        raise header.refused("space", repr(space), why)
    if signs is None or not header.get("space origin"):
        what = "space, only its dimension: it is" if signs is None else "space origin: its axes are"
        monitor.warn(f"{name} names no {what} taken as LPS; check left, right and place")
    if not all(vector and len(vector) in (3, 4) and not any(vector[3:]) for vector in vectors):
        text = header.get("space directions")
        raise header.refused("space directions", text, "not one in space for each axis")
    origin = _vector(header, header.get("space origin", "(0,0,0)")) or ()
    if len(origin) not in (3, 4):
        raise header.refused("space origin", origin, "not a place")
    columns = [(*vector[:3], 0.0) for vector in vectors if vector]
    affine = np.array([*columns, (*origin[:3], 1.0)]).T
    affine[:3] *= np.array(signs or (1, 1, 1))[:, None] * mm * [[-1], [-1], [1]]  # LPS to RAS
    try:
        return Geometry.from_affine_ras(affine)
    except GeometryError as cause:
        raise GeometryError(f"{name}: {cause.message}", cause.hint) from cause


def itk_header(ending: str, volume: Volume, monitor: Monitor) -> tuple[bytes, np.dtype[Any]]:
    """Make the header of an uncompressed .nrrd or .mha file, and the type of its voxels.

    ITK writes it for a single voxel; then the sizes of the volume are put in.

    Args:
        ending: .nrrd or .mha.
        volume: gives shape, geometry and tags.
        monitor: warned of gradients that are too many.
    """
    if len(volume.gradients) > tags.MOST_GRADIENTS:
        monitor.warn(f"NIfTI alone keeps the b-values of over {tags.MOST_GRADIENTS} frames")
    sitk = require("SimpleITK", purpose=f"Writing {ending} files")
    axes, dtype = len(volume.shape), written_type(volume.dtype)
    voxel = np.zeros((1,) * axes, dtype)
    image = sitk.GetImageFromArray(voxel, isVector=False)
    direction = np.eye(axes)
    direction[:3, :3] = volume.geometry.direction
    image.SetSpacing([*volume.geometry.spacing, volume.frame_interval_s or 1.0][:axes])
    image.SetOrigin([*volume.geometry.origin, 0.0][:axes])
    image.SetDirection(direction.ravel().tolist())
    image.SetMetaData(tags.KEY, tags.to_text(volume))
    for key, text in volume.header_fields.items():
        if key.startswith(tags.SEGMENT) and ending == ".nrrd":
            image.SetMetaData(key, str(text))
            extent = " ".join(f"0 {size - 1}" for size in volume.shape[::-1])
            image.SetMetaData(f"{key.partition('_')[0]}_Extent", extent)
            image.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"voxel{ending}")
        sitk.WriteImage(image, str(path), useCompression=False)
        header = path.read_bytes()[: -voxel.nbytes]
    # ITK leaves the space of four axes without a name, and the interval without its unit.
    unit = "s" if volume.frame_interval_s else ""
    space = f'space: left-posterior-superior-time\nspace units: "mm" "mm" "mm" "{unit}"'
    header = header.replace(b"\nspace dimension: 4\n", f"\n{space}\n".encode(), 1)
    if ending == ".mha" and not volume.modality_is_guess:
        stated = volume.modality if volume.modality in ("CT", "MR") else "OTHER"
        header = header.replace(b"\nDimSize", f"\nModality = MET_MOD_{stated}\nDimSize".encode(), 1)
    sizes = " ".join(map(str, volume.shape[::-1])).encode()
    header = re.sub(rb"(?m)^(sizes: |DimSize = )[1 ]+$", rb"\g<1>" + sizes, header, count=1)
    return header, dtype
