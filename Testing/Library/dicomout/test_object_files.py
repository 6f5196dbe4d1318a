"""Objects in a folder: all or none, never over what is there, never among originals."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, OutputError
from MedEnhanceLib.io.dicomout import (
    Derivation,
    Template,
    build_series,
    new_study,
    write_objects,
)
from MedEnhanceLib.io.dicomout import object_files as folder_module
from MedEnhanceLib.io.dicomout.object_files import is_ours
from MedEnhanceLib.runtime.progress import Monitor

STUDY, OTHER_STUDY = new_study(modality="CT"), new_study(modality="CT")
#: The code in the names of what is of no source in STUDY.
CODE = hashlib.sha256(f"{STUDY.study.StudyInstanceUID} ".encode()).hexdigest()[:8]


def images(
    slices: int = 3, value: int = 7, number: int = 5, template: Template = STUDY
) -> list[Dataset]:
    volume = Volume(np.full((slices, 3, 4), value, np.int16), Geometry(), "CT", "HU")
    built = build_series(volume, template=template, derivation=Derivation("converted"))
    for image in built:
        image.SeriesNumber = number
    return built


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_files_are_named_by_series_and_image_and_say_which_software_wrote_them(out: Path) -> None:
    paths = write_objects(images(), out)
    assert [path.name for path in paths] == [f"CT5-{CODE}-000{number}.dcm" for number in (1, 2, 3)]
    assert names(out) == [path.name for path in paths]
    assert names(out.parent) == ["out"]
    path = paths[0]
    meta = pydicom.dcmread(path).file_meta
    assert meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert meta.ImplementationVersionName == f"MEDENHANCE_{__version__}"
    assert meta.MediaStorageSOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID
    assert path.read_bytes()[:132] == b"\0" * 128 + b"DICM"
    assert is_ours(path)


def test_what_is_there_is_replaced_only_when_allowed(out: Path) -> None:
    write_objects(images(slices=4, value=1), out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(OutputError, match="exists already"):
        write_objects(images(slices=2), out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    write_objects(images(slices=2), out, overwrite=True)
    assert names(out) == [
        f"CT5-{CODE}-0001.dcm",
        f"CT5-{CODE}-0002.dcm",
    ]
    assert pydicom.dcmread(out / f"CT5-{CODE}-0002.dcm").pixel_array[0, 0] == 7


def test_results_of_another_source_or_study_stay(out: Path) -> None:
    first = write_objects(images(), out, source="1.2.3")
    second = write_objects(images(), out, source="4.5.6", overwrite=True)
    third = write_objects(images(template=OTHER_STUDY), out, source="1.2.3", overwrite=True)
    assert names(out) == sorted(path.name for path in (*first, *second, *third))
    write_objects(images(slices=1), out, source="4.5.6", overwrite=True)
    assert names(out) == sorted(path.name for path in (*first, second[0], *third))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("is_marked", [False, True])
def test_nothing_is_written_among_originals(
    make_series: Callable[..., Path], overwrite: bool, is_marked: bool
) -> None:
    folder = make_series(np.zeros((2, 3, 4), np.int16))
    for path in [] if is_marked else folder.iterdir():
        bare = Dataset()
        bare.update(pydicom.dcmread(path))
        pydicom.dcmwrite(path, bare, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    before = names(folder)
    with pytest.raises(OutputError, match="another origin"):
        write_objects(images(), folder, overwrite=overwrite)
    assert names(folder) == before


def test_a_file_of_that_name_that_is_not_ours_is_never_replaced(out: Path) -> None:
    out.mkdir()
    (out / f"CT5-{CODE}-0001.dcm").write_text("no DICOM")
    with pytest.raises(OutputError, match="not of MedEnhance"):
        write_objects(images(), out, overwrite=True)
    assert (out / f"CT5-{CODE}-0001.dcm").read_text() == "no DICOM"
    assert names(out) == [f"CT5-{CODE}-0001.dcm"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_nothing(
    out: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    if exists:
        out.mkdir()
    flushed: list[int] = []

    def fsync(handle: int) -> None:
        flushed.append(handle)
        if len(flushed) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError, match="no space left"):
        write_objects(images(), out)
    assert names(out.parent) == (["out"] if exists else [])
    assert not exists or names(out) == []


def test_what_comes_back_changed_is_not_kept(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = folder_module._write

    def flipping(dataset: Dataset, path: Path) -> None:
        write(dataset, path)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(folder_module, "_write", flipping)
    with pytest.raises(OutputError, match="PixelData was changed"):
        write_objects(images(), out)
    assert not out.exists()


def test_a_cancel_leaves_nothing(out: Path) -> None:
    asked: list[None] = []

    def cancel() -> bool:
        asked.append(None)
        return len(asked) > 2

    with pytest.raises(Cancelled):
        write_objects(images(), out, monitor=Monitor(cancel=cancel))
    assert names(out.parent) == []


@pytest.mark.parametrize("what", ["file", "no parent"])
def test_a_place_that_cannot_be_is_named(tmp_path: Path, what: str) -> None:
    target = tmp_path / "here" / "out" if what == "no parent" else tmp_path / "file"
    if what == "file":
        target.write_text("x")
    with pytest.raises(OutputError) as caught:
        write_objects(images(), target)
    assert caught.value.hint


def test_two_series_of_one_number_do_not_meet(out: Path) -> None:
    paths = write_objects([*images(slices=2), *images(slices=2)], out)
    assert len(set(paths)) == len(names(out)) == 4
