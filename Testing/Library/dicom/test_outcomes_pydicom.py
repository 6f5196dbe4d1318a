"""Each file that comes with pydicom is a volume, as pydicom reads it, or refused with its name."""

from __future__ import annotations

import fnmatch
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.load import load_dicom
from MedEnhanceLib.runtime.progress import Monitor

PACKAGED = Path(pydicom.data.__file__).parent / "test_files"

#: Shape and type of those that are volumes.
VOLUMES = {
    "693_J2KI.dcm": ((1, 512, 512), "CT int16"),
    "CT_small.dcm": ((1, 128, 128), "CT int16"),
    "J2K_pixelrep_mismatch.dcm": ((1, 512, 512), "CT int16"),
    "MR_small*.dcm": ((1, 64, 64), "MR int16"),
    "examples_overlay.dcm": ((1, 300, 484), "MR uint16"),
    "liver_1frame.dcm": ((1, 512, 512), "SEG uint8"),
    "dicomdirtests/*/CT*/*": ((1, 16, 16), "CT int16"),
    "dicomdirtests/*/MR*/*": ((1, 16, 16), "MR int16"),
}
#: Whose name is that of a volume.
DAMAGED = ("MR_small_padded.dcm",)
#: What errors say.
REASONS = "|".join(
    (
        "an image without a position in the patient",
        "a color image",
        "frames in one file, and none states its position in the patient",
        "too long: 8320 bytes, and 64×64 of 16 bits need 8192",
        "reaches beyond the end",
        "an RT dose, which is not read",
        "a segmentation, cannot be read",
        "its transfer syntax is not read: Deflated",
        "contours drawn on images",
        "it holds no image",
        "SOPClassUID is missing",
        "Rows is missing",
        "is not a DICOM image",
        "contains no image volume",
        "holds 21 series",
        "does not exist",  # a text, taken for a list of files
    )
)


def files_below(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()
    )


def as_pydicom_reads(file: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(file)
        pixels = dataset.pixel_array.astype(np.float64)
    pixels = pixels.reshape(-1, *pixels.shape[-2:])
    shared = dataset.get("SharedFunctionalGroupsSequence")
    values = shared[0].get("PixelValueTransformationSequence", [dataset])[0] if shared else dataset
    slope = values.get("RescaleSlope", 1)
    return np.asarray(pixels * float(slope) + float(values.get("RescaleIntercept", 0)))


@pytest.mark.parametrize("name", files_below(PACKAGED))
def test_a_file_of_pydicom_is_a_volume_or_refused_with_its_name(name: str) -> None:
    file = PACKAGED / name
    fitting = [known for pattern, known in VOLUMES.items() if fnmatch.fnmatch(name, pattern)]
    if not fitting or name in DAMAGED:
        with pytest.raises(InputError, match=REASONS) as caught:
            load_dicom(file, monitor=Monitor())
        assert file.name in caught.value.message
        return
    volume = load_dicom(file, monitor=Monitor())
    assert (volume.shape, f"{volume.modality} {volume.dtype}") == fitting[0]
    assert np.allclose(volume.voxels, as_pydicom_reads(file), rtol=1e-6, atol=1e-6)
