"""A folder without people: whole or absent, consistent over runs, its limits stated."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from MedEnhanceLib.cli.main import main
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, OutputError
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.progress import Event, Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")

from MedEnhanceLib.io.deidentify import deidentify  # noqa: E402

STORED = np.random.default_rng(5).integers(0, 2000, (3, 4, 6)).astype(np.uint16)
WHO = {"PatientName": "Gruber^Anna", "PatientID": "H-77441", "StudyDate": "20110203"}


def outputs(folder: Path) -> dict[str, Any]:
    """Path below the folder → dataset."""
    return {
        path.relative_to(folder).as_posix(): pydicom.dcmread(path)
        for path in sorted(folder.rglob("*.dcm"))
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_voxels_and_geometry_are_the_same_and_the_input_untouched(
    make_series: Make, tmp_path: Path
) -> None:
    folder = make_series(STORED, **WHO)
    before, volume = contents(folder), load(folder)
    report = deidentify(folder, tmp_path / "out")
    assert contents(folder) == before
    after = load(tmp_path / "out")
    assert np.array_equal(after.voxels, volume.voxels)
    assert after.voxels.dtype == volume.voxels.dtype
    assert after.geometry == volume.geometry
    assert report.count("written") == 3
    assert "3 files written, 0 not" in report.to_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ANON-0001"]


def test_two_runs_with_one_mapping_fit_together(make_series: Make, tmp_path: Path) -> None:
    one = make_series(STORED, **WHO)
    other = make_series(
        STORED,
        folder=tmp_path / "other",
        uid="1.2.3.2",
        slice_elements=lambda k: {"PatientID": "H-2" if k else "H-77441"},
    )
    mapping = tmp_path / "secret.json"
    deidentify(one, tmp_path / "a", mapping=mapping)
    deidentify(other, tmp_path / "b", mapping=mapping)
    first, second = outputs(tmp_path / "a"), outputs(tmp_path / "b")
    assert {read.PatientID for read in first.values()} == {"ANON-0001"}
    assert {read.PatientID for read in second.values()} == {"ANON-0001", "ANON-0002"}
    studies = {read.StudyInstanceUID for read in [*first.values(), *second.values()]}
    assert len(studies) == 1
    deidentify(one, tmp_path / "c", mapping=mapping)
    assert set(outputs(tmp_path / "c")) == set(first)
    assert [r.SOPInstanceUID for r in outputs(tmp_path / "c").values()] == [
        r.SOPInstanceUID for r in first.values()
    ]


@pytest.mark.slow
def test_helpers_give_what_one_process_gives(
    make_series: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mapping = make_series(STORED, **WHO), tmp_path / "secret.json"
    (folder / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 99)
    alone = deidentify(folder, tmp_path / "a", mapping=mapping)
    monkeypatch.setattr("MedEnhanceLib.io.deidentify.dicom_folder._MANY", 2)
    monkeypatch.setattr("MedEnhanceLib.io.deidentify.dicom_folder.cpu_threads", lambda: 2)
    shared = deidentify(folder, tmp_path / "b", mapping=mapping)
    assert shared.outcomes == alone.outcomes
    assert [one.read_bytes() for one in sorted((tmp_path / "b").rglob("*.dcm"))] == [
        one.read_bytes() for one in sorted((tmp_path / "a").rglob("*.dcm"))
    ]


def test_without_a_mapping_nobody_can_go_back(make_series: Make, tmp_path: Path) -> None:
    folder = make_series(STORED, **WHO)
    deidentify(folder, tmp_path / "a")
    deidentify(folder, tmp_path / "b")
    assert not set(outputs(tmp_path / "a")) & set(outputs(tmp_path / "b"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "series"]


def test_the_mapping_is_for_its_owner_alone(
    make_series: Make, tmp_path: Path, recorder: WarningRecorder
) -> None:
    folder, mapping = make_series(STORED, **WHO), tmp_path / "secret.json"
    deidentify(folder, tmp_path / "a", mapping=mapping)
    assert mapping.stat().st_mode & 0o777 == 0o600
    (row,) = json.loads(mapping.read_text())["patients"]
    assert (row["pseudonym"], row["identity"]) == ("ANON-0001", "H-77441")
    mapping.chmod(0o644)
    deidentify(folder, tmp_path / "b", mapping=mapping, monitor=recorder.monitor)
    assert [warning for warning in recorder.warnings if "other users" in warning]
    with pytest.raises(ConfigError, match="inside the de-identified folder"):
        deidentify(folder, tmp_path / "c", mapping=tmp_path / "c" / "secret.json")


_DAMAGED = json.dumps(
    {
        "format": "medenhance-deidentification",
        "version": 1,
        "secret": "00" * 32,
        "patients": [{"pseudonym": 7}],
    }
)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": "other"}', '{"secret": "zz"}', "", _DAMAGED]
)
def test_a_file_that_is_no_mapping_is_not_replaced(
    make_series: Make, tmp_path: Path, text: str
) -> None:
    mapping = tmp_path / "secret.json"
    mapping.write_text(text)
    with pytest.raises(InputError, match="no mapping"):
        deidentify(make_series(STORED), tmp_path / "out", mapping=mapping)
    assert mapping.read_text() == text
    assert not (tmp_path / "out").exists()


def test_a_mapping_that_another_run_changed_is_kept(make_series: Make, tmp_path: Path) -> None:
    folder, mapping = make_series(STORED, **WHO), tmp_path / "secret.json"
    deidentify(folder, tmp_path / "a", mapping=mapping)

    def change(event: Event) -> None:
        if "de-identifying" in str(event.fields.get("stage")):
            mapping.write_text(mapping.read_text() + " ")

    with pytest.raises(OutputError, match="another run"):
        deidentify(folder, tmp_path / "b", mapping=mapping, monitor=Monitor(change))
    assert not (tmp_path / "b").exists()


def test_one_patient_gets_the_id_that_is_given(make_series: Make, tmp_path: Path) -> None:
    folder = make_series(STORED, **WHO)
    deidentify(folder, tmp_path / "a", patient_id="STUDY 7")
    assert {read.PatientID for read in outputs(tmp_path / "a").values()} == {"STUDY 7"}
    for wrong in ("../up", "a\\b", "", "x" * 65, "a^b"):
        with pytest.raises(ConfigError):
            deidentify(folder, tmp_path / "b", patient_id=wrong)
    make_series(STORED, folder=tmp_path / "series" / "more", uid="1.2.3.9", PatientID="H-2")
    with pytest.raises(ConfigError, match="2 patients"):
        deidentify(folder, tmp_path / "b", patient_id="P1")


def test_what_is_no_image_is_left_out_and_what_is_damaged_fails(
    make_series: Make, tmp_path: Path
) -> None:
    folder = make_series(STORED, **WHO)
    whole = (folder / "001.dcm").read_bytes()
    (folder / "damaged.dcm").write_bytes(whole[:-9].replace(b"1.2.3.1.3", b"1.2.3.1.9"))
    (folder / "cut.dcm").write_bytes(whole[:200])
    (folder / "notes.txt").write_text("Gruber")
    shutil.copy(folder / "001.dcm", folder / "twice.dcm")
    us = pydicom.dcmread(folder / "001.dcm")
    us.Modality, us.SOPInstanceUID = "US", "1.2.3.8"
    us.file_meta.MediaStorageSOPInstanceUID = "1.2.3.8"
    us.save_as(folder / "us.dcm")
    report = deidentify(folder, tmp_path / "out")
    ended = {Path(one.source).name: (one.status, one.reason) for one in report.outcomes}
    assert report.count("written") == 3
    assert ended["damaged.dcm"][0] == "failed"
    assert "bytes of pixels" in ended["damaged.dcm"][1]
    assert ended["cut.dcm"][0] == "failed"
    assert ended["notes.txt"] == ("left out", "no DICOM file")
    assert ended["twice.dcm"] == ("left out", "the same object as 001.dcm")
    assert ended["us.dcm"][0] == "failed"
    assert "--allow-burned-in" in ended["us.dcm"][1]
    said = report.to_json()
    assert said["profile"].startswith("PS3.15")
    assert (said["written"], said["left_out"], said["failed"]) == (3, 2, 3)
    assert {"1 left out: no DICOM file", "1 left out: the same object as 001.dcm"} <= set(
        report.warnings()
    )
    text = json.dumps(said) + report.to_text()
    assert "Gruber" not in text
    assert "77441" not in text


def test_a_dicomdir_is_known_by_its_meta_information(make_series: Make, tmp_path: Path) -> None:
    folder = make_series(STORED, **WHO)
    index = pydicom.Dataset()
    index.FileSetID = "77441"
    index.file_meta = pydicom.dataset.FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    index.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    index.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    index.save_as(folder / "index.dcm", enforce_file_format=True)
    report = deidentify(folder, tmp_path / "out")
    (found,) = (one for one in report.outcomes if Path(one.source).name == "index.dcm")
    assert (found.status, found.reason.split()[1]) == ("left out", "DICOMDIR")


def test_no_log_or_warning_holds_a_value(
    make_series: Make, tmp_path: Path, recorder: WarningRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    """pydicom quotes what it finds wrong."""
    folder = make_series(STORED, **WHO)
    for path in folder.iterdir():
        read = pydicom.dcmread(path)
        for keyword, vr in (("AccessionNumber", "SH"), ("StudyDate", "DA"), ("StudyTime", "TM")):
            raw = b"Gruber Gruber Gruber "
            element = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(keyword), vr, len(raw), raw, 0, False, True
            )
            read._dict[element.tag] = element
        read.save_as(path)
    caplog.clear()
    deidentify(folder, tmp_path / "out", keep_intervals=True, monitor=recorder.monitor)
    assert "Gruber" not in caplog.text
    assert "Gruber" not in " ".join(recorder.warnings)
    for data in contents(tmp_path / "out").values():
        assert b"Gruber" not in data


def test_nothing_stays_where_nothing_can_be_written(make_series: Make, tmp_path: Path) -> None:
    folder = make_series(STORED, Modality="US")
    with pytest.raises(InputError, match="3 × text may be burned"):
        deidentify(folder, tmp_path / "out", mapping=tmp_path / "secret.json")
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def test_a_cancel_leaves_nothing(make_series: Make, tmp_path: Path) -> None:
    folder, stop = make_series(STORED), threading.Event()

    def listen(event: Event) -> None:
        if "de-identifying, 2" in str(event.fields.get("stage")):
            stop.set()

    with pytest.raises(Cancelled):
        deidentify(folder, tmp_path / "out", mapping=tmp_path / "m", monitor=Monitor(listen, stop))
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def test_what_lies_in_the_target_stays(make_series: Make, tmp_path: Path) -> None:
    folder, out = make_series(STORED), tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        deidentify(folder, out)
    deidentify(folder, out, overwrite=True)
    assert (out / "mine").read_text() == "mine"
    assert len(outputs(out)) == 3
    for inside in (folder, folder / "out", tmp_path):
        with pytest.raises(OutputError):
            deidentify(folder, inside, overwrite=True)


def test_the_command_reports_and_sets_its_status(
    make_series: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = make_series(STORED, **WHO), tmp_path / "out"
    assert main(["deidentify", str(folder), str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["written"], report["failed"], report["patients"]) == (3, 0, 1)
    row = {"tag": "(0010,0010)", "name": "PatientName", "action": "replaced"}
    assert row | {"files": 3, "count": 3} in report["attributes"]
    assert (tmp_path / "out.txt").exists()
    assert "Gruber" not in (tmp_path / "out.txt").read_text() + (tmp_path / "out.json").read_text()
    assert main(["deidentify", str(folder), str(out)]) == 1
    assert "exists already" in capsys.readouterr().err
    (folder / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 99)
    assert main(["deidentify", str(folder), str(tmp_path / "two")]) == 3
    said = capsys.readouterr().err
    assert "1 of 4 files were not de-identified" in said
    assert "Gruber" not in said
    assert len(outputs(tmp_path / "two")) == 3


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_study_keeps_its_voxels_and_its_references(
    shared_data: Path, tmp_path: Path
) -> None:
    source, out = shared_data / "dicom/STS_025", tmp_path / "out"
    deidentify(source, out, mapping=tmp_path / "secret.json")
    images = outputs(out)
    assert len(images) == 120
    by_modality: dict[str, Path] = {}
    for name, read in images.items():
        by_modality[read.Modality] = (out / name).parent
    for modality, series in (("CT", "CT"), ("MR", "MR_T1"), ("PT", "PET")):
        before, after = load(source / f"{series}_series"), load(by_modality[modality])
        assert np.array_equal(before.voxels, after.voxels)
        assert before.geometry == after.geometry
        assert before.units == after.units
    (structures,) = [read for read in images.values() if read.Modality == "RTSTRUCT"]
    (ct,) = {read.SeriesInstanceUID for read in images.values() if read.Modality == "CT"}
    assert ct in [element.value for element in structures.iterall() if element.VR == "UI"]
    assert len({read.FrameOfReferenceUID for read in images.values()}) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
@pytest.mark.parametrize("moved", [False, True], ids=["removed", "moved"])
def test_results_are_as_valid_as_their_sources(tmp_path: Path, moved: bool) -> None:
    """Over pydicom's own files, of many kinds and makers."""
    from pydicom.data import get_testdata_file

    source = Path(str(get_testdata_file("CT_small.dcm"))).parent
    report = deidentify(source, tmp_path / "out", allow_burned_in=True, keep_intervals=moved)
    written = [one for one in report.outcomes if one.status == "written"]
    assert len(written) > 60
    for one in written:
        if one.source.endswith("image_dfl.dcm"):
            continue  # dciodvfy does not inflate it
        assert errors(tmp_path / "out" / one.output) <= errors(Path(one.source)), one.source


def errors(path: Path) -> set[str]:
    """What dciodvfy calls an error, without the value that it quotes."""
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    return {line.rpartition("<")[0] for line in lines if line.startswith("Error")}


def test_adding_to_a_folder_is_all_or_nothing(
    make_series: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mapping, out = make_series(STORED, **WHO), tmp_path / "secret.json", tmp_path / "out"
    deidentify(folder, out, mapping=mapping)
    (out / "mine").write_text("mine")
    before, saved = contents(out), mapping.read_text()
    make_series(STORED, folder=folder / "more", uid="1.2.3.9", PatientID="H-2", PatientName="B")
    replace, moved = Path.rename, []

    def fail_late(self: Path, target: Path) -> Path:
        moved.append(self.name)
        if self.suffix == ".dcm" and len(moved) == 6:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "rename", fail_late)
    with pytest.raises(OutputError, match="no space left"):
        deidentify(folder, out, mapping=mapping, overwrite=True)
    assert len(moved) > 6
    assert contents(out) == before
    assert mapping.read_text() == saved
    monkeypatch.undo()
    deidentify(folder, out, mapping=mapping, overwrite=True)
    assert len(outputs(out)) == 6
    assert (out / "mine").exists()
    assert "H-2" in mapping.read_text()


def test_what_is_prepared_is_for_the_user_alone(make_series: Make, tmp_path: Path) -> None:
    folder, modes = make_series(STORED), set()

    def look(event: Event) -> None:
        modes.update(path.stat().st_mode & 0o777 for path in tmp_path.glob(".medenhance-*"))

    deidentify(folder, tmp_path / "out", monitor=Monitor(look))
    assert modes == {0o700}


def test_pet_keeps_its_uptake_where_body_and_times_are_kept(
    make_series: Make, tmp_path: Path
) -> None:
    folder = make_series(STORED, PatientWeight="70", PatientAge="061Y", SeriesTime="101112")
    assert main(["deidentify", str(folder), str(tmp_path / "out"), "--keep-intervals",
                 "--keep-characteristics"]) == 0  # fmt: skip
    (read, *_) = outputs(tmp_path / "out").values()
    assert (read.PatientWeight, read.PatientAge, read.SeriesTime) == (70, "061Y", "101112")
    assert json.loads((tmp_path / "out.json").read_text())["config"]["keep_characteristics"]


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_a_file_without_meta_information_is_written_in_its_own_encoding(
    make_series: Make, tmp_path: Path, implicit: bool, little: bool
) -> None:
    folder = make_series(STORED[:1], **WHO)
    (path,) = folder.iterdir()
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array
    bare = pydicom.Dataset()
    bare.update({element.tag: element for element in dataset if element.tag.group != 2})
    if not little:
        bare["PixelData"].value = pixels.astype(">u2").tobytes()
    pydicom.dcmwrite(
        path, bare, implicit_vr=implicit, little_endian=little, enforce_file_format=False
    )
    deidentify(folder, tmp_path / "out")
    (found,) = outputs(tmp_path / "out").values()
    assert found.PatientName == "ANON-0001"
    assert found.file_meta.MediaStorageSOPClassUID == found.SOPClassUID
    assert found.file_meta.TransferSyntaxUID.is_implicit_VR is implicit
    assert found.file_meta.TransferSyntaxUID.is_little_endian is little
    assert np.array_equal(found.pixel_array, pixels)
