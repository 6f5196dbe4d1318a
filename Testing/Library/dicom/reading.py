"""Series that are changed, read, refused, or read by another library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from Library.dicom.images import written

from MedEnhanceLib import list_series
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load


def edited(folder: Path) -> Iterator[Any]:
    """Give the dataset of each file for changes, and write it back."""
    for file in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(file)
        yield dataset
        dataset.save_as(file)


def loaded(folder: Path, dataset: Any, **options: Any) -> Volume:
    """Write a dataset into a folder and load it."""
    (folder / "image.dcm").write_bytes(written(dataset))
    return load(folder / "image.dcm", **options)


def refused(path: Path, says: str, error: type[InputError] = InputError) -> str:
    """Give the remedy where the first series at a path is listed as unreadable, and why."""
    row, *_ = list_series(path)
    assert not row.readable
    assert re.search(says, row.reason)
    with pytest.raises(error, match=says) as caught:
        load(path)
    assert caught.value.hint
    return caught.value.hint


def read_with_itk(folder: Path) -> tuple[np.ndarray, Geometry]:
    """What SimpleITK makes of the series in a folder."""
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    direction = np.reshape(image.GetDirection(), (3, 3)).tolist()
    geometry = Geometry(image.GetSpacing(), image.GetOrigin(), direction)
    return sitk.GetArrayFromImage(image), geometry
