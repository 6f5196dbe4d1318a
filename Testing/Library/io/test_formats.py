"""The list of formats: what others take from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.manifest import with_roles, without_files
from MedEnhanceLib.core.volume import Volume
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


def test_names_of_files_beside_a_volume_are_hidden_in_what_is_passed_on() -> None:
    weighted = (Gradient(0.0), Gradient(1000.0, (0.0, 0.0, 1.0)))
    volume = Volume(np.zeros((2, 2, 3, 4), np.float32), modality="MR", gradients=weighted)
    for each in FORMATS:
        for ending in each.beside(volume) if each.beside else ():
            text = with_roles(f"Doe.J{ending} is odd", {"input": Path(f"x/Doe.J{each.endings[0]}")})
            assert text == f"the input's {ending[1:]} file is odd"
