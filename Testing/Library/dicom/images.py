"""Small DICOM files of every transfer syntax, each with the numbers that it stores."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from MedEnhanceLib.io.dicomout.derivation import with_elements

#: What makes a plain MR series of the CT series that `write_series` writes.
MR: dict[str, Any] = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
    "Modality": "MR",
    "RescaleSlope": None,
    "RescaleIntercept": None,
}
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
_UID = "1.2.840.10008.1.2"


@dataclass(frozen=True)
class Image:
    """A file's bytes and its stored numbers [K, J, I]; tolerance: what its compression may lose."""

    name: str
    content: bytes
    stored: np.ndarray
    tolerance: int = 0


def packaged(name: str) -> Path:
    """A file that comes with pydicom itself."""
    import pydicom.data

    return Path(pydicom.data.__file__).parent / "test_files" / name


def written(dataset: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def mr(
    stored: np.ndarray, stream: bytes | None = None, syntax: str = f"{_UID}.1", **own: Any
) -> Any:
    """A plain MR slice [J, I]: `stream` holds its pixels, compressed, or else they are plain."""
    from pydicom.encaps import encapsulate

    base = "MR_small_bigendian.dcm" if syntax == f"{_UID}.2" else "MR_small.dcm"
    dataset = pydicom.dcmread(packaged(base))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    bits = stored.dtype.itemsize * 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    del dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue
    dataset.pop("DataSetTrailingPadding", None)  # it would hide that a file is cut
    order = ">" if syntax == f"{_UID}.2" else "<"
    if stream is None:
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    else:
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
    for name, value in own.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def enhanced_mr(stored: np.ndarray, places: list[float], **own: Any) -> Any:
    """An enhanced MR of frames [K, J, I], whose frame k lies at z = places[k]."""
    dataset = mr(stored[0])
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = ENHANCED_MR
    dataset.NumberOfFrames = len(stored)
    dataset.PixelData = stored.tobytes()
    for name in "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness":
        delattr(dataset, name)

    shared = with_elements(
        PlaneOrientationSequence=[with_elements(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[with_elements(PixelSpacing=[0.5, 0.75], SliceThickness=2)],
    )
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = [
        with_elements(
            PlanePositionSequence=[with_elements(ImagePositionPatient=[-3, 4, place])],
            PixelValueTransformationSequence=[
                with_elements(RescaleSlope=1, RescaleIntercept=index, RescaleType="US")
            ],
            FrameContentSequence=[with_elements(StackID="1", InStackPositionNumber=index + 1)],
        )
        for index, place in enumerate(places)
    ]
    for name, value in own.items():
        setattr(dataset, name, value)
    return dataset


def of_every_syntax() -> list[Image]:
    """One image or more for each transfer syntax that is read."""
    import imagecodecs as ic

    whole = pydicom.dcmread(packaged("MR_small.dcm")).pixel_array
    found = [
        Image(name, packaged(f"{name}.dcm").read_bytes(), whole[None])
        for name in (
            "MR_small", "MR_small_implicit", "MR_small_bigendian", "MR_small_RLE",
            "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless",
        )
    ]  # fmt: skip
    twelve = whole.astype(np.uint16)
    eight = (twelve >> 4).astype(np.uint8)
    lossless, twelve_bits = {"lossless": True}, {"bitspersample": 12, "level": 95}
    for name, syntax, pixels, stream, tolerance in (
        ("JPEG baseline", "4.50", eight, ic.jpeg8_encode(eight, level=95), 12),
        ("JPEG extended", "4.51", twelve, ic.jpeg8_encode(twelve, **twelve_bits), 12),
        ("JPEG lossless", "4.57", twelve, ic.jpeg8_encode(twelve, **lossless, predictor=6), 0),
        ("JPEG lossless SV1", "4.70", twelve, ic.jpeg8_encode(twelve, **lossless, predictor=1), 0),
        ("JPEG lossless, 8 bit", "4.70", eight, ic.jpeg8_encode(eight, **lossless), 0),
        ("JPEG-LS near-lossless", "4.81", twelve, ic.jpegls_encode(twelve, level=3), 3),
        ("JPEG 2000", "4.91", twelve, ic.jpeg2k_encode(twelve, level=60, codecformat="J2K"), 500),
        ("HTJ2K lossless", "4.201", twelve, ic.htj2k_encode(twelve), 0),
        ("HTJ2K lossless, RPCL", "4.202", twelve, ic.htj2k_encode(twelve), 0),
        ("HTJ2K", "4.203", twelve, ic.htj2k_encode(twelve, level=0.001, reversible=False), 150),
    ):
        dataset = mr(pixels, bytes(stream), f"{_UID}.{syntax}")
        if name == "JPEG extended":
            dataset.BitsStored, dataset.HighBit = 12, 11
        found.append(Image(name, written(dataset), pixels[None], tolerance))
    frames = np.stack([whole[:16, :20], whole[20:36, 20:40], whole[40:56, :20]]).astype(np.uint16)
    found.append(Image("enhanced", written(enhanced_mr(frames, [0.0, 2.0, 4.0])), frames))
    return found
