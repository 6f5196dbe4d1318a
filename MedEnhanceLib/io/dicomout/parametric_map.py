"""An uncertainty map as a DICOM Parametric Map: float32, bit for bit, with its unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout.attributes import set_side
from MedEnhanceLib.io.dicomout.derivation import Derivation
from MedEnhanceLib.io.dicomout.objects import identity, refer, sign, stand_ins
from MedEnhanceLib.io.dicomout.placement import lay_out
from MedEnhanceLib.io.dicomout.template import Template
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

#: Value and meaning of DICOM's code.
_CALCULATION = ("112187", "Unspecified method of calculation")
#: Our units → value and meaning of their code in UCUM.
_UNIT_CODES = {
    "HU": ("[hnsf'U]", "Hounsfield unit"),
    "Bq/ml": ("Bq/ml", "Becquerels/milliliter"),
    "counts": ("{counts}", "Counts"),
    "Gy": ("Gy", "Gy"),
    "relative": ("{ratio}", "ratio"),
}
#: By body weight, the default of SUVType.
_SUV = ("g/ml{SUVbw}", "Standardized Uptake Value body weight")
_NO_UNITS = ("1", "no units")


def build_uncertainty(
    volume: Volume,
    *,
    template: Template,
    derivation: Derivation,
    source_images: Sequence[Dataset] | None = None,
    monitor: Monitor | None = None,
) -> Dataset:
    """Make a Parametric Map of standard deviations, on the grid of `volume`.

    Args:
        volume: float32 [K, J, I], standard deviation of the intensity in `volume.units`, from 0.
        template: as in `build_segmentation`.
        derivation: likewise.
        source_images: likewise.
        monitor: likewise.
    Raises InputError for several frames, for values that are negative or not finite, and for more
    voxels than one DICOM object holds.
    """
    hd = require("highdicom", purpose="Writing an uncertainty map as DICOM")
    from pydicom import Dataset
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    volume = volume.single("A parametric map holds one point in time: write each frame on its own.")
    voxels = _deviations(volume)
    grid = lay_out(volume, template, source_images)
    first = template.headers[0] if template.headers else Dataset()
    (monitor or Monitor()).progress(0.1, "uncertainty as DICOM")
    limits, unit = np.finfo(np.float32), _unit_of(volume, first)
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="UNCERTAINTY",
        lut_explanation="Standard deviation of the intensity",
        unit=Code(unit[0], "UCUM", unit[1]),
        value_range=(float(limits.min), float(limits.max)),
        slope=1,
        intercept=0,
        quantity_definition=codes.SCT.StandardDeviation,
    )
    top = _top_of(voxels)
    window = hd.VOILUTTransformation(
        window_center=float(f"{top / 2:.6g}"),
        window_width=float(f"{top:.6g}"),
        window_explanation="0 to the 99th percentile",
        voi_lut_function="LINEAR_EXACT",
    )
    dataset: Dataset = hd.pm.ParametricMap(
        source_images=stand_ins(grid, (volume.shape[1], volume.shape[2]), template),
        pixel_array=voxels,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        derived_pixel_contrast="QUANTITY",
        **identity(template, kind="uncertainty"),
    )
    refer(dataset, grid, _CALCULATION)
    sign(dataset, template, derivation, kind="uncertainty")
    dataset.Laterality = first.get("Laterality") or first.get("ImageLaterality")
    _state_what_shows(dataset, template)
    return dataset


def _state_what_shows(dataset: Dataset, template: Template) -> None:
    """State the side, and that text or a face may show, as in the source: edges show in a map.

    For BurnedInAnnotation the class allows NO alone, which would be untrue.
    """
    for keyword in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        if any(header.get(keyword) == "YES" for header in template.headers):
            setattr(dataset, keyword, "YES")
    set_side(dataset)


def _unit_of(volume: Volume, header: Dataset) -> tuple[str, str]:
    """Return the UCUM code of the volume's unit, and its meaning."""
    if volume.units == "SUV" and (header.get("SUVType") or "BW") == "BW":
        return _SUV
    return _UNIT_CODES.get(volume.units, _NO_UNITS)


def _top_of(voxels: Floats) -> float:
    """Return the 99th percentile of a million voxels; the maximum if that is 0, 1 if all are 0."""
    some = voxels.ravel()[:: voxels.size // 1_000_000 + 1]
    return float(np.percentile(some, 99)) or float(voxels.max()) or 1.0


def _deviations(volume: Volume) -> Floats:
    name = volume.source or "the uncertainty map"
    voxels = volume.voxels.astype(np.float32, copy=False)
    if not np.isfinite(voxels).all() or voxels.min() < 0:
        raise InputError(
            f"{name} is no uncertainty map: it has values below 0, or not finite",
            "Give the expected error of each voxel (1 SD), in the units of the volume.",
        )
    if voxels.nbytes > 2**32 - 2:
        raise InputError(
            f"{name} has {voxels.nbytes / 2**30:.1f} GiB, one DICOM object holds 4",
            "Cut the volume to the region of interest.",
        )
    return voxels
