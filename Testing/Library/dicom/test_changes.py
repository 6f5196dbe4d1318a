"""Between its header and its pixels a file may change: then nothing of it is believed."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import load, load_dicom
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make

pydicom = pytest.importorskip("pydicom")

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something done after the headers are read, before the pixels are."""
    read = load.read_intensities

    def arrange(happens: Callable[[], object]) -> None:
        def late(*args: Any) -> Any:
            happens()
            return read(*args)

        monkeypatch.setattr(load, "read_intensities", late)

    return arrange


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def rescale(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.RescaleSlope = 2
    dataset.save_as(path)


def zipped(folder: Path, path: Path, order: list[int]) -> None:
    files = sorted(folder.iterdir())
    with zipfile.ZipFile(path, "w") as archive:
        for number, index in enumerate(order):
            archive.write(files[index], f"{number}.dcm")


Between = Callable[[Callable[[], object]], None]


def test_files_that_change_places_are_not_taken_for_each_other(
    make_series: Make, between: Between
) -> None:
    folder = make_series(STORED)
    for path in folder.iterdir():  # a copy may give all the same time
        os.utime(path, ns=(0, 0))
    between(lambda: swap(folder / "001.dcm", folder / "003.dcm"))
    with pytest.raises(InputError, match=r"00[13]\.dcm was changed after") as caught:
        load_dicom(folder, monitor=Monitor())
    assert caught.value.hint


def test_a_file_that_is_written_anew_is_not_scaled_as_it_was(
    make_series: Make, between: Between
) -> None:
    folder = make_series(STORED)
    between(lambda: rescale(folder / "002.dcm"))
    with pytest.raises(InputError, match=r"002\.dcm was changed after"):
        load_dicom(folder, monitor=Monitor())


def test_a_file_that_is_cut_meanwhile_is_called_changed(
    make_series: Make, between: Between
) -> None:
    folder = make_series(STORED)
    between(lambda: (folder / "002.dcm").write_bytes(b""))
    with pytest.raises(InputError, match=r"002\.dcm was changed after"):
        load_dicom(folder, monitor=Monitor())


def test_a_zip_that_is_written_anew_is_refused(
    make_series: Make, tmp_path: Path, between: Between
) -> None:
    folder, path = make_series(STORED), tmp_path / "a.zip"
    zipped(folder, path, [0, 1, 2, 3, 4])
    assert load_dicom(path, monitor=Monitor()).shape == (5, 4, 6)
    between(lambda: zipped(folder, path, [4, 3, 2, 1, 0]))
    with pytest.raises(InputError, match=r"\.dcm was changed after"):
        load_dicom(path, monitor=Monitor())


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_vanishes_is_named(make_series: Make, between: Between, what: str) -> None:
    folder = make_series(STORED)
    path = folder / "002.dcm"

    between((lambda: shutil.rmtree(folder)) if what == "folder" else path.unlink)
    with pytest.raises(InputError, match=r"\.dcm cannot be read: "):
        load_dicom(folder, monitor=Monitor())
