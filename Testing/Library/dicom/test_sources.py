"""Files are found wherever a hospital puts them, and nothing outside is ever touched."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.errors import Cancelled, InputError
from MedEnhanceLib.io.dicom import archives, is_source, load_dicom, sources
from MedEnhanceLib.io.dicom.scan import scan
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


def test_a_folder_whose_name_looks_like_a_zip_is_still_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "scan!" / "a.dcm"
    path.parent.mkdir()
    path.write_bytes(b"x")
    assert FileRef.parse(str(path)) == FileRef(str(path))


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


def test_a_search_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(Cancelled):
        find_files(tmp_path, Monitor(cancel=lambda: True))


# ------------------------------------------------------------ lists


def test_a_list_names_files_and_folders_beside_itself(make_series: Make, tmp_path: Path) -> None:
    folder = make_series(STORED)
    lines = ["# a comment", "", "series/001.dcm", str(folder / "002.dcm"), " series/003.dcm "]
    (tmp_path / "wanted.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    assert names(tmp_path / "wanted.txt") == ["001.dcm", "002.dcm", "003.dcm"]
    assert load_dicom(tmp_path / "wanted.txt", monitor=Monitor()).shape == (3, 4, 6)
    (tmp_path / "all.lst").write_text("series")
    assert len(names(tmp_path / "all.lst")) == 5


def test_a_list_may_name_members_of_a_zip(make_series: Make, tmp_path: Path) -> None:
    archive = zipped(make_series(STORED), tmp_path / "s.zip")
    (tmp_path / "a.txt").write_text("\n".join(f"s.zip!/00{k}.dcm" for k in (1, 2, 3)))
    volume = load_dicom(tmp_path / "a.txt", monitor=Monitor())
    assert volume.shape == (3, 4, 6)
    assert volume.origin is not None
    assert volume.origin.instances[0][0].file == f"{archive}!/003.dcm"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"# nothing", "names no file"),
        (b"ok.dcm\ngone.dcm", r"line 2: gone\.dcm is not there"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
    ],
)
def test_a_list_that_is_wrong_says_where(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "ok.dcm").write_bytes(b"x")
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


def test_what_systems_leave_in_a_zip_is_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        for name in ("a/.1", ".git/2", "__MACOSX/a/._1", "a/.DS_Store", "a/"):
            out.writestr(name, b"x")
    assert names(tmp_path / "a.zip") == [".1"]


def test_archives_in_a_zip_are_not_opened(tmp_path: Path, recorder: WarningRecorder) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("viewer.zip", b"x")
    with pytest.raises(InputError, match=r"further archives \(viewer\.zip") as caught:
        find_files(tmp_path / "a.zip", Monitor())
    assert "Unpack" in caught.value.hint
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as out:
        out.writestr("1", b"x")
    assert names(tmp_path / "a.zip", recorder.monitor) == ["1"]
    assert any("viewer.zip" in warning for warning in recorder.warnings)


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
    monkeypatch.setattr(archives, "_LARGE", 6_000_000)
    monkeypatch.setattr(archives, "_MOST_FILES", 0)
    with pytest.raises(InputError, match="holds 1 files"):
        find_files(path, Monitor())


def test_many_empty_files_take_linear_time(tmp_path: Path) -> None:
    """A list that is searched for each of them takes several times as long."""
    path = tmp_path / "empty.zip"
    with zipfile.ZipFile(path, "w") as out:
        for number in range(2000):
            out.writestr(f"{number}.dcm", b"")
    began = time.process_time()
    with pytest.raises(InputError):
        scan(path, Monitor())
    assert time.process_time() - began < 1.5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["a", "a.zip", "a.dcm", "a.nii.gz", "a.nrrd", "a.ucv"])
def test_a_pipe_is_refused_at_once(name: str, tmp_path: Path) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    for read in (me.load, me.inspect, me.list_series, me.decompress):
        with pytest.raises(InputError, match="pipe"):
            read(pipe)
    assert not archives.is_zip(pipe)


def test_a_member_that_declares_less_than_it_holds_is_refused(
    make_series: Make, tmp_path: Path
) -> None:
    """The declared size is the limit, so that a lie about it can fill no memory."""
    path = zipped(make_series(np.zeros((1, 300, 300), np.uint16)), tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = data.index(signature) + offset
        data[place : place + 4] = (900).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"001\.dcm"):
        load_dicom(path, monitor=Monitor())


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


def test_names_that_lead_out_of_a_zip_lead_nowhere(make_series: Make, tmp_path: Path) -> None:
    file = make_series(STORED[:1]) / "001.dcm"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.write(file, "../../out.dcm")
    before = sorted(tmp_path.rglob("*"))
    assert load_dicom(tmp_path / "a.zip", monitor=Monitor()).shape == (1, 4, 6)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("1", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            out.writestr("1", b"y")
    with pytest.raises(InputError, match="2 files of the name 1"):
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


def test_a_directory_of_another_name_is_known_by_its_class(disc: Disc) -> None:
    other = disc.directory.rename(disc.folder / "INDEX")
    assert is_source(other)
    assert load_dicom(other, monitor=Monitor()).shape == (5, 4, 6)


def test_files_missing_from_a_disc_are_named(disc: Disc, recorder: WarningRecorder) -> None:
    gone = next(path for path in sorted(disc.folder.rglob("*")) if path.name.startswith("IM"))
    gone.unlink()
    load_dicom(disc.directory, monitor=recorder.monitor)
    assert any(
        "1 file that is not there" in warning and gone.name in warning
        for warning in recorder.warnings
    )


def test_files_that_the_directory_forgot_are_found(
    disc: Disc, make_series: Make, tmp_path: Path
) -> None:
    more = make_series(
        STORED, folder=tmp_path / "more", uid="1.2.3.9", StudyInstanceUID="1.2.3", Modality="MR"
    )
    shutil.copytree(more, disc.folder / "FORGOTTEN")
    assert load_dicom(disc.directory, series="1.2.3.9", monitor=Monitor()).modality == "MR"


@pytest.mark.parametrize(
    "names", [["..", "..", "secret"], ["..\\..\\secret"], ["../secret"], ["/etc/hostname"]]
)
def test_a_directory_never_leads_out_of_its_folder(
    disc: Disc, recorder: WarningRecorder, tmp_path: Path, names: list[str], make_series: Make
) -> None:
    secret = make_series(STORED, folder=tmp_path / "s", uid="1.2.3.8", Modality="MR") / "001.dcm"
    shutil.copy(secret, tmp_path / "secret")
    dataset = pydicom.dcmread(disc.directory)
    records = [one for one in dataset.DirectoryRecordSequence if "ReferencedFileID" in one]
    with pydicom.config.disable_value_validation():
        records[0].ReferencedFileID = names
        dataset.save_as(disc.directory)
    volume = load_dicom(disc.directory, monitor=recorder.monitor)
    assert volume.modality == "CT"
    assert any("not there" in warning for warning in recorder.warnings)


def test_a_damaged_directory_only_costs_its_warnings(disc: Disc, recorder: WarningRecorder) -> None:
    data = disc.directory.read_bytes()
    for damaged in (data[:500], data[:-30], b"no DICOM", b""):
        disc.directory.write_bytes(damaged)
        assert load_dicom(disc.folder, monitor=recorder.monitor).shape == (5, 4, 6)
    assert any("DICOMDIR cannot be read" in warning for warning in recorder.warnings)


def test_a_disc_in_a_zip_is_read(disc: Disc, tmp_path: Path, recorder: WarningRecorder) -> None:
    archive = zipped(disc.folder, tmp_path / "disc.zip", below="CD/")
    assert load_dicom(archive, monitor=recorder.monitor).shape == (5, 4, 6)
    assert recorder.warnings == []


def test_a_directory_without_its_images_is_refused(disc: Disc, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(disc.directory, tmp_path / "alone" / "DICOMDIR")
    for path in (alone, alone.parent):
        with pytest.raises(InputError, match=r"no images|empty folder") as caught:
            load_dicom(path, monitor=Monitor())
        assert caught.value.hint


def test_names_on_a_disc_are_compared_as_drives_show_them() -> None:
    found = ["dicom/im0001", "DICOM/IM0002;1", "DICOM/IM0003."]
    reported = ["DICOM/IM0001", "DICOM/IM0002", "DICOM/IM0003", "DICOM/IM0004", "../DICOM/IM0001"]
    assert sources.not_there(reported, found) == ["DICOM/IM0004", "../DICOM/IM0001"]


@pytest.mark.parametrize(
    "name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-nooffset"]
)
def test_directories_of_pydicom_give_nothing_wrong(name: str, recorder: WarningRecorder) -> None:
    from pydicom.data import get_testdata_file

    path = Path(str(get_testdata_file("DICOMDIR"))).with_name(name)
    found = find_files(path, recorder.monitor)
    assert len(found) > 30
    assert not any("not there" in warning for warning in recorder.warnings)
