"""Every transfer syntax comes out as it went in; a broken stream is an error, never gray rows."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from Library.dicom.images import Image, of_every_syntax, packaged
from pydicom.encaps import get_frame

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.io.dicom.decoders import _DECODERS, Layout, decode
from MedEnhanceLib.io.dicom.pixelfile import PixelFile, index_pixels
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicom.structure import DamagedError

BASELINE, EXTENDED, LOSSLESS, SV1 = (f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 57, 70))
RLE, JPEG_LS, J2K = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
HTJ2K = "1.2.840.10008.1.2.4.201"
IMAGES = of_every_syntax()
MADE = [image.name for image in IMAGES if image.name.startswith(("JPEG", "HTJ2K"))]
STORED = IMAGES[0].stored[0].astype(np.uint16)
TWELVE = Layout(64, 64, 16, 12)


def indexed(content: bytes, folder: Path) -> PixelFile:
    (folder / "image.dcm").write_bytes(content)
    return index_pixels(FileRef(str(folder / "image.dcm")))


def stream_of(image: Image, folder: Path) -> tuple[bytes, str, Layout]:
    file = indexed(image.content, folder)
    stream = get_frame(file.dataset.PixelData, 0, number_of_frames=file.frames)
    return stream, file.syntax, file.layout


def named(name: str) -> Image:
    return next(image for image in IMAGES if image.name == name)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_every_syntax_gives_the_numbers_that_were_stored(image: Image, tmp_path: Path) -> None:
    file = indexed(image.content, tmp_path)
    found = np.stack([file.frame(index) for index in range(file.frames)])
    assert found.shape == image.stored.shape
    assert found.dtype == image.stored.dtype.newbyteorder("=")
    assert np.abs(found.astype(np.int64) - image.stored).max() <= image.tolerance


def test_every_syntax_that_is_decoded_is_among_the_images(tmp_path: Path) -> None:
    assert set(_DECODERS) <= {indexed(image.content, tmp_path).syntax for image in IMAGES}


@pytest.mark.parametrize(
    "name",
    ["693_J2KI", "JPEG2000", "J2K_pixelrep_mismatch", "JPEGLSNearLossless_08",
     "JPEGLSNearLossless_16"],
)  # fmt: skip
def test_real_files_agree_with_the_decoders_of_pydicom(name: str) -> None:
    import pydicom
    from pydicom.pixels import get_decoder

    dataset = pydicom.dcmread(packaged(f"{name}.dcm"))
    plugin = "pyjpegls" if "LS" in name else "pylibjpeg"
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    theirs, _ = decoder.as_array(dataset, decoding_plugin=plugin)
    ours = index_pixels(FileRef(str(packaged(f"{name}.dcm")))).frame(0)
    assert ours.dtype == theirs.dtype
    assert np.array_equal(ours, theirs)


def test_jpeg_of_12_bits_is_read_where_pydicom_has_no_decoder() -> None:
    found = index_pixels(FileRef(str(packaged("JPGExtended.dcm")))).frame(0)
    again = index_pixels(FileRef(str(packaged("JPEG-lossy.dcm")))).frame(0)
    assert (found.shape, found.dtype, found.min(), found.max()) == ((1024, 256), np.uint16, 0, 264)
    assert np.array_equal(found, again)


def test_jpeg_of_12_bits_is_near_its_twin_in_jpeg_2000() -> None:
    twin = index_pixels(FileRef(str(packaged("JPEG2000.dcm")))).frame(0).astype(int)
    found = index_pixels(FileRef(str(packaged("JPGExtended.dcm")))).frame(0).astype(int)
    bright = twin > 100
    assert bright.sum() > 1000
    assert np.abs(found - twin)[bright].mean() < 25
    assert np.corrcoef(found.ravel(), twin.ravel())[0, 1] > 0.95


# ------------------------------------------------------------ broken streams


@pytest.mark.parametrize(
    "name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", *MADE]
)
@pytest.mark.parametrize("left", [0.1, 0.5, 0.9, 0.99])
def test_stream_that_is_cut_is_an_error(name: str, left: float, tmp_path: Path) -> None:
    stream, syntax, layout = stream_of(named(name), tmp_path)
    with pytest.raises(DamagedError):
        decode(stream[: int(len(stream) * left)], syntax, layout)


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (Layout(64, 63, 16, 12), "64×64"),
        (Layout(32, 128, 16, 12), "64×64"),
        (Layout(64, 64, 8, 8), "bits"),
        (Layout(64, 64, 16, 8), "bits"),
    ],
)
@pytest.mark.parametrize("name", ["JPEG lossless SV1", "HTJ2K lossless"])
def test_stream_of_another_size_than_the_header_says_is_refused(
    name: str, layout: Layout, says: str, tmp_path: Path
) -> None:
    stream, syntax, _ = stream_of(named(name), tmp_path)
    with pytest.raises(DamagedError, match=says):
        decode(stream, syntax, layout)


def test_stream_of_another_kind_than_the_header_says_is_refused(tmp_path: Path) -> None:
    baseline, _, eight = stream_of(named("JPEG baseline"), tmp_path)
    for syntax in (JPEG_LS, J2K):
        with pytest.raises(DamagedError, match="is damaged"):
            decode(baseline, syntax, eight)


def test_size_that_only_a_liar_gives_takes_no_memory_and_no_time() -> None:
    """65535 × 65535 pixels in a stream of a few hundred bytes."""
    whole = bytes(imagecodecs.jpegls_encode(STORED))
    huge = bytearray(whole)
    at = huge.index(b"\xff\xf7")
    huge[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    began = time.monotonic()
    with pytest.raises(DamagedError, match="65535×65535"):
        decode(bytes(huge), JPEG_LS, TWELVE)
    assert time.monotonic() - began < 1


# ------------------------------------------------------------ signs


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("syntax", [RLE, SV1, JPEG_LS, J2K])
def test_signed_numbers_come_back_from_twos_complement(
    syntax: str, bits: int, rng: np.random.Generator
) -> None:
    signed = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (20, 30)).astype(np.int16)
    cells = (signed.view(np.uint16)) & ((1 << bits) - 1)
    layout = Layout(20, 30, 16, bits, signed=True)
    if syntax == RLE:
        stream = _rle_of(cells)
    elif syntax == SV1:
        stream = bytes(imagecodecs.jpeg8_encode(cells, lossless=True, bitspersample=bits))
    elif syntax == JPEG_LS:
        stream = bytes(imagecodecs.jpegls_encode(cells))
    else:
        stream = bytes(
            imagecodecs.jpeg2k_encode(cells, level=0, codecformat="J2K", bitspersample=bits)
        )
    assert np.array_equal(decode(stream, syntax, layout), signed)


def _rle_of(cells: np.ndarray) -> bytes:
    """Literal runs alone: the high bytes, then the low ones."""
    planes = []
    for plane in (cells >> 8, cells & 255):
        data = plane.astype(np.uint8).tobytes()
        runs = [data[at : at + 128] for at in range(0, len(data), 128)]
        packed = b"".join(bytes([len(run) - 1]) + run for run in runs)
        planes.append(packed + b"\0" * (len(packed) % 2))
    header = np.zeros(16, "<u4")
    header[:3] = 2, 64, 64 + len(planes[0])
    return header.tobytes() + b"".join(planes)


def test_signed_stream_under_an_unsigned_header_is_refused() -> None:
    negative = STORED.astype(np.int16) - 1000
    stream = bytes(imagecodecs.jpeg2k_encode(negative, level=0, codecformat="J2K"))
    assert np.array_equal(decode(stream, J2K, Layout(64, 64, 16, 16, signed=True)), negative)
    with pytest.raises(DamagedError, match="do not fit"):
        decode(stream, J2K, Layout(64, 64, 16, 16))


# ------------------------------------------------------------ what is missing


def test_missing_decoder_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stream, syntax, layout = stream_of(named("MR_small_jpeg_ls_lossless"), tmp_path)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(DependencyError, match="needs the package imagecodecs") as caught:
        decode(stream, syntax, layout)
    assert "pip install" in caught.value.hint


def test_imagecodecs_without_a_codec_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(_: bytes) -> np.ndarray:
        raise ImportError("could not import name 'jpeg2k_decode'")

    stream, syntax, layout = stream_of(named("MR_small_jp2klossless"), tmp_path)
    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", missing)
    with pytest.raises(
        DependencyError, match="2000 lossless needs the package imagecodecs with all"
    ):
        decode(stream, syntax, layout)


def test_syntax_that_is_not_read_is_named() -> None:
    with pytest.raises(NotImplementedError, match=r"4\.92"):
        decode(b"", "1.2.840.10008.1.2.4.92", TWELVE)
