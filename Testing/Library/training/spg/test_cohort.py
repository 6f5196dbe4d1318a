"""Cohorts: patients found in folders and tables; what is refused, and by which names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from Library.conftest import WarningRecorder

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.spg.cohort import Cohort, Patient, count_patients


def image(seed: int, modality: str = "MR") -> Volume:
    low = -1000 if modality == "CT" else 0
    voxels = np.random.default_rng(seed).integers(low, 1000, (4, 12, 10))
    return Volume(voxels.astype(np.int16), modality=modality)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three patients with a folder each; the second has two volumes."""
    for name, files in {"ann": ("t1",), "bob": ("t1", "t2"), "cleo": ("t1",)}.items():
        (tmp_path / "patients" / name).mkdir(parents=True)
        for file in files:
            path = tmp_path / "patients" / name / f"{file}.nii.gz"
            io.save(image(len(str(path)) + len(file) * ord(name[0]) + ord(file[1])), path)
    return tmp_path / "patients"


def read(cohort: Cohort, least_slices: int = 1) -> dict[str, int]:
    """Patient → number of slices."""
    pairs = cohort.volumes(least_slices=least_slices)
    return {patient.id: sum(volume.shape[0] for volume in volumes) for patient, volumes in pairs}


def test_a_folder_for_each_patient(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / "README.txt").write_text("three patients")
    cohort = Cohort.from_folder(folder)
    assert [patient.id for patient in cohort] == ["ann", "bob", "cleo"]
    assert read(cohort) == {"ann": 4, "bob": 8, "cleo": 4}
    assert [len(patient.paths) for patient in cohort] == [1, 2, 1]


def test_a_patients_folder_without_a_volume_causes_a_warning(
    folder: Path, recorder: WarningRecorder
) -> None:
    (folder / "dora").mkdir()
    assert len(list(Cohort.from_folder(folder).volumes(monitor=recorder.monitor))) == 3
    (warning,) = recorder.warnings
    assert "dora" in warning


def test_a_file_for_each_patient_where_there_are_no_folders(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nrrd"):
        io.save(image(ord(name[0])), tmp_path / name)
    assert read(Cohort.from_folder(tmp_path)) == {"a": 4, "b": 4}


def test_a_pattern_leaves_labels_out(folder: Path) -> None:
    labels = Volume(np.ones((4, 12, 10), np.uint8), modality="SEG")
    io.save(labels, folder / "ann" / "t1_gtv.nii.gz")
    with pytest.raises(InputError, match=r"patient ann, t1_gtv.*label map") as caught:
        read(Cohort.from_folder(folder))
    assert "--pattern" in caught.value.hint
    assert read(Cohort.from_folder(folder, pattern="t1.nii.gz"))["ann"] == 4


def test_a_stated_modality_makes_no_image_of_labels_or_of_another_modality(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    labels = rng.integers(0, 2, (4, 40, 40)).astype(np.uint8)
    hounsfield = rng.normal(-700, 400, (4, 40, 40)).astype(np.int16)
    for name, voxels, says in (
        ("gtv", labels, "label map"),
        ("scan", hounsfield, "values of CT"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        io.save(Volume(voxels), folder / f"{name}.nii.gz")
        with pytest.raises(InputError, match=says):
            read(Cohort.from_folder(folder, modality="MR"))


def test_a_table_names_patients_and_paths(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text(
        "path,patient\npatients/bob/t1.nii.gz,b\npatients/ann/t1.nii.gz,a\npatients/bob/t2.nii.gz,b"
    )
    assert read(Cohort.open(table)) == {"a": 4, "b": 8}
    table.write_text("patient,path\nann,patients/ann/t1.nii.gz\nbob,\n")
    with pytest.raises(InputError, match=r"cohort\.csv, line 3: no path"):
        Cohort.from_csv(table)


@pytest.mark.parametrize("most", [2, 9])
@pytest.mark.parametrize("kind", ["folders", "files", "dicom", "table"])
def test_patients_are_counted_without_reading_them(folder: Path, kind: str, most: int) -> None:
    (folder / "dora").mkdir()
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "scan.nii.gz").touch()
    path = folder
    if kind == "files":
        path = folder / "bob"
    elif kind == "dicom":
        (folder / "dora" / "series").mkdir()
        (folder / "dora" / "series" / "IM1").touch()
    elif kind == "table":
        path = folder / "table.csv"
        path.write_text("patient,path\na,ann\na,bob\nb,cleo/t1.nii.gz\n")
    assert count_patients(path, most) == min(most, len(Cohort.open(path)))
    assert count_patients(folder / "none", most) == 0


def test_each_folder_below_a_patients_that_holds_files_is_a_series(
    make_series: Callable, tmp_path: Path
) -> None:
    root = tmp_path / "dicom"
    for patient, series, uid in (("P1", "one", "1.1"), ("P1", "two", "1.2"), ("P2", ".", "1.3")):
        make_series((3, 8, 9), folder=root / patient / series, uid=uid)
    cohort = Cohort.open(root)
    paths = {patient.id: [path.name for path in patient.paths] for patient in cohort}
    assert paths == {"P1": ["one", "two"], "P2": ["P2"]}
    assert read(cohort) == {"P1": 6, "P2": 3}


def test_one_person_under_two_names_is_found_by_equal_voxels(folder: Path) -> None:
    volume = io.load(folder / "ann" / "t1.nii.gz")
    part = Volume(volume.voxels[1:3].astype(np.float32), modality="MR")  # fewer slices, other type
    (folder / "zoe").mkdir()
    io.save(part, folder / "zoe" / "again.nrrd")
    with pytest.raises(InputError, match="patients ann and zoe are one person"):
        read(Cohort.from_folder(folder))


def test_mixed_modalities_are_refused_by_name(folder: Path) -> None:
    io.save(image(77, "CT"), folder / "cleo" / "ct.nii.gz")
    with pytest.raises(InputError, match=r"ann, t1.* is MR, but patient cleo, ct.* is CT"):
        read(Cohort.from_folder(folder))


def test_the_split_is_by_patient_and_repeats_with_its_seed() -> None:
    patients = tuple(Patient(f"p{n}", (Path(f"{n}.nii"),)) for n in range(8))
    cohort = Cohort(patients)
    training, held_out = cohort.split(0.25, seed=3)
    assert (len(training), len(held_out)) == (6, 2)
    assert {p.id for p in training} | {p.id for p in held_out} == {p.id for p in patients}
    again = Cohort(patients[::-1]).split(0.25, seed=3)[1]
    assert {p.id for p in again} == {p.id for p in held_out}
    others = {tuple(p.id for p in cohort.split(0.25, seed=seed)[1]) for seed in range(8)}
    assert len(others) > 1
    assert len(Cohort(patients[:3]).split(0.01, seed=0)[1]) == 1
    assert len(Cohort(patients[:2]).split(0.9, seed=0)[0]) == 1
    assert len(cohort.split(0, seed=0)[1]) == 0
    with pytest.raises(ConfigError, match="held_out"):
        cohort.split(1.0, seed=0)


def test_no_folder_no_volume_and_a_name_twice_are_errors(folder: Path, tmp_path: Path) -> None:
    twice = Patient("a", (tmp_path / "x",)), Patient("a", (tmp_path / "y",))
    with pytest.raises(ConfigError, match="a is listed twice"):
        Cohort(twice)
    with pytest.raises(InputError, match="not a folder"):
        Cohort.from_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no volume matches"):
        Cohort.from_folder(tmp_path / "empty")


def test_reading_can_be_cancelled_between_patients(folder: Path) -> None:
    with pytest.raises(Cancelled):
        list(Cohort.from_folder(folder).volumes(monitor=Monitor(cancel=lambda: True)))
