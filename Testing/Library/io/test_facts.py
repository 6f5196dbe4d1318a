"""The table of facts and formats in docs/dicom/reading.md: each cell is what a file does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.conftest import Make, WarningRecorder
from Library.dicom.images import MR
from Library.dicom.reading import edited

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import Volume, io
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.io.dicomout.derivation import with_elements

_PAGE = Path(__file__).resolve().parents[3] / "docs/dicom/reading.md"
_ROWS = _PAGE.read_text(encoding="utf-8").partition("| fact |")[2].partition("\n\n")[0].split("\n")
#: Ending of the files of each column; "" for a folder of DICOM.
_ENDINGS = ("", ".nii.gz", ".nrrd", ".mha", ".ucv")
#: First words of a row, its cell, ending of a file.
CELLS = [
    (fact.strip(), cell.strip(), ending)
    for fact, *cells in (row.strip("|").split("|") for row in _ROWS[2:])
    for cell, ending in zip(cells, _ENDINGS, strict=True)
]
#: Fields of a volume that state a fact.
OF_VOLUMES: dict[str, dict[str, Any]] = {
    "modality": {"modality": "PT", "units": "SUV"},
    "seconds": {"frame_interval_s": 2.5},
    "b-values": {"gradients": (Gradient(0.0), Gradient(900.0, (0.0, 1.0, 0.0)))},
    "lossy": {"lossy": (Lossy("ISO_10918_1", 8.0),)},
    "history": {"history": ("DERIVED: exported by MedEnhance",)},
    "quantity": {"quantity": "phase"},
    "kind": {"sequence_kind": "functional"},
    "slice": {"header_fields": {"slices": 3, "slice_code": 1}},
    "names": {
        "voxels": np.ones((3, 4, 5), np.uint8),
        "modality": "SEG",
        "header_fields": {"Segment0_Name": "liver", "Segment0_Color": "1 0 0"},
    },
}
#: Facts → words of the warning that they are lost.
LOST = {
    "quantity": "not kept in DICOM: phase",
    "kind": "not kept in DICOM: functional",
    "slice": "not kept in DICOM: slice_code",
    "names": "names and colors of segments are not kept, as NRRD alone has a place for them: liver",
    "other": "not kept of its header: ",
}
#: Facts of DICOM → words of the warning, the element that states it in results.
OF_DICOM = {
    "frames": ("frames begin after 0, 10, 40 s", "FrameReferenceTime"),
    "RealWorldValueMappingSequence": ("numbers × 0.5 +1 ", "RealWorldValueMappingSequence"),
    "factors": ("intensities × 0.25 (7053,1000) are SUV; intensities × 8 (7053,1009) are Bq", ""),
}


def written(volume: Volume, path: Path, recorder: WarningRecorder) -> None:
    if path.suffix == ".ucv":
        me.compress(volume, path, lossless=True)
    elif path.suffix:
        io.save(volume, path, monitor=recorder.monitor)
    else:
        patient = {} if volume.dicom_origin else {"patient_id": "P"}
        me.save_dicom(volume, path, progress=recorder.listen, **patient)


def series_of(key: str, make_series: Make) -> Path:
    """Three time points of two slices, of PET whose kind of scan is the fact."""
    units = "CNTS" if key == "factors" else "BQML"
    starts = (0, 10, 40) if key == "frames" else (0, 10, 20)
    pet = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "Modality": "PT", "Units": units}
    if key == "RealWorldValueMappingSequence":
        unit = with_elements(CodeValue="s", CodingSchemeDesignator="UCUM", CodeMeaning="s")
        mapping = with_elements(
            RealWorldValueSlope=0.5,
            RealWorldValueIntercept=1.0,
            LUTLabel="T1",
            MeasurementUnitsCodeSequence=[unit],
        )
        pet = MR | {key: [mapping]}
    folder = make_series(
        np.arange(6 * 4 * 5, dtype=np.int16).reshape(6, 4, 5),
        positions=[(0.0, 0.0, 3.0 * (index % 2)) for index in range(6)],
        slice_elements=lambda index: {
            "TemporalPositionIdentifier": index // 2 + 1,
            "FrameReferenceTime": 1000.0 * starts[index // 2],
        },
        **{"RescaleSlope": 1, "RescaleIntercept": 0, **pet},
    )
    for dataset in edited(folder) if key == "factors" else ():
        block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", "0.25")
        block.add_new(0x09, "DS", "8")
    return folder


@pytest.mark.parametrize(("fact", "cell", "ending"), CELLS)
def test_a_fact_is_kept_or_named(
    fact: str,
    cell: str,
    ending: str,
    tmp_path: Path,
    make_series: Make,
    recorder: WarningRecorder,
) -> None:
    key = next(key for key in (*OF_VOLUMES, *OF_DICOM, *LOST) if fact.startswith(key))
    path, fields = tmp_path / f"result{ending}", OF_VOLUMES.get(key, {})
    if key in OF_DICOM:
        words, element = OF_DICOM[key]
        folder = series_of(key, make_series)
        volume = io.load(folder, monitor=recorder.monitor)
        for warnings in (recorder.warnings, me.inspect(folder)["warnings"]):
            assert any(words in text for text in warnings)
        written(volume, path, recorder)
        if cell == "kept":
            assert all(element in pydicom.dcmread(file) for file in path.iterdir())
        return
    voxels = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    volume = replace(Volume(voxels, modality="MR"), **fields)
    if key == "other":
        for source, line in (("a.nrrd", b"\ncontent: knee\n# mine"), ("b.mha", b"\nComment = x")):
            io.save(volume, tmp_path / source)
            head, end, rest = (tmp_path / source).read_bytes().partition(b"\n")
            (tmp_path / source).write_bytes(head + line + end + rest)
            volume = io.load(tmp_path / source, monitor=recorder.monitor)
        lost = [text.partition(LOST[key])[2] for text in recorder.warnings if LOST[key] in text]
        assert lost == ["content, comments", "Comment"]
    written(volume, path, recorder)
    if "named" in cell:
        assert any(LOST[key] in text for text in recorder.warnings)
        return
    back = me.load(path)
    for name, value in ((name, value) for name, value in fields.items() if name != "voxels"):
        result = getattr(back, name)
        if name == "header_fields":  # a NIfTI file states more
            result = {field: result.get(field) for field in value}
        assert result[0].startswith(value[0]) if name == "history" else result == value
