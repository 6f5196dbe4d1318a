"""Small files that inflate, or go on, without end are refused before they cost time or memory."""

from __future__ import annotations

import io
import threading
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from Library.dicom.images import mr, written

from MedEnhanceLib.errors import Cancelled, InputError
from MedEnhanceLib.io.dicom import is_source, list_series, load_dicom, scan
from MedEnhanceLib.io.dicom.headers import Header
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make

pydicom = pytest.importorskip("pydicom")

STORED = np.arange(20, dtype=np.uint16).reshape(4, 5)
MB = 1_000_000
_DEFLATED = "1.2.840.10008.1.2.1.99"


def data_set(**own: Any) -> bytes:
    """The elements of an image, without its meta header."""
    stream = io.BytesIO()
    dataset = pydicom.Dataset(mr(STORED, **own))
    dataset.save_as(stream, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def deflated(path: Path, *parts: bytes) -> Path:
    """A deflated file of parts; a number of zeros may stand for a part of them."""
    dataset = pydicom.dcmread(io.BytesIO(written(mr(STORED))))
    dataset.file_meta.TransferSyntaxUID = _DEFLATED
    whole = written(dataset)
    meta = whole[: 144 + int.from_bytes(whole[140:144], "little")]
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b"".join(pack.compress(part) for part in parts)
    path.write_bytes(meta + packed + pack.flush())
    return path


def zeros(megabytes: int) -> list[bytes]:
    return [bytes(MB)] * megabytes


def seconds_and_bytes(path: Path) -> tuple[float, int, str]:
    """What it costs to be refused, and what is said."""
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        load_dicom(path, monitor=Monitor())
    seconds, most = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, most, caught.value.message


@pytest.mark.slow
def test_what_is_deflated_behind_the_pixels_is_not_inflated(tmp_path: Path) -> None:
    path = deflated(tmp_path / "a.dcm", data_set(), *zeros(300))
    tracemalloc.start()
    volume = load_dicom(path, monitor=Monitor())
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(volume.voxels[0], STORED)
    assert most < 250 * MB


@pytest.mark.slow
def test_a_deflated_header_without_end_is_refused(tmp_path: Path) -> None:
    private = b"\x09\x00\x10\x00OB\0\0" + (300 * MB).to_bytes(4, "little")
    path = deflated(tmp_path / "a.dcm", private, *zeros(300), data_set())
    seconds, most, message = seconds_and_bytes(path)
    assert "more than 64 MiB" in message
    assert seconds < 5
    assert most < 250 * MB


@pytest.mark.slow
def test_deflated_pixels_beyond_the_size_of_the_image_are_not_inflated(tmp_path: Path) -> None:
    content = data_set()
    at = content.rindex(b"\xe0\x7f\x10\x00OW") + 8
    claimed = content[:at] + (300 * MB).to_bytes(4, "little")
    path = deflated(tmp_path / "a.dcm", claimed, *zeros(300))
    seconds, most, message = seconds_and_bytes(path)
    assert "inflates to more" in message
    assert seconds < 5
    assert most < 250 * MB


@pytest.mark.slow
def test_a_large_deflated_image_is_read(tmp_path: Path) -> None:
    stored = np.zeros((6000, 6000), np.uint16)
    stored[-1, -1] = 77
    stream = io.BytesIO()
    pydicom.Dataset(mr(stored)).save_as(stream, implicit_vr=False, little_endian=True)
    volume = load_dicom(deflated(tmp_path / "a.dcm", stream.getvalue()), monitor=Monitor())
    assert volume.shape == (1, 6000, 6000)
    assert volume.voxels[0, -1, -1] == 77


@pytest.mark.parametrize("begins", ["nothing", "an image"])
def test_zeros_behind_the_mark_are_no_elements(tmp_path: Path, begins: str) -> None:
    head = bytes(128) + b"DICM" if begins == "nothing" else written(mr(STORED))[:1200]
    path = tmp_path / "a.dcm"
    path.write_bytes(head + bytes(8 * MB))
    assert not is_source(path)
    seconds, _, message = seconds_and_bytes(path)
    assert "a.dcm" in message
    assert seconds < 2


def test_a_directory_of_a_medium_that_goes_on_without_end_is_left_aside(
    make_series: Make,
) -> None:
    folder = make_series(np.zeros((2, 4, 5), np.uint16))
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(8 * MB))
    began = time.monotonic()
    assert load_dicom(folder, monitor=Monitor()).shape == (2, 4, 5)
    assert time.monotonic() - began < 2


def test_a_zip_of_zeros_is_refused_at_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            with archive.open(f"{number}.dcm", "w") as member:
                member.write(bytes(128) + b"DICM")
                for piece in zeros(60):
                    member.write(piece)
    seconds, most, message = seconds_and_bytes(tmp_path / "a.zip")
    assert ".dcm" in message
    assert seconds < 2
    assert most < 50 * MB


def test_cancel_does_not_wait_for_a_header(
    make_series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_series(np.zeros((3, 4, 5), np.uint16))
    stop, answered = threading.Event(), threading.Event()
    read = scan.read_header

    def stuck(file: FileRef) -> Header | None:
        stop.set()
        answered.wait(20)  # as a share on the network that does not answer
        return read(file)

    monkeypatch.setattr(scan, "read_header", stuck)
    began = time.monotonic()
    try:
        with pytest.raises(Cancelled):
            load_dicom(folder, monitor=Monitor(cancel=stop))
        assert time.monotonic() - began < 2
    finally:
        answered.set()


def test_what_goes_wrong_in_a_header_comes_out_as_it_is(
    make_series: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: FileRef) -> Header | None:
        raise KeyError(file.name)

    monkeypatch.setattr(scan, "read_header", fail)
    for cancel in (None, lambda: False):
        with pytest.raises(KeyError):
            list_series(make_series(np.zeros((2, 4, 5), np.uint16)), Monitor(cancel=cancel))


def test_a_copy_that_goes_on_without_end_is_compared_as_far_as_its_pixels(tmp_path: Path) -> None:
    content = written(mr(STORED))
    (tmp_path / "a.dcm").write_bytes(content)
    (tmp_path / "b.dcm").write_bytes(content + bytes(8 * MB))
    began = time.monotonic()
    assert load_dicom(tmp_path, monitor=Monitor()).shape == (1, 4, 5)
    assert time.monotonic() - began < 2
