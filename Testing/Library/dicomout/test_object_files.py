"""Objects in a folder: all or none, never over what is there, never among originals."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.conftest import Make
from pydicom import Dataset

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, OutputError
from MedEnhanceLib.io import atomic
from MedEnhanceLib.io.dicomout import Derivation, build_series, new_study, write_objects
from MedEnhanceLib.io.dicomout.object_files import is_ours
from MedEnhanceLib.runtime.progress import Monitor

STUDY = new_study(modality="CT")


def images(slices: int = 3, value: int = 7, number: int = 5) -> list[Dataset]:
    volume = Volume(np.full((slices, 3, 4), value, np.int16), Geometry(), "CT", "HU")
    built = build_series(volume, template=STUDY, derivation=Derivation("converted"))
    for image in built:
        image.SeriesNumber = number
    return built


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.iterdir()}


def test_files_are_named_by_series_and_image_and_state_the_software(out: Path) -> None:
    paths = write_objects(images(), out)
    assert [path.name for path in paths] == [f"CT5-000{number}.dcm" for number in (1, 2, 3)]
    assert names(out) == [path.name for path in paths]
    assert names(out.parent) == ["out"]
    meta = pydicom.dcmread(paths[0]).file_meta
    assert meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert meta.ImplementationVersionName == f"MEDENHANCE_{__version__}"
    assert meta.MediaStorageSOPInstanceUID == pydicom.dcmread(paths[0]).SOPInstanceUID
    assert paths[0].read_bytes()[:132] == b"\0" * 128 + b"DICM"
    assert is_ours(paths[0])


def test_an_earlier_result_is_replaced_as_a_whole_and_only_when_allowed(out: Path) -> None:
    out.mkdir(mode=0o750)
    write_objects(images(slices=4, value=1), out)
    before = contents(out)
    with pytest.raises(OutputError, match="holds an earlier result"):
        write_objects(images(slices=2), out)
    assert contents(out) == before
    write_objects(images(slices=2), out, overwrite=True)
    assert names(out) == ["CT5-0001.dcm", "CT5-0002.dcm"]
    assert names(out.parent) == ["out"]
    assert os.name == "nt" or out.stat().st_mode & 0o777 == 0o750
    assert pydicom.dcmread(out / "CT5-0002.dcm").pixel_array[0, 0] == 7


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_among_originals_and_other_files(
    make_series: Make, out: Path, overwrite: bool
) -> None:
    originals = make_series(np.zeros((2, 3, 4), np.int16))
    write_objects(images(), out)
    (out / "notes.txt").write_text("mine")
    for folder, held in ((originals, "001.dcm"), (out, "notes.txt")):
        before = contents(folder)
        with pytest.raises(OutputError, match=held):
            write_objects(images(), folder, overwrite=overwrite)
        assert contents(folder) == before


def test_what_another_program_writes_there_meanwhile_stays(out: Path) -> None:
    def write_beside(event: object) -> None:
        out.mkdir(exist_ok=True)
        (out / "other.txt").write_text("other")

    with pytest.raises(OutputError, match=r"other\.txt"):
        write_objects(images(), out, monitor=Monitor(write_beside))
    assert names(out) == ["other.txt"]
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize("step", [(atomic, "flush_folder"), (Path, "rename")])
def test_a_run_that_ends_second_says_what_a_later_one_would(
    out: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str]
) -> None:
    """Another run fills the folder before the last look into it, or after that."""
    proceed = getattr(*step)

    def late(*arguments: Any) -> Any:
        monkeypatch.undo()
        write_objects(images(value=1), out)
        return proceed(*arguments)

    monkeypatch.setattr(*step, late)
    with pytest.raises(OutputError, match="holds an earlier result") as caught:
        write_objects(images(), out)
    assert "--force" in (caught.value.hint or "")
    assert pydicom.dcmread(out / "CT5-0001.dcm").pixel_array[0, 0] == 1
    assert names(out.parent) == ["out"]


def test_an_earlier_result_is_put_back_if_the_new_one_cannot_replace_it(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_objects(images(value=1), out)
    before, rename = contents(out), Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise PermissionError(errno.EACCES, "in use")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(OutputError, match="no permission"):
        write_objects(images(), out, overwrite=True)
    assert contents(out) == before
    assert names(out.parent) == ["out"]


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "here" / "out"):
        with pytest.raises(OutputError, match=target.parts[-1]) as caught:
            write_objects(images(), target)
        assert caught.value.hint


def test_two_series_of_one_number_do_not_meet(out: Path) -> None:
    paths = write_objects([*images(slices=2), *images(slices=2)], out)
    assert len(set(paths)) == len(names(out)) == 4


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    ("fault", "says"),
    [("full", "no space left"), ("changed", "PixelData was changed"), ("canceled", "cancelled")],
)
def test_what_fails_leaves_nothing(
    out: Path, monkeypatch: pytest.MonkeyPatch, fault: str, says: str, exists: bool
) -> None:
    read, calls = pydicom.dcmread, iter(range(100))

    def fsync(_handle: int) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    def flipping(path: Path) -> Dataset:
        dataset = read(path)
        dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
        return dataset

    if exists:
        out.mkdir()
    if fault == "full":
        monkeypatch.setattr(os, "fsync", fsync)
    if fault == "changed":
        monkeypatch.setattr(pydicom, "dcmread", flipping)
    monitor = Monitor(cancel=lambda: fault == "canceled" and next(calls) > 1)
    with pytest.raises((OutputError, Cancelled), match=says):
        write_objects(images(), out, monitor=monitor)
    assert names(out.parent) == (["out"] if exists else [])
    assert not exists or names(out) == []
