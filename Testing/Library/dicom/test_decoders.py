"""Every transfer syntax comes out as it went in; a broken stream is an error, never gray rows."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from Library.dicom.images import Image, mr, of_every_syntax, written
from pydicom.encaps import encapsulate, get_frame

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.io.dicom.decoders import DECODERS, PixelFile, index_pixels
from MedEnhanceLib.io.dicom.structure import DamagedError

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
    stream = {
        SV1: lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits),
        JPEG_LS: imagecodecs.jpegls_encode,
        J2K: lambda pixels: imagecodecs.jpeg2k_encode(
            pixels, level=0, codecformat="J2K", bitspersample=bits
        ),
    }[syntax](cells)
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
