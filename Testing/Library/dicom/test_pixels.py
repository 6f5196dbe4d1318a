"""Stored bits become intensities once, as the header says, and as many as it says."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from Library.dicom.images import mr, written

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, DeviceMemoryError, InputError
from MedEnhanceLib.io.dicom import load_dicom, pixels
from MedEnhanceLib.io.dicom.headers import read_header
from MedEnhanceLib.io.dicom.pixels import read_intensities
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    pass

IMPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
EIGHT = np.arange(35, dtype=np.uint8).reshape(5, 7)


def loaded(tmp_path: Path, dataset: Any, monitor: Monitor | None = None) -> Volume:
    (tmp_path / "image.dcm").write_bytes(written(dataset))
    return load_dicom(tmp_path / "image.dcm", monitor=monitor or Monitor())


def slices_of(*files: Path) -> list[Slice]:
    headers = [read_header(file) for file in files]
    return [one for header in headers if header for one in header.slices]


# ------------------------------------------------------------ bits


@pytest.mark.parametrize("syntax", [None, IMPLICIT, BIG])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_integers_of_8_to_32_bits_keep_value_and_type(
    dtype: str, syntax: str | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    limits = np.iinfo(dtype)
    stored = rng.integers(limits.min, limits.max, (6, 7), dtype=dtype, endpoint=True)
    stored[0, :2] = limits.min, limits.max
    dataset = mr(stored, syntax=syntax or "1.2.840.10008.1.2.1")
    volume = loaded(tmp_path, dataset)
    assert volume.dtype == np.dtype(dtype)
    assert np.array_equal(volume.voxels[0], stored)


@pytest.mark.parametrize(
    ("field", "dtype"), [("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")]
)
def test_floating_pixels_are_read(field: str, dtype: str, tmp_path: Path) -> None:
    stored = np.linspace(-1.5, 1e7, 42).reshape(6, 7).astype(dtype)
    dataset = mr(np.zeros((6, 7), np.uint16))
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    setattr(dataset, field, stored.tobytes())
    volume = loaded(tmp_path, dataset)
    assert volume.dtype == stored.dtype
    assert np.array_equal(volume.voxels[0], stored)


@pytest.mark.parametrize("signed", [False, True])
def test_overlays_in_the_bits_above_are_masked(signed: bool, tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2047, 2048, 4095]], np.uint16)
    cells = numbers | 0x5000
    dataset = mr(cells, BitsStored=12, HighBit=11, PixelRepresentation=int(signed))
    expected = np.where(numbers > 2047, numbers.astype(int) - 4096, numbers) if signed else numbers
    assert np.array_equal(loaded(tmp_path, dataset).voxels[0], expected)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"BitsStored": 17, "HighBit": 16}, "BitsStored is 17 of 16"),
        ({"BitsStored": 0}, "BitsStored is 0"),
        ({"HighBit": 16}, "HighBit is 16"),
        ({"HighBit": 3}, "HighBit is 3"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "BitsAllocated is 12"),
        ({"PixelRepresentation": 2}, "PixelRepresentation is 2"),
        ({"PixelRepresentation": None}, "PixelRepresentation is missing"),
        ({"BitsStored": None}, "BitsStored is missing"),
    ],
)
def test_bits_that_contradict_each_other_are_refused(
    own: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        loaded(tmp_path, mr(np.zeros((4, 4), np.uint16), **own))


# ------------------------------------------------------------ how many


def test_words_of_8_bit_pixels_are_turned_around_in_big_endian(tmp_path: Path) -> None:
    dataset = mr(EIGHT, syntax=BIG)
    turned = np.frombuffer(EIGHT.tobytes() + b"\0", ">u2").astype("<u2").tobytes()
    dataset.PixelData = turned
    dataset["PixelData"].VR = "OW"
    assert np.array_equal(loaded(tmp_path, dataset).voxels[0], EIGHT)


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (b"\0" * 30, "cut short: 30 bytes, and 7×5 of 8 bits need 35"),
        (b"", "cut short|no pixel data"),
        (b"\0" * 42, "too long: 42 bytes"),
        (EIGHT.tobytes() + b"\0\1\2", "too long"),
    ],
)
def test_pixels_of_another_number_than_the_header_says_are_refused(
    pixels: bytes, says: str, tmp_path: Path
) -> None:
    dataset = mr(EIGHT)
    dataset.PixelData = pixels
    with pytest.raises(InputError, match=says):
        loaded(tmp_path, dataset)


# ------------------------------------------------------------ intensities


def test_monochrome1_only_says_how_to_show(tmp_path: Path) -> None:
    volume = loaded(tmp_path, mr(EIGHT, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(volume.voxels[0], EIGHT)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "color image"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "color image"),
        ({"ModalityLUTSequence": []}, "lookup table"),
        ({"HighBit": 14}, "HighBit is 14"),
    ],
)
def test_what_has_no_intensities_is_refused(own: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        loaded(tmp_path, mr(EIGHT, **own))


# ------------------------------------------------------------ many files


def series(folder: Path, count: int, size: int) -> list[Path]:
    rng = np.random.default_rng(3)
    files = []
    for index in range(count):
        stored = rng.integers(0, 4000, (size, size)).astype(np.uint16)
        dataset = mr(stored, ImagePositionPatient=[0, 0, index], SOPInstanceUID=f"1.2.{index + 1}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        files.append(folder / f"{index:03d}.dcm")
        files[-1].write_bytes(written(dataset))
    return files


def test_slices_come_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    files = series(tmp_path, 24, 8)
    slices = slices_of(*files)
    order = np.random.default_rng(1).permutation(24)
    whole = read_intensities(slices, "MR", "series", Monitor())
    shuffled = read_intensities([slices[index] for index in order], "MR", "series", Monitor())
    assert np.array_equal(whole[order], shuffled)


@pytest.mark.parametrize("count", [1, 40])
def test_a_cancel_is_noticed_while_one_slice_takes_long(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    release = threading.Event()

    def slow(*_: Any) -> Any:
        stop.set()
        release.wait(30)
        raise OSError("let go")

    slices = slices_of(*series(tmp_path, count, 4))
    monkeypatch.setattr(pixels, "_read_frame", slow)
    began = time.monotonic()
    try:
        with pytest.raises(Cancelled):
            read_intensities(slices, "MR", "series", Monitor(cancel=stop))
        assert time.monotonic() - began < 2
    finally:
        release.set()


def test_the_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    files = series(tmp_path, 6, 8)
    files[4].write_bytes(files[4].read_bytes()[:-20])
    slices = slices_of(*files)
    with pytest.raises(InputError, match=r"series: 004\.dcm: .*reaches beyond the end") as caught:
        read_intensities(slices, "MR", "series", Monitor())
    assert caught.value.hint
    files[2].unlink()
    with pytest.raises(InputError, match=r"002\.dcm cannot be read"):
        read_intensities(slices, "MR", "series", Monitor())


def test_more_voxels_than_memory_holds_are_refused_before_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = slices_of(*series(tmp_path, 3, 8))
    monkeypatch.setattr(pixels, "_SMALL", 0)
    monkeypatch.setattr(pixels, "memory", lambda: {"total": 1000, "free": 400})
    with pytest.raises(DeviceMemoryError, match="8×8×3 voxels need"):
        read_intensities(slices, "MR", "series", Monitor())


# ------------------------------------------------------------ bits beyond
