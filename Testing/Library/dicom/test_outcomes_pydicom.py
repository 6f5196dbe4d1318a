"""What becomes of each file that comes with pydicom: a volume that other readers give too, or an
error that says why not. Files that come anew fail until they are stated.
"""

from __future__ import annotations

import fnmatch
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import load_dicom
from MedEnhanceLib.runtime.progress import Monitor

PACKAGED = Path(pydicom.data.__file__).parent / "test_files"

PICTURE = "an image without a position in the patient|a color image"
FRAMES = "frames in one file, and none states its position in the patient|a color image"
NO_DICOM = "is not a DICOM image"
NO_CLASS = "SOPClassUID is missing"
NO_IMAGE = "it holds no image"
DOSE = "an RT dose, which is not read"
#: Shape and type of a volume, or what its error says; a pattern stands for all that fit it.
PACKAGED_OUTCOMES: dict[str, tuple[tuple[int, ...], str] | str] = {
    "693_J2KI.dcm": ((1, 512, 512), "CT int16"),
    "CT_small.dcm": ((1, 128, 128), "CT int16"),
    "J2K_pixelrep_mismatch.dcm": ((1, 512, 512), "CT int16"),
    "MR_small.dcm": ((1, 64, 64), "MR int16"),
    "MR_small_[!pt]*.dcm": ((1, 64, 64), "MR int16"),
    "MR_small_padded.dcm": "too long: 8320 bytes, and 64×64 of 16 bits need 8192",
    "MR_truncated.dcm": "reaches beyond the end",
    "examples_overlay.dcm": ((1, 300, 484), "MR uint16"),
    "rtdose*.dcm": DOSE,
    "badVR.dcm": DOSE,
    "liver_1frame.dcm": ((1, 512, 512), "SEG uint8"),
    "liver_expb_1frame.dcm": "a segmentation, cannot be read",
    "SC_*frame.dcm": FRAMES,
    "SC_*[!e].dcm": PICTURE,
    "SC_rgb_*rle.dcm": PICTURE,
    "SC_rgb_jls_lossy_*e.dcm": PICTURE,
    "GDCMJ2K_TextGBR.dcm": PICTURE,
    "JP*.dcm": PICTURE,
    "image_dfl.dcm": "its transfer syntax is not read: Deflated",
    "ExplVR_BigEnd.dcm": PICTURE,
    "examples_[!oy]*.dcm": PICTURE,
    "examples_ybr_color.dcm": FRAMES,
    "ExplVR_LitEndNoMeta.dcm": NO_IMAGE,
    "ExplVR_BigEndNoMeta.dcm": NO_DICOM,
    "rtplan_truncated.dcm": "reaches beyond the end of the file",
    "rtplan*.dcm": NO_IMAGE,
    "rtstruct.dcm": "contours drawn on images",
    "reportsi*.dcm": NO_IMAGE,
    "test-SR.dcm": NO_IMAGE,
    "waveform_ecg.dcm": NO_IMAGE,
    "UN_sequence.dcm": NO_CLASS,
    "empty_charset_LEI.dcm": NO_CLASS,
    "meta_missing_tsyntax.dcm": NO_CLASS,
    "nested_priv_SQ.dcm": NO_CLASS,
    "no_meta_group_length.dcm": NO_CLASS,
    "priv_SQ.dcm": NO_CLASS,
    "no_meta.dcm": NO_DICOM,
    "*.dump": NO_DICOM,
    "*.json": NO_DICOM,
    "crayons.icc": NO_DICOM,
    "zipMR.gz": NO_DICOM,
    "README.txt": "Test Files used .* does not exist",
    "dicomdirtests/README.txt": "In this directory.* does not exist",
    "dicomdirtests/DICOMDIR": "holds 21 series",
    "dicomdirtests/DICOMDIR[-_]*": NO_DICOM,
    "dicomdirtests/TINY_ALPHA/README": NO_DICOM,
    "dicomdirtests/TINY_ALPHA/DICOMDIR": "contains no image volume",
    "dicomdirtests/TINY_ALPHA/*/IM*": "Rows is missing",
    "dicomdirtests/77654033/CR*": PICTURE,
    "dicomdirtests/*/CT*/*": ((1, 16, 16), "CT int16"),
    "dicomdirtests/*/MR*/*": ((1, 16, 16), "MR int16"),
}


def files_below(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()
    )


def stated(name: str, outcomes: dict[str, Any]) -> Any:
    """The outcome of the file: that under its own name, or else under the one pattern that fits."""
    if name in outcomes:
        return outcomes[name]
    fitting = {
        repr(reported): reported for key, reported in outcomes.items() if fnmatch.fnmatch(name, key)
    }
    assert len(fitting) == 1, f"{name}: {len(fitting)} outcomes are stated"
    return next(iter(fitting.values()))


def check(file: Path, outcome: tuple[tuple[int, ...], str] | str) -> None:
    if isinstance(outcome, str):
        with pytest.raises(InputError, match=outcome) as caught:
            load_dicom(file, monitor=Monitor())
        assert file.name in caught.value.message
        return
    shape, kind = outcome
    volume = load_dicom(file, monitor=Monitor())
    assert (volume.shape, f"{volume.modality} {volume.dtype}") == (shape, kind)
    assert np.allclose(volume.voxels, as_pydicom_reads(file), rtol=1e-6, atol=1e-6)


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
def test_each_file_of_pydicom_has_its_stated_outcome(name: str) -> None:
    check(PACKAGED / name, stated(name, PACKAGED_OUTCOMES))
