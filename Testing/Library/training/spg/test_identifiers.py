"""What DICOM says of a patient is in no byte of a result, nor of what lies there meanwhile."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from Library.conftest import write_series
from Library.dicom.images import MR

from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.training.spg.cohort import Cohort
from MedEnhanceLib.training.spg.folder import RunFolder

from .conftest import SMOKE, distill, phantom

NAMES = ("Miller^Ada", "Garcia^Benito", "Nakamura^Chie", "Okonkwo^Dayo")
#: With all digits that a float32 has: no chance finds them in weights or pixels.
SPACING, PLACE = (2.8371094, 3.1739258), (-137.63913, 211.94727, 48.271973)


def texts(number: int) -> dict[str, str]:
    """What names a patient, by DICOM's keyword."""
    return {
        "PatientName": NAMES[number],
        "PatientID": f"MRN-77{number}4136",
        "PatientBirthDate": f"1961031{number}",
        "PatientAddress": f"{number + 4} Willow Lane, Springfield",
        "StudyInstanceUID": f"1.2.826.0.1.3680043.8.498.4711{number}",
        "SeriesInstanceUID": f"1.2.826.0.1.3680043.8.498.4712{number}",
        "FrameOfReferenceUID": f"1.2.826.0.1.3680043.8.498.4713{number}",
        "StudyDate": f"2019041{number}",
        "StudyDescription": f"MRI thigh sarcoma follow-up {number}",
        "SeriesDescription": f"t1 tse tra {number}",
        "AccessionNumber": f"ACC90021{number}",
        "InstitutionName": "St. Elsewhere Hospital",
        "ReferringPhysicianName": "Quincy^Jack",
        "DeviceSerialNumber": "SN-556677",
        "PatientComments": "fell from a horse",
    }


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people as an archive exports them, a folder for each."""
    folder = tmp_path_factory.mktemp("exported-20190412") / "archive"
    for number in range(len(NAMES)):
        said = texts(number)
        voxels = phantom(number).voxels.astype(np.uint16)
        write_series(
            folder / NAMES[number],
            voxels,
            uid=said.pop("SeriesInstanceUID"),
            number=number,
            prefix=f"scan{number}-",
            positions=[(PLACE[0], PLACE[1], PLACE[2] + 5.0 * k) for k in range(len(voxels))],
            PixelSpacing=[*SPACING],
            **MR,
            **said,
        )
    return folder


def words(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Everything that must not be found, as bytes: text in three encodings, numbers in four."""
    said = {word for number in range(len(NAMES)) for word in texts(number).values()}
    said |= {part for name in (*NAMES, "Quincy^Jack") for part in name.split("^")}
    said |= {f"{day}{n}" for n in range(4) for day in ("1961-03-1", "2019-04-1")}
    said |= {"1.2.826.0.1.3680043", "exported-2019", "scan0", "scan3", ".dcm", str(archive)}
    said |= {hashlib.sha256(texts(n)["PatientID"].encode()).hexdigest() for n in range(4)}
    numbers = [*SPACING, *PLACE, *(-value for value in PLACE[:2])]
    said |= {f"{value:.5g}" for value in (*SPACING, *PLACE)}
    for word in sorted(said):
        for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
            yield word, word.encode(encoding)
    # One number of 32 bits is among millions of weights by chance, two in a row are not.
    for pair in pairwise(numbers):
        for form in ("<2f", ">2f", "<2d", ">2d"):
            yield f"{pair} as {form}", struct.pack(form, *pair)


class Stop(BaseException):
    """As a kill: nothing below catches it."""


@pytest.mark.slow
def test_no_byte_says_what_dicom_said(archive: Path, tmp_path: Path) -> None:
    loop = replace(SMOKE.loop, inner=2)
    config = replace(SMOKE, held_out=0.5, checkpoint_s=0.0, loop=loop)
    out = tmp_path / "out"
    seen: dict[bytes, str] = {}

    def look() -> None:
        for path in out.rglob("*"):
            if path.is_file():
                name, data = path.relative_to(out).as_posix(), path.read_bytes()
                seen[data] = name

    def listen(event: Event) -> None:
        if event.kind == "progress":
            look()
            if RunFolder(out).patient(1).exists() and len(seen) > 8:
                raise Stop

    with pytest.raises(Stop):
        distill(Cohort.open(archive), out, config, Monitor(listen))
    distill(Cohort.open(archive), out, config)
    look()
    of_all_kinds = {
        "manifest.json",
        "README.md",
        "audit/audit.json",
        "images/0003.png",
        "volumes/0003.nii.gz",
        "PRIVACY.md",
    }
    work = ("run.json", "patient-000/checkpoint.safetensors", "patient-000.safetensors")
    assert of_all_kinds | {f"work/{name}" for name in work} <= set(seen.values())
    forbidden = list(words(archive))
    for data, name in seen.items():
        for word, pattern in forbidden:
            assert pattern not in data, (name, word)
            assert word not in name


def test_the_search_would_find_them(archive: Path) -> None:
    """In the archive it does; a search that finds nothing anywhere is none."""
    data = b"".join(path.read_bytes() for path in archive.glob("*/*"))
    found = {word for word, pattern in words(archive) if pattern in data}
    for number in range(len(NAMES)):
        assert found >= set(texts(number).values())
