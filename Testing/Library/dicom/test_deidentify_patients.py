"""Two patients never become one, and one never two; what is uncertain is a warning."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")

from MedEnhanceLib.io.deidentify import Patients, deidentify  # noqa: E402
from MedEnhanceLib.io.deidentify.patients import Person, _relation, person_of  # noqa: E402

STORED = np.arange(24, dtype=np.uint16).reshape(1, 4, 6)


def person(**elements: str) -> Person:
    dataset = pydicom.Dataset()
    dataset.StudyInstanceUID = "1.2.3"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return person_of(dataset)


def who(name: str, birth: str = "", identity: str = "", **more: str) -> Person:
    return person(PatientName=name, PatientBirthDate=birth, PatientID=identity, **more)


ANNA = who("Gruber^Anna", "19700102", "7")


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (who("GRUBER^ANNA^M^Dr", "19700102", "7"), True),
        (who("Huber^Anna", "19700102", "7"), True),
        (who("Gruber^Anna", "19700103", "7"), True),
        (who("Gruber^Anna", "", "7"), True),
        (who("", "", "7"), True),
        (who("Anonymous", "19000101", "7"), True),
        (who("Gruber^Anna", "19700102", ""), True),
        (who("Gruber^Anna", "19700102", "Unknown"), True),
        (who("Alpha^Berta", "19510203", "7"), False),
        (who("Alpha^Berta", "", "7"), False),
        (who("Alpha^Berta", "19700102", "7"), False),
        (who("山田^太郎", "19700102", "7"), True),
        (who("Gruber^Anna", "19700102", "8"), False),
        (who("Gruber^Anna", "", ""), False),
    ],
)
@pytest.mark.parametrize("is_turned", [False, True])
def test_who_is_the_same(other: Person, is_same: bool, is_turned: bool) -> None:
    patients = Patients()
    first, second = (other, ANNA) if is_turned else (ANNA, other)
    assert (patients.pseudonym(first) == patients.pseudonym(second)) is is_same


def test_without_numbers_and_studies_names_and_birth_dates_decide() -> None:
    def known(name: str, birth: str, identity: str = "") -> Person:
        return who(name, birth, identity, StudyInstanceUID="")

    anna = known("Gruber^Anna", "19700102")
    assert _relation(anna, known("GRUBER^ANNA", "19700102")) == "same"
    assert _relation(anna, known("Gruber^Anna", "19700103")) == "other"
    assert _relation(anna, known("", "19700102")) == "other"
    assert _relation(anna, known("Alpha^Berta", "19700102", "8")) == ""


def test_nameless_images_of_one_study_are_of_one_patient() -> None:
    here = who("")
    assert _relation(here, who("Gruber^Anna")) == "same"
    assert _relation(here, who("", StudyInstanceUID="1.2.4")) == ""
    assert _relation(who("Gruber^Anna"), who("Huber^Ina")) == ""


def test_issuers_distinguish_equal_numbers() -> None:
    patients = Patients()
    here = who("Gruber^Anna", "", "7", IssuerOfPatientID="A")
    there = who("Gruber^Anna", "", "7", IssuerOfPatientID="B")
    assert patients.pseudonym(here) != patients.pseudonym(there)
    (warning,) = patients.warnings({"ANON-0001"})
    assert "ANON-0001, ANON-0002: one patient ID" in warning


@pytest.mark.parametrize(("one", "other"), [("Müller^Jörg", "Mueller^Joerg"), ("Müller", "MULLER")])
def test_umlauts_are_written_in_many_ways(one: str, other: str) -> None:
    patients = Patients()
    assert patients.pseudonym(who(one, "", "7")) == patients.pseudonym(who(other, "", "7"))


@pytest.mark.parametrize("other", ["Mueller^Berta", "Muller^Berta"])
def test_one_word_in_common_is_enough_where_the_rest_agrees(other: str) -> None:
    """As after a marriage, also where the word is spelled in another way."""
    one, changed = who("Müller^Anna", "19700102", "7"), who(other, "19700102", "7")
    assert _relation(one, changed) == "same"


def test_warnings_hold_no_names() -> None:
    patients = Patients()
    for one in (ANNA, who("Huber^Anna", "19700102", "7"), who("Gruber^Anna", "19700102", "8"),
                who("Alpha^B", "19990101", "7"), person()):  # fmt: skip
        patients.pseudonym(one)
    lines = "\n".join(patients.warnings(set(patients.known.values())))
    assert "ANON-0001: its images state different names" in lines
    assert "ANON-0001, ANON-0002: the same name and birth date, but other IDs" in lines
    assert "ANON-0001, ANON-0003: one patient ID, but other names" in lines
    assert "ANON-0004: neither an ID nor a name" in lines
    assert not [word for word in ("Gruber", "Huber", "1970") if word in lines]


WORDS = st.sampled_from(["", "Gruber^Anna", "GRUBER^ANNA^M", "Alpha^Berta", "Anonymous"])
DAYS = st.sampled_from(["", "19700102", "19510203", "19000101"])
IDS = st.sampled_from(["", "7", "8", "unknown"])


@given(st.lists(st.builds(who, WORDS, DAYS, IDS), max_size=6))
def test_nobody_shares_a_pseudonym_with_a_stranger(persons: list[Person]) -> None:
    from MedEnhanceLib.errors import InputError

    patients = Patients()
    for one in persons:
        try:
            patients.pseudonym(one)
        except InputError:
            assert len({p.identity for p in persons}) + len(persons) > 2
    for one, other in itertools.combinations(patients.known, 2):
        if patients.known[one] == patients.known[other]:
            assert not (one.identity and other.identity and one.identity != other.identity)
            if one.identity and other.identity:
                contradict = one.birth and other.birth and one.birth != other.birth
                differ = {one.name, other.name} >= {"Alpha^Berta", "Gruber^Anna"}
                assert not (contradict and differ)
    again = Patients(patients.known)
    assert [again.pseudonym(one) for one in patients.known] == list(patients.known.values())


def test_two_patients_of_one_id_are_kept_apart_with_a_warning(
    make_series: Make, tmp_path: Path, recorder: WarningRecorder
) -> None:
    def add(folder: str, uid: str, **elements: Any) -> None:
        make_series(STORED, folder=tmp_path / "in" / folder, uid=uid, **elements)

    (tmp_path / "in").mkdir()
    add("a", "1.2.3.1", PatientID="1", PatientName="Alpha^A", PatientBirthDate="19700102")
    add("b", "1.2.3.2", PatientID="1", PatientName="Beta^B", PatientBirthDate="19510203")
    report = deidentify(tmp_path / "in", tmp_path / "out", monitor=recorder.monitor)
    assert len({one.output.split("/")[0] for one in report.outcomes}) == 2
    assert [text for text in recorder.warnings if "one patient ID" in text]
    assert not [text for text in recorder.warnings if "Alpha" in text]


def test_an_ambiguous_patient_fails_alone(make_series: Make, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for folder, uid, name in (
        ("a", "1.2.3.1", "Alpha"),
        ("b", "1.2.3.2", "Beta"),
        ("c", "1.2.3.3", ""),
    ):
        make_series(
            STORED, folder=tmp_path / "in" / folder, uid=uid, PatientID="1", PatientName=name
        )
    report = deidentify(tmp_path / "in", tmp_path / "out")
    assert report.count("written") == 2
    assert "matches several" in report.failed[0].reason


def test_an_image_without_a_patient_is_of_its_study(make_series: Make, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for folder, uid, identity in (("a", "1.2.3.1", "7"), ("b", "1.2.3.2", "")):
        make_series(
            STORED, folder=tmp_path / "in" / folder, uid=uid,
            PatientID=identity, PatientName="", StudyInstanceUID="1.2.3",
        )  # fmt: skip
    report = deidentify(tmp_path / "in", tmp_path / "out")
    assert {one.output.split("/")[0] for one in report.outcomes} == {"ANON-0001"}
