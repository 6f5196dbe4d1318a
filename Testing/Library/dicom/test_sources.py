"""Files are found wherever a hospital puts them, and nothing outside is ever touched."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import archives, is_source, load_dicom
from MedEnhanceLib.io.dicom.sources import FileRef, find_files
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pydicom = pytest.importorskip("pydicom")

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)


def names(path: Path, monitor: Monitor | None = None) -> list[str]:
    return [ref.name for ref in find_files(path, monitor or Monitor())]


def zipped(folder: Path, archive: Path, below: str = "") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                out.write(path, f"{below}{path.relative_to(folder)}")
    return archive


# ------------------------------------------------------------ references


@pytest.mark.parametrize("member", ["", "a.dcm", "folder/a.dcm", "odd!/a.dcm"])
def test_a_reference_comes_back_from_its_text(tmp_path: Path, member: str) -> None:
    archive = tmp_path / "b.zip"
    archive.write_bytes(b"PK")
    ref = FileRef(str(archive), member)
    assert FileRef.parse(str(ref)) == ref
    assert ref.name == (member.rpartition("/")[2] or "b.zip")


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


# ------------------------------------------------------------ zips


def test_a_zip_is_read_as_the_folder_in_it(make_series: Make, tmp_path: Path) -> None:
    folder = make_series(STORED)
    (folder / "README.txt").write_text("hello")
    truth = load_dicom(folder, monitor=Monitor())
    archive = zipped(folder, tmp_path / "scan.zip", below="DICOM/1/")
    volume = load_dicom(archive, monitor=Monitor())
    assert volume.is_equal(truth)
    assert volume.origin is not None
    assert volume.origin.instances[0][0].file == f"{archive}!/DICOM/1/005.dcm"
    nameless = shutil.copy(archive, tmp_path / "IMAGES")
    assert is_source(nameless)
    assert load_dicom(nameless, monitor=Monitor()).is_equal(truth)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("secret.dcm", b"x" * 50)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag in the list of members
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"encrypted \(secret\.dcm\)") as caught:
        find_files(path, Monitor())
    assert "password" in caught.value.hint


def test_a_zip_that_unpacks_to_more_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a.dcm", bytes(5_000_000))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(archives, "memory", lambda: {"free": 9_000_000})  # 5 MB, and 5 as read
    with pytest.raises(InputError, match="takes twice that"):
        find_files(path, Monitor())
    monkeypatch.setattr(archives, "memory", lambda: {"free": 90_000_000})
    find_files(path, Monitor())
    monkeypatch.setattr(archives, "_LARGE", 4_000_000)
    with pytest.raises(InputError, match="no images do"):
        find_files(path, Monitor())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["a", "a.zip", "a.dcm", "a.nii.gz", "a.nrrd", "a.ucv"])
def test_a_pipe_is_refused_at_once(name: str, tmp_path: Path) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    for read in (me.load, me.inspect, me.list_series, me.decompress):
        with pytest.raises(InputError, match="pipe"):
            read(pipe)
    assert not archives.is_zip(pipe)


@pytest.mark.parametrize("cut", [4, 200, 0.5, 0.95])
def test_a_damaged_zip_is_refused(make_series: Make, tmp_path: Path, cut: float) -> None:
    path = zipped(make_series(STORED), tmp_path / "a.zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(cut if cut > 1 else cut * len(data))])
    with pytest.raises(InputError, match="cannot be read as a zip") as caught:
        load_dicom(path, monitor=Monitor())
    assert caught.value.hint


def test_a_damaged_member_is_named(make_series: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    folder = make_series(np.arange(5 * 90 * 90, dtype=np.uint16).reshape(5, 90, 90))
    with zipfile.ZipFile(path, "w") as out:
        for file in sorted(folder.iterdir()):
            out.write(file, file.name)
    data = bytearray(path.read_bytes())
    data[data.index(b"003.dcm") + 12_000] ^= 1  # in its pixels: only the checksum shows it
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"003\.dcm"):
        load_dicom(path, monitor=Monitor())


def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("1", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            out.writestr("1", b"y")
    with pytest.raises(InputError, match="several files of one name"):
        find_files(tmp_path / "a.zip", Monitor())


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
