"""Between its header and its pixels a file may change: then nothing of it is believed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import load, load_dicom
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make

pydicom = pytest.importorskip("pydicom")

STORED = np.random.default_rng(5).integers(0, 2000, (5, 4, 6)).astype(np.uint16)


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something done after the headers are read, before the pixels are."""
    read = load.read_intensities

    def arrange(happens: Callable[[], object]) -> None:
        def late(*args: Any) -> Any:
            happens()
            return read(*args)

        monkeypatch.setattr(load, "read_intensities", late)

    return arrange


Between = Callable[[Callable[[], object]], None]


def test_a_file_that_is_written_anew_is_not_scaled_as_it_was(
    make_series: Make, between: Between
) -> None:
    folder = make_series(STORED)
    path = folder / "002.dcm"
    dataset = pydicom.dcmread(path)
    dataset.RescaleSlope = 2
    between(lambda: dataset.save_as(path))
    with pytest.raises(InputError, match=r"002\.dcm was changed after"):
        load_dicom(folder, monitor=Monitor())


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_vanishes_is_named(make_series: Make, between: Between, what: str) -> None:
    folder = make_series(STORED)
    path = folder / "002.dcm"

    between((lambda: shutil.rmtree(folder)) if what == "folder" else path.unlink)
    with pytest.raises(InputError, match=r"\.dcm cannot be read: "):
        load_dicom(folder, monitor=Monitor())
