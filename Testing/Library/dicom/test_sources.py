"""Files are found wherever a hospital puts them; an image that cannot be seen is missed.

A slice less at the end of a series leaves no gap that would show it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from Library.conftest import Make, WarningRecorder
from Library.dicom.reading import refused

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.io.dicom.sources import find_files, is_source
from MedEnhanceLib.runtime.progress import Monitor

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)


links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")


def names(path: Path) -> list[str]:
    return [file.name for file in find_files(path, Monitor())]


def test_files_are_found_below_in_order_without_what_systems_leave(tmp_path: Path) -> None:
    litter = (".git/config", "b/.DS_Store", "b/._1", "lost+found/4", "__MACOSX/5")
    for name in ("b/2", "b/1", "a/z", "3", ".hidden", *litter):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert names(tmp_path) == [".hidden", "3", "z", "1", "2"]


@links
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
    assert load(path).shape == (3, 4, 6)


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


def test_a_disc_is_read_by_its_folder_and_by_its_directory(
    make_series: Make, tmp_path: Path, recorder: WarningRecorder
) -> None:
    """Five files with their DICOMDIR, as pydicom writes it."""
    from pydicom.fileset import FileSet

    said = {"PatientID": "p", "PatientName": "n", "StudyID": "1"}
    said |= {"StudyDate": "20200101", "StudyTime": "120000"}
    folder = make_series(STORED, slice_elements=lambda k: {"InstanceNumber": k + 1}, **said)
    files = FileSet()
    for file in sorted(folder.iterdir()):
        files.add(file)
    files.write(tmp_path / "disc")
    files._stage["t"].cleanup()  # pydicom leaves it to the collector, which warns
    for path in (tmp_path / "disc", tmp_path / "disc" / "DICOMDIR"):
        assert load(path, monitor=recorder.monitor).shape == (5, 4, 6)
    assert recorder.warnings == []
    assert is_source(path)


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
    for path in folder.iterdir():
        path.rename(path.with_suffix(ending))
    lose(folder / f"001{ending}")  # the last by position
    assert "remove it" in refused(folder, rf"001{ending}: ")


@links
@pytest.mark.parametrize("lose", [empty, zeroed, astray, circle])
def test_what_is_not_named_like_the_images_hurts_nothing(
    make_series: Make, lose: Callable[[Path], None]
) -> None:
    folder = make_series(STORED)
    for name in ("LOCKFILE", "notes.txt"):
        (folder / name).write_bytes(b"text")
        lose(folder / name)
    assert load(folder).shape == (5, 4, 6)
    assert len(me.list_series(folder)) == 1
