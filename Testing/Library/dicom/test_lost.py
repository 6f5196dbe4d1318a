"""An image that cannot be seen is missed: what may be one stops its series, what is none does not.

A slice less at the end of a series leaves no gap that would show it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import list_series, load_dicom
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pydicom = pytest.importorskip("pydicom")

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)
links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


def without_endings(folder: Path) -> None:
    for path in folder.iterdir():
        path.rename(path.with_suffix(""))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def astray(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("gone") / path.name)


def circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


# ------------------------------------------------------------ single files


@links
@pytest.mark.parametrize("lose", [empty, zeroed, astray, circle])
@pytest.mark.parametrize("ending", [".dcm", ""])
def test_a_series_whose_last_images_hold_nothing_is_refused(
    make_series: Make, lose: Callable[[Path], None], ending: str
) -> None:
    folder = make_series(STORED)
    if not ending:
        without_endings(folder)
    lose(folder / f"001{ending}")  # the last by position
    (row, *_) = list_series(folder, Monitor())
    assert not row.readable
    with pytest.raises(InputError, match=rf"001{ending}: ") as caught:
        load_dicom(folder, monitor=Monitor())
    assert "remove it" in caught.value.hint


@links
@pytest.mark.parametrize("lose", [empty, zeroed, astray, circle])
def test_what_is_not_named_like_the_images_hurts_nothing(
    make_series: Make, lose: Callable[[Path], None]
) -> None:
    folder = make_series(STORED)
    for name in ("LOCKFILE", "notes.txt"):
        (folder / name).write_bytes(b"text")
        lose(folder / name)
    assert load_dicom(folder, monitor=Monitor()).shape == (5, 4, 6)
    assert len(list_series(folder, Monitor())) == 1


# ------------------------------------------------------------ folders


def test_a_damaged_file_among_images_of_another_series_is_theirs(
    make_series: Make, tmp_path: Path, recorder: WarningRecorder
) -> None:
    one = make_series(STORED, folder=tmp_path / "disc" / "1")
    other = make_series(STORED, folder=tmp_path / "disc" / "2", uid="1.2.3.2")
    (other / "001.dcm").write_bytes((other / "001.dcm").read_bytes()[:180])
    found = load_dicom(tmp_path / "disc", series="1.2.3.1", monitor=recorder.monitor)
    assert found.is_equal(load_dicom(one, monitor=Monitor()))
    with pytest.raises(InputError, match=r"001\.dcm"):
        load_dicom(tmp_path / "disc", series="1.2.3.2", monitor=Monitor())
