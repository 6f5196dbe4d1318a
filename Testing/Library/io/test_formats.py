"""The formats of the library keep the contract; what others take from the list of formats."""

from __future__ import annotations

import pytest
from contracts import FormatTests

from MedEnhanceLib.core.manifest import without_files
from MedEnhanceLib.io import READABLE, WRITABLE
from MedEnhanceLib.io.formats import CONTAINER, DICOM_ENDINGS, FORMATS, dialog_filter, ending_of


class TestNifti(FormatTests):
    ending = ".nii"


class TestPackedNifti(FormatTests):
    ending = ".nii.gz"


class TestNrrd(FormatTests):
    ending = ".nrrd"


class TestMetaImage(FormatTests):
    ending = ".mha"


def test_every_format_that_is_written_has_its_contract() -> None:
    assert set(WRITABLE) <= {each.ending for each in FormatTests.__subclasses__()}


def test_a_dialog_offers_what_is_written_the_preferred_format_first() -> None:
    kinds = dialog_filter(".nrrd").split(";;")
    assert kinds[:2] == ["NRRD (*.nrrd)", "NIfTI (*.nii.gz *.nii)"]
    assert len(kinds) == sum(each.header is not None for each in FORMATS)


@pytest.mark.parametrize("ending", [*READABLE, CONTAINER, *DICOM_ENDINGS])
def test_names_of_files_are_known_by_their_ending(ending: str) -> None:
    name = f"Doe.J{ending.upper()}"
    assert ending_of(name) == ending
    assert without_files(f"the file {name} is large") == "the file is large"
