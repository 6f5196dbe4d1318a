"""Stored bits become intensities once, as the header says, in every transfer syntax.

A broken stream is an error, never gray rows.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from Library.conftest import Make, WarningRecorder
from Library.dicom.images import MR, Image, mr, of_every_syntax, written
from Library.dicom.reading import edited, loaded
from pydicom.encaps import encapsulate, get_frame

from MedEnhanceLib.errors import DependencyError, DeviceMemoryError, InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.io.dicom import pixels
from MedEnhanceLib.io.dicom.decoders import DECODERS, PixelFile, index_pixels
from MedEnhanceLib.io.dicom.headers import read_header
from MedEnhanceLib.io.dicom.pixels import read_intensities
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.structure import DamagedError
from MedEnhanceLib.runtime.progress import Monitor

IMPLICIT, EXPLICIT, BIG = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2"))
EIGHT = np.arange(35, dtype=np.uint8).reshape(5, 7)


def slices_of(*files: Path) -> list[Slice]:
    headers = [read_header(file) for file in files]
    return [one for header in headers if header for one in header.slices]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_integers_of_8_to_32_bits_keep_value_and_type(
    dtype: str, syntax: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    limits = np.iinfo(dtype)
    stored = rng.integers(limits.min, limits.max, (6, 7), dtype=dtype, endpoint=True)
    stored[0, :2] = limits.min, limits.max
    volume = loaded(tmp_path, mr(stored, syntax=syntax))
    assert volume.dtype == np.dtype(dtype)
    assert np.array_equal(volume.voxels[0], stored)


@pytest.mark.parametrize("signed", [False, True])
def test_overlays_in_the_bits_above_are_masked(signed: bool, tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2047, 2048, 4095]], np.uint16)
    dataset = mr(numbers | 0x5000, BitsStored=12, HighBit=11, PixelRepresentation=int(signed))
    expected = np.where(numbers > 2047, numbers.astype(int) - 4096, numbers) if signed else numbers
    assert np.array_equal(loaded(tmp_path, dataset).voxels[0], expected)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"BitsStored": 17, "HighBit": 16}, "BitsStored is 17 of 8"),
        ({"BitsStored": 0}, "BitsStored is 0"),
        ({"HighBit": 16}, "HighBit is 16"),
        ({"HighBit": 3}, "HighBit is 3"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "BitsAllocated is 12"),
        ({"PixelRepresentation": 2}, "PixelRepresentation is 2"),
        ({"PixelRepresentation": None}, "PixelRepresentation is missing"),
        ({"BitsStored": None}, "BitsStored is missing"),
        ({"PixelData": b"\0" * 30}, "cut short: 30 bytes, and 7×5 of 8 bits need 35"),
        ({"PixelData": b""}, "cut short|no pixel data"),
        ({"PixelData": b"\0" * 42}, "too long: 42 bytes"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "color image"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "color image"),
        ({"ModalityLUTSequence": []}, "lookup table"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
    ],
)
def test_headers_that_contradict_the_pixels_are_refused(
    own: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        loaded(tmp_path, mr(EIGHT, **own))


@pytest.mark.parametrize(
    ("stated", "hint"),
    [
        ("MR", "Its header says MR: load it without --modality"),
        ("CT", "Load it with the modality OT"),
        (None, "Load it with the modality OT"),
    ],
)
def test_a_ct_without_rescale_is_refused_with_its_headers_modality(
    stated: str | None, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="RescaleIntercept is missing") as caught:
        loaded(tmp_path, mr(EIGHT, Modality=stated), modality="CT")
    assert caught.value.hint.startswith(hint)
    as_other = loaded(tmp_path, mr(EIGHT, Modality=stated), modality="OT")
    assert np.array_equal(as_other.voxels[0], EIGHT)


def test_monochrome1_only_says_how_to_show(tmp_path: Path) -> None:
    volume = loaded(tmp_path, mr(EIGHT, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(volume.voxels[0], EIGHT)


def test_the_file_that_is_damaged_is_named(make_series: Make) -> None:
    files = sorted(make_series(np.zeros((6, 8, 8), np.uint16)).iterdir())
    files[4].write_bytes(files[4].read_bytes()[:-20])
    slices = slices_of(*files)
    with pytest.raises(InputError, match=r"series: 005\.dcm: .*reaches beyond the end") as caught:
        read_intensities(slices, "MR", "series", Monitor())
    assert caught.value.hint
    files[2].unlink()
    with pytest.raises(InputError, match=r"003\.dcm cannot be read"):
        read_intensities(slices, "MR", "series", Monitor())


def test_more_voxels_than_memory_holds_are_refused_before_it_is_taken(
    make_series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = slices_of(*make_series(np.zeros((3, 8, 8), np.uint16)).iterdir())
    monkeypatch.setattr(pixels, "SMALL_BYTES", 0)
    monkeypatch.setattr(pixels, "memory", lambda: {"total": 1000, "free": 400})
    with pytest.raises(DeviceMemoryError, match="8×8×3 voxels need"):
        read_intensities(slices, "MR", "series", Monitor())


SV1, JPEG_LS, J2K = (f"1.2.840.10008.1.2.{end}" for end in ("4.70", "4.80", "4.90"))
IMAGES = of_every_syntax()
COMPRESSED = [image for image in IMAGES if image.name.startswith(("JPEG", "HTJ2K"))]


def indexed(content: bytes, folder: Path) -> PixelFile:
    (folder / "image.dcm").write_bytes(content)
    return index_pixels(folder / "image.dcm")


def dataset_of(image: Image) -> Any:
    return pydicom.dcmread(io.BytesIO(image.content))


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_every_syntax_gives_the_numbers_that_were_stored(image: Image, tmp_path: Path) -> None:
    file = indexed(image.content, tmp_path)
    found = np.stack([file.frame(index) for index in range(file.frames)])
    assert found.shape == image.stored.shape
    assert found.dtype == image.stored.dtype.newbyteorder("=")
    assert np.abs(found.astype(np.int64) - image.stored).max() <= image.tolerance


def test_every_syntax_that_is_decoded_is_among_the_images(tmp_path: Path) -> None:
    assert set(DECODERS) <= {indexed(image.content, tmp_path).syntax for image in IMAGES}


@pytest.mark.parametrize("image", COMPRESSED, ids=lambda image: image.name)
@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_stream_that_is_cut_is_an_error(image: Image, left: float, tmp_path: Path) -> None:
    dataset = dataset_of(image)
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([stream[: int(len(stream) * left)]])
    with pytest.raises(DamagedError):
        indexed(written(dataset), tmp_path).frame(0)


@pytest.mark.parametrize(
    ("own", "says"), [({"Columns": 63}, "64×64"), ({"BitsAllocated": 8, "BitsStored": 8}, "bits")]
)
@pytest.mark.parametrize("name", ["JPEG lossless SV1", "HTJ2K lossless"])
def test_stream_of_another_size_than_the_header_says_is_refused(
    name: str, own: dict[str, int], says: str, tmp_path: Path
) -> None:
    image = next(image for image in IMAGES if image.name == name)
    high = {"HighBit": own["BitsStored"] - 1} if "BitsStored" in own else {}
    dataset = dataset_of(image)
    for element, value in (own | high).items():
        setattr(dataset, element, value)
    with pytest.raises(DamagedError, match=says):
        indexed(written(dataset), tmp_path).frame(0)


def test_size_that_only_a_liar_gives_takes_no_memory(tmp_path: Path) -> None:
    """65535 × 65535 pixels in a stream of a few hundred bytes."""
    stored = IMAGES[0].stored[0].astype(np.uint16)
    huge = bytearray(imagecodecs.jpegls_encode(stored))
    at = huge.index(b"\xff\xf7")
    huge[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(DamagedError, match="65535×65535"):
        indexed(written(mr(stored, bytes(huge), JPEG_LS)), tmp_path).frame(0)


@pytest.mark.parametrize("bits", [10, 16])
@pytest.mark.parametrize("syntax", [SV1, JPEG_LS, J2K])
def test_signed_numbers_come_back_from_twos_complement(
    syntax: str, bits: int, rng: np.random.Generator, tmp_path: Path
) -> None:
    signed = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (20, 30)).astype(np.int16)
    cells = (signed.view(np.uint16)) & ((1 << bits) - 1)
    if syntax == SV1:
        stream = imagecodecs.jpeg8_encode(cells, lossless=True, bitspersample=bits)
    elif syntax == JPEG_LS:
        stream = imagecodecs.jpegls_encode(cells)
    else:
        stream = imagecodecs.jpeg2k_encode(cells, level=0, codecformat="J2K", bitspersample=bits)
    dataset = mr(signed, bytes(stream), syntax, BitsStored=bits, HighBit=bits - 1)
    assert np.array_equal(indexed(written(dataset), tmp_path).frame(0), signed)


def test_missing_decoder_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = indexed(COMPRESSED[0].content, tmp_path)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(DependencyError, match="needs the package imagecodecs") as caught:
        file.frame(0)
    assert "pip install" in caught.value.hint


def test_syntax_that_is_not_read_is_named(tmp_path: Path) -> None:
    stored = IMAGES[0].stored[0]
    with pytest.raises(NotImplementedError, match="JPEG 2000 Part 2"):
        indexed(written(mr(stored, b"\0\0", "1.2.840.10008.1.2.4.92")), tmp_path)


@pytest.mark.parametrize(("more", "shift"), [({}, -1024), (MR, 0)])
@pytest.mark.parametrize(
    ("stated", "is_padding"),
    [
        ({"PixelPaddingValue": ("US", 63536)}, True),
        ({"PixelPaddingValue": ("SS", -2000)}, True),
        ({"PixelPaddingValue": ("US", 63530), "PixelPaddingRangeLimit": ("US", 63540)}, True),
        ({"PixelPaddingValue": ("US", 65535)}, False),  # intensities lie below it
        ({"PixelPaddingValue": ("US", 0)}, False),
        ({}, False),
    ],
)
def test_padding_that_lost_its_sign_is_read_with_it(
    make_series: Make,
    recorder: WarningRecorder,
    stated: dict[str, Any],
    is_padding: bool,
    more: dict[str, Any],
    shift: int,
) -> None:
    """Padding is no sign of another modality."""
    stored = np.array([[[-2000, 0, 24], [1000, 1100, 3000]]] * 3, np.int16).view(np.uint16)
    folder = make_series(stored, **more)
    for dataset in edited(folder):
        for keyword, (vr, number) in stated.items():
            dataset.add_new(keyword, vr, number)
    volume = load(folder, monitor=recorder.monitor)
    assert volume.voxels.min() == (-2000 if is_padding else 0) + shift
    assert volume.voxels.max() == (3000 if is_padding else 63536) + shift
    assert any("PixelPaddingValue" in text for text in recorder.warnings) == is_padding
    assert not any("look like" in text for text in recorder.warnings)
