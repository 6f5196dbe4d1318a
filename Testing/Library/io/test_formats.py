"""The list of formats: what others take from it."""

from __future__ import annotations

import pytest

from MedEnhanceLib.core.manifest import without_files
from MedEnhanceLib.io import READABLE
from MedEnhanceLib.io.formats import CONTAINER, DICOM_ENDINGS, FORMATS, dialog_filter, ending_of


def test_a_dialog_offers_what_is_written_the_preferred_format_first() -> None:
    kinds = dialog_filter(".nrrd").split(";;")
    assert kinds[:2] == ["NRRD (*.nrrd)", "NIfTI (*.nii.gz *.nii)"]
    assert len(kinds) == sum(each.header is not None for each in FORMATS)


@pytest.mark.parametrize("ending", [*READABLE, CONTAINER, *DICOM_ENDINGS])
def test_names_of_files_are_known_by_their_ending(ending: str) -> None:
    name = f"Doe.J{ending.upper()}"
    assert ending_of(name) == ending
    assert without_files(f"the file {name} is large") == "the file is large"
