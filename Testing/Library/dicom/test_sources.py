"""Files are found wherever a hospital puts them, and nothing outside is ever touched."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import is_source, load_dicom
from MedEnhanceLib.io.dicom.sources import find_files
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pydicom = pytest.importorskip("pydicom")

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)


def names(path: Path, monitor: Monitor | None = None) -> list[str]:
    return [file.name for file in find_files(path, monitor or Monitor())]


# ------------------------------------------------------------ folders


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


# ------------------------------------------------------------ lists


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
        (b"gone.dcm", r"gone\.dcm is not there"),
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


# ------------------------------------------------------------ DICOMDIR

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


def test_a_directory_without_its_images_is_refused(disc: Disc, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(disc.directory, tmp_path / "alone" / "DICOMDIR")
    for path in (alone, alone.parent):
        with pytest.raises(InputError, match="no images") as caught:
            load_dicom(path, monitor=Monitor())
        assert caught.value.hint
