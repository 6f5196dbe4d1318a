"""Stored bits become intensities once, as the header says, and as many as it says."""

from __future__ import annotations

import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from Library.dicom.images import mr, packaged, written

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, DeviceMemoryError, InputError
from MedEnhanceLib.io.dicom import load_dicom, pixels
from MedEnhanceLib.io.dicom.headers import read_header
from MedEnhanceLib.io.dicom.pixels import read_intensities
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.runtime.progress import Event, Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import WarningRecorder

IMPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
EIGHT = np.arange(35, dtype=np.uint8).reshape(5, 7)


def loaded(tmp_path: Path, dataset: Any, monitor: Monitor | None = None) -> Volume:
    (tmp_path / "image.dcm").write_bytes(written(dataset))
    return load_dicom(tmp_path / "image.dcm", monitor=monitor or Monitor())


def slices_of(*files: Path) -> list[Slice]:
    headers = [read_header(FileRef(str(file))) for file in files]
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


def test_numbers_at_the_top_of_their_cells_are_shifted_down(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2047, 4095]], np.uint16)
    volume = loaded(tmp_path, mr(numbers << 4, BitsStored=12, HighBit=15))
    assert np.array_equal(volume.voxels[0], numbers)
    with pytest.raises(InputError, match="the bits below are used"):
        loaded(tmp_path, mr(numbers << 4 | 1, BitsStored=12, HighBit=15))


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


def test_one_byte_that_makes_the_length_even_is_no_pixel(tmp_path: Path) -> None:
    dataset = mr(EIGHT)
    dataset.PixelData += b"\x07"
    assert np.array_equal(loaded(tmp_path, dataset).voxels[0], EIGHT)


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


def test_zeros_behind_the_pixels_are_none_where_they_make_no_line(tmp_path: Path) -> None:
    dataset = mr(EIGHT)
    dataset.PixelData += b"\0" * 2
    assert np.array_equal(loaded(tmp_path, dataset).voxels[0], EIGHT)


def test_padding_of_a_whole_line_could_be_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too long: 8320 bytes, and 64×64 of 16 bits need 8192"):
        load_dicom(packaged("MR_small_padded.dcm"), monitor=Monitor())


def test_deflated_file_that_inflates_without_end_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from MedEnhanceLib.io.dicom import structure

    file = tmp_path / "image.dcm"
    file.write_bytes(written(mr(np.zeros((64, 64), np.uint16), syntax=f"{IMPLICIT}.1.99")))
    assert load_dicom(file, monitor=Monitor()).shape == (1, 64, 64)
    monkeypatch.setattr(structure, "_MOST_INFLATED", 8192)
    with pytest.raises(InputError, match="inflates to more"):
        load_dicom(file, monitor=Monitor())


# ------------------------------------------------------------ intensities


def test_monochrome1_only_says_how_to_show(tmp_path: Path) -> None:
    volume = loaded(tmp_path, mr(EIGHT, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(volume.voxels[0], EIGHT)


@pytest.mark.parametrize("first", [0, 3])
def test_modality_lookup_table_gives_the_intensities(first: int, tmp_path: Path) -> None:
    from pydicom import Dataset

    item = Dataset()
    table = (np.arange(20) ** 2).astype(np.uint16)
    item.add_new("LUTDescriptor", "US", [20, first, 16])
    item.add_new("LUTData", "US", table.tolist())
    item.ModalityLUTType = "US"
    volume = loaded(tmp_path, mr(EIGHT, ModalityLUTSequence=[item]))
    places = np.clip(EIGHT.astype(int) - first, 0, 19)
    assert volume.dtype == np.uint16
    assert np.array_equal(volume.voxels[0], table[places])


def test_lookup_table_of_a_real_file_is_applied() -> None:
    mlut = pytest.importorskip("data_store", reason="the package pydicom-data is missing")
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut

    from MedEnhanceLib.io.dicom.pixelfile import index_pixels

    path = Path(mlut.__file__).parent / "data" / "mlut_18.dcm"
    dataset = pydicom.dcmread(path)
    file = index_pixels(FileRef(str(path)))
    assert file.has_lut
    assert np.array_equal(file.frame(0), apply_modality_lut(dataset.pixel_array, dataset))


@pytest.mark.parametrize("count", [19, 200])
def test_lookup_table_of_another_length_than_it_says_is_refused(count: int, tmp_path: Path) -> None:
    from pydicom import Dataset

    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, 0, 16])
    item.add_new("LUTData", "US", list(range(50)))
    with pytest.raises(InputError, match=f"100 bytes for {count} entries"):
        loaded(tmp_path, mr(EIGHT, ModalityLUTSequence=[item]))


def test_padding_is_kept_and_reported(tmp_path: Path) -> None:
    received: list[Event] = []
    dataset = mr(EIGHT.astype(np.int16))
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    volume = loaded(tmp_path, dataset, Monitor(received.append))
    assert np.array_equal(volume.voxels[0], EIGHT)
    assert any(e.kind == "log" and "-2000" in e.fields["message"] for e in received)


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "index a color table"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "color image"),
        ({"PhotometricInterpretation": "MONOCHROME3"}, "MONOCHROME3"),
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


def test_files_are_read_by_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    at_once: list[int] = []
    waiting = threading.Semaphore(0)
    real = pixels._read_frame

    def slow(*args: Any) -> Any:
        at_once.append(threading.get_ident())
        waiting.release()
        time.sleep(0.02)
        return real(*args)

    monkeypatch.setattr(pixels, "_read_frame", slow)
    read_intensities(slices_of(*series(tmp_path, 12, 8)), "MR", "series", Monitor())
    assert len(set(at_once)) > 1


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


def test_a_file_that_changed_since_its_header_was_read_is_refused(tmp_path: Path) -> None:
    files = series(tmp_path, 2, 8)
    slices = slices_of(*files)
    files[1].write_bytes(written(mr(np.zeros((8, 8), np.int16))))
    with pytest.raises(InputError, match=r"001\.dcm was changed after its header"):
        read_intensities(slices, "MR", "series", Monitor())


def test_a_volume_is_never_there_three_times(tmp_path: Path) -> None:
    slices = slices_of(*series(tmp_path, 40, 256))
    volume = 40 * 256 * 256 * 2
    tracemalloc.start()
    voxels = read_intensities(slices, "MR", "series", Monitor())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert voxels.nbytes == volume
    assert most < 1.6 * volume


def test_more_voxels_than_memory_holds_are_refused_before_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = slices_of(*series(tmp_path, 3, 8))
    monkeypatch.setattr(pixels, "_SMALL", 0)
    monkeypatch.setattr(pixels, "memory", lambda: {"total": 1000, "free": 400})
    with pytest.raises(DeviceMemoryError, match="8×8×3 voxels need"):
        read_intensities(slices, "MR", "series", Monitor())


@pytest.mark.parametrize(
    ("slope", "free", "fits"),
    [(1, 400, False), (1, 800, True), (0.5, 1300, False), (0.5, 1500, True)],
)
def test_fractions_are_counted_with_what_they_need(  # 192 voxels: 2 + 0, or 2 + 4 bytes each
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slope: float, free: int, fits: bool
) -> None:
    slices = [replace(one, slope=slope) for one in slices_of(*series(tmp_path, 3, 8))]
    monkeypatch.setattr(pixels, "_SMALL", 0)
    monkeypatch.setattr(pixels, "memory", lambda: {"total": 2000, "free": free})
    if fits:
        assert read_intensities(slices, "MR", "series", Monitor()).shape == (3, 8, 8)
        return
    with pytest.raises(DeviceMemoryError):
        read_intensities(slices, "MR", "series", Monitor())


def test_memory_that_runs_out_while_rescaling_names_the_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    slices = slices_of(*series(tmp_path, 3, 8))
    monkeypatch.setattr(pixels, "rescale_slices", fail)
    with pytest.raises(DeviceMemoryError, match="series: memory ran out"):
        read_intensities(slices, "MR", "series", Monitor())


# ------------------------------------------------------------ bits beyond


@pytest.mark.parametrize(
    ("stored", "own", "is_reported"),
    [
        (np.array([[5000, 7]], np.uint16), {}, True),  # 5000 needs 13 bits
        (np.array([[4095, 7]], np.uint16), {}, False),
        (np.array([[-3, 7]], np.int16), {}, False),  # the sign goes on into the unused bits
        (np.array([[-3000, 7]], np.int16), {}, True),
        (np.array([[0x9000, 7]], np.uint16), {"OverlayBitPosition": 15}, True),
    ],
)
def test_numbers_beyond_bits_stored_are_cut_with_a_warning(
    tmp_path: Path,
    recorder: WarningRecorder,
    stored: np.ndarray,
    own: dict[str, int],
    is_reported: bool,
) -> None:
    dataset = mr(stored, BitsStored=12, HighBit=11)
    if own:
        dataset.add_new(0x60000100, "US", 16)
        dataset.add_new(0x60000102, "US", own["OverlayBitPosition"])
    for index in range(2):
        dataset.ImagePositionPatient = [0, 0, index]
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.{index}"
        (tmp_path / f"{index}.dcm").write_bytes(written(dataset))
    load_dicom(tmp_path, monitor=recorder.monitor)
    reported = [warning for warning in recorder.warnings if "BitsStored" in warning]
    assert len(reported) == int(is_reported)
    assert not reported or "2 images" in reported[0]
