"""The sidecar of BIDS beside the input: beside results, without the patient and what is untrue."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from MedEnhanceLib.cli.main import main
from MedEnhanceLib.jobs import JobSpec, run_job

FIELDS = {
    "RepetitionTime": 2.5, "EchoTime": 0.03, "SliceTiming": [0, 1.25, 0.625, 1.875],
    "PatientPosition": "HFS", "VolumeTiming": [0, 2.5, 5], "Nested": {"FlipAngle": 90},
    "ImageOrientationPatientDICOM": [1, 0, 0, 0, 1, 0], "AcquisitionDuration": 60,
    "ImagingFrequency": 123.2, "ProtocolName": "t1", "CogAtlasID": "trm_1", "TimeZero": "09:00:00",
    "SoftwareVersions": "1.2.3", "RecordingDuration": 5, "SeriesDescription": "t1",
    "TaskName": "rest", "SequenceName": "epi", "ReceiveCoilName": "head", "IntendedFor": "a.nii",
}  # fmt: skip
PERSON = {
    "PatientName": "Doe^Jane", "PatientID": "42", "PatientBirthDate": "19500101",
    "AccessionNumber": "7", "ReferringPhysicianName": "Who", "AcquisitionDateTime": "2020-01-31",
    "SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.3", "PatientWeight": 70, "StudyID": "5",
    "AcquisitionTime": "12:00:00", "OperatorsName": "Who", "DeviceSerialNumber": "9", "Sex": "F",
    "StationName": "MR1", "InstitutionName": "Clinic", "patient_id": "42", "Patient": "Doe",
    "SourceImages": ["1.2.840.10008.5.1.4"], "DOB": "1950", "MRN": "42", "name": "Doe",
    "Subject": "Doe", "(0010,0010)": "Doe", "0010,0020": "42", "0010_0030": "1950", "0010|0040": 1,
    "x00104000": "Doe", "0x0010,0x1010": "9", "00080090": {"vr": "PN", "Value": ["Doe"]},
    "0009100c": "Doe", "FillerOrderNumberImagingServiceRequest": "1", "MilitaryRank": "Doe",
    "PlacerOrderNumberProcedure": "1", "CountryOfResidence": "X", "FileName": "/Doe.dcm",
    "source_path": "/Doe", "Birth Date": "1950",
}  # fmt: skip
Run = Callable[[str], str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run commands beside scan.nii.gz and scan.json; returns what they said."""
    voxels = np.random.default_rng(5).integers(0, 900, (6, 5, 4, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-2, 2, 3, 1])), tmp_path / "scan.nii.gz")
    write(tmp_path / "scan.json", FIELDS | PERSON | {"global": [{"const": PERSON}]})
    monkeypatch.chdir(tmp_path)

    def ran(commands: str) -> str:
        for command in commands.split("; "):
            assert main(command.split()) == 0, capsys.readouterr().err
        return capsys.readouterr().err

    return ran


def write(path: Path, fields: Any) -> None:
    path.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("commands", "name"),
    [
        ("enhance scan.nii.gz new.nii.gz --modality MR", "new.json"),
        ("convert scan.nii.gz new.nii --modality MR", "new.json"),
        ("batch enhance scan.nii.gz --out out --modality MR", "out/scan.json"),
        ("compress scan.nii.gz a.ucv --lossless; decompress a.ucv new.nii.gz", "new.json"),
        ("compress scan.nii.gz scan.ucv --lossless; decompress scan.ucv new.nii.gz", "new.json"),
    ],
)
def test_the_sidecar_follows_without_what_identifies_the_patient(
    run: Run, tmp_path: Path, commands: str, name: str
) -> None:
    said = run(commands)
    copy = json.loads((tmp_path / name).read_text())
    assert copy == {**FIELDS, "global": [{"const": {}}]}
    assert all(key in said for key in PERSON)
    assert f"patient (fields: {2 * len(PERSON)}): " in said
    assert "Doe" not in said


@pytest.mark.parametrize(
    ("text", "copied", "says"),
    [
        *(
            (f'{{"EchoTime": {n}, "A": [1, {{"B": {n}}}]}}', [1, {"B": None}], "EchoTime, A.B")
            for n in ("NaN", "-Infinity", "1e400", "9" * 5000)
        ),
        ('{"EchoTime": null, "A": "\\ud800"}', "\ud800", ""),
        (
            '{"EchoTime": 1, "EchoTime": null, "A": 12345678901234567890123}',
            12345678901234567890123,
            "",
        ),
        ('\ufeff{"EchoTime": null, "A": "é"}', "é", ""),
    ],
)
def test_what_json_lacks_is_null_in_the_copy_and_named(
    run: Run, tmp_path: Path, text: str, copied: Any, says: str
) -> None:
    (tmp_path / "scan.json").write_text(text, encoding="utf-8")
    said = run("convert scan.nii.gz new.nii --modality MR")
    assert json.loads((tmp_path / "new.json").read_text()) == {"EchoTime": None, "A": copied}
    assert says in said
    assert (tmp_path / "new.nii.json").exists()


def test_a_copy_that_cannot_be_written_is_named_and_the_manifest_is_there(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "new.json").mkdir()
    said = run("convert scan.nii.gz new.nii --modality MR --force")
    assert "scan.json: not copied beside the result: " in said
    assert (tmp_path / "new.nii.json").exists()


def test_timing_of_other_slices_and_frames_is_left_out_and_named(run: Run, tmp_path: Path) -> None:
    said = run(
        "compress scan.nii.gz scan.ucv --lossless; decompress scan.ucv a.nii --region 1:2,1:3"
    )
    gone = {"SliceTiming", "VolumeTiming"}
    assert FIELDS.keys() - json.loads((tmp_path / "a.json").read_text()).keys() == gone
    assert all(key in said for key in gone)


def test_a_file_that_exists_stays_without_force(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "new.json", {"mine": 1})
    said = run("convert scan.nii.gz new.nii --modality MR")
    assert "scan.json: not copied beside the result: another one exists already" in said
    assert json.loads((tmp_path / "new.json").read_text()) == {"mine": 1}
    run("convert scan.nii.gz new.nii --modality MR --force")
    assert json.loads((tmp_path / "new.json").read_text())["EchoTime"] == 0.03


def test_the_sidecar_of_the_input_itself_is_never_written(run: Run, tmp_path: Path) -> None:
    before = (tmp_path / "scan.json").read_bytes()
    run("convert scan.nii.gz scan.nii --modality MR --force")
    assert (tmp_path / "scan.json").read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1, 2]",
        '{"A": ' + "[" * 300 + "]" * 300 + "}",
        "\udcff".encode("utf-8", "surrogateescape"),
    ],
)
def test_what_is_no_sidecar_stays_behind_and_is_named(
    run: Run, tmp_path: Path, text: str | bytes
) -> None:
    (tmp_path / "scan.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    said = run("convert scan.nii.gz new.nii --modality MR")
    assert "scan.json: not copied beside the result: it is no object of JSON" in said
    assert not (tmp_path / "new.json").exists()


def test_a_manifest_is_no_sidecar(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "scan.json", {"notice": "made by MedEnhance"})
    assert "scan.json" not in run("convert scan.nii.gz new.nii --modality MR")
    assert not (tmp_path / "new.json").exists()


def test_dicom_gets_none_and_says_so(run: Run, tmp_path: Path) -> None:
    said = run("convert scan.nii.gz out --dicom --patient-id P --modality MR")
    assert "scan.json: not copied beside the result: DICOM has no place for it" in said


def test_manifests_name_files_beside_the_input_by_its_role(run: Run, tmp_path: Path) -> None:
    for ending in (".nii.gz", ".json"):
        (tmp_path / f"scan{ending}").rename(tmp_path / f"Doe Jane{ending}")
    for kind in ("bval", "bvec"):
        (tmp_path / f"Doe Jane.{kind}").write_text("0 1 x")
    for name in ("Roe John.nii", "Roe John.nii.gz"):  # the second finds the sidecar of the first
        params = {"input": "Doe Jane.nii.gz", "output": name, "modality": "MR"}
        run_job(JobSpec("convert", params))
        manifest = (tmp_path / f"{name}.json").read_text()
        assert "the input's bval file and the input's bvec file: not read" in manifest
        assert "the input's json file: " in manifest
        assert not {"Doe", "Jane", "Roe", "John"} & {*re.findall(r"\w+", manifest)}
