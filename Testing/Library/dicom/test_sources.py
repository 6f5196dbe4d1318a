"""Files are found wherever a hospital puts them; an image that cannot be seen is missed.

A slice less at the end of a series leaves no gap that would show it.
"""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from Library.conftest import Make, WarningRecorder

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.listing import list_series
from MedEnhanceLib.io.dicom.load import load_dicom
from MedEnhanceLib.io.dicom.sources import find_files, is_source
from MedEnhanceLib.runtime.progress import Monitor

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)


def names(path: Path, monitor: Monitor | None = None) -> list[str]:
    return [file.name for file in find_files(path, monitor or Monitor())]


def test_files_are_found_below_in_order_without_what_systems_leave(tmp_path: Path) -> None:
    litter = (".git/config", "b/.DS_Store", "b/._1", "lost+found/4", "__MACOSX/5")
    for name in ("b/2", "b/1", "a/z", "3", ".hidden", *litter):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path) == [".hidden", "3", "z", "1", "2"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_links_are_followed_once_and_pipes_are_not_read(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1").write_bytes(b"x")
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "there").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (folder / "nowhere").symlink_to(tmp_path / "gone")  # an image on a disk that is away?
    (folder / "itself").symlink_to(folder / "itself")
    os.mkfifo(folder / "pipe")
    assert names(folder) == ["itself", "nowhere", "1"]


def test_a_list_names_files_beside_itself(make_series: Make, tmp_path: Path) -> None:
    folder = make_series(STORED)
    lines = ["", "series/001.dcm", str(folder / "002.dcm"), " series/003.dcm "]
    path = tmp_path / "wanted.txt"
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    assert is_source(path)
    assert names(path) == ["001.dcm", "002.dcm", "003.dcm"]
    assert load_dicom(path, monitor=Monitor()).shape == (3, 4, 6)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\n", "no file"),
        (b"gone.dcm", r"gone\.dcm does not exist"),
        (b"\xff\xfe\x00", "cannot be read as a list"),
    ],
)
def test_a_list_that_is_wrong_says_where(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        find_files(tmp_path / "a.txt", Monitor())
    assert caught.value.hint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["a", "a.dcm", "a.nii.gz", "a.nrrd", "a.ucv"])
def test_a_pipe_is_refused_at_once(name: str, tmp_path: Path) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    for read in (me.load, me.inspect, me.list_series, me.decompress):
        with pytest.raises(InputError, match="pipe"):
            read(pipe)


Disc = namedtuple("Disc", "folder directory")


@pytest.fixture
def disc(make_series: Make, tmp_path: Path) -> Disc:
    """A disc of five files with their DICOMDIR, as pydicom writes it."""
    from pydicom.fileset import FileSet

    folder = make_series(
        STORED,
        PatientID="p",
        PatientName="n",
        StudyDate="20200101",
        StudyTime="120000",
        StudyID="1",
        slice_elements=lambda index: {"InstanceNumber": index + 1},
    )
    files = FileSet()
    for file in sorted(folder.iterdir()):
        files.add(file)
    files.write(tmp_path / "disc")
    files._stage["t"].cleanup()  # pydicom leaves it to the collector, which warns
    return Disc(tmp_path / "disc", tmp_path / "disc" / "DICOMDIR")


def test_a_disc_is_read_by_its_folder_and_by_its_directory(
    disc: Disc, recorder: WarningRecorder
) -> None:
    for path in disc:
        assert load_dicom(path, monitor=recorder.monitor).shape == (5, 4, 6)
    assert recorder.warnings == []
    assert is_source(disc.directory)


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
