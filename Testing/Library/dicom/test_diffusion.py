"""Diffusion scans: the order of their frames, and the b-value and direction of each.

Directions of private elements are turned into the patient. The scan is oblique, and its numbers
are chosen by hand: a direction along a row of the image is (0.8, 0.6, 0) in the patient.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.conftest import Make, WarningRecorder
from Library.dicom.images import MR
from Library.dicom.reading import edited, refused
from Library.dicom.test_csa import csa

from MedEnhanceLib import Volume, list_series
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.errors import GeometryError, InputError, OutputError
from MedEnhanceLib.io import load
from MedEnhanceLib.jobs import JobSpec, run_job

ROW, COLUMN = (0.8, 0.6, 0.0), (-0.6, 0.8, 0.0)
#: Along row, column and normal of the image; None for b = 0. Their texts sort otherwise.
SCAN: list[tuple[float, ...] | None] = [None, (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (-0.6, 0.8, 0.0)]
IN_PATIENT = [(0, 0, 0), (0, 0, 1), ROW, (-0.96, 0.28, 0.0)]
Elements = Callable[[int], dict[str, Any]]


def patient(t: int) -> tuple[float, ...]:
    return tuple(map(float, IN_PATIENT[t]))


def public(t: int) -> dict[str, Any]:
    along = {"DiffusionGradientOrientation": list(patient(t))} if SCAN[t] else {}
    return {"DiffusionBValue": 1000.0 if SCAN[t] else 0.0, **along}


@pytest.fixture
def scan(make_series: Make) -> Callable[..., Path]:
    """Frame t, place k holds 10 t + k; files are named against the order of the scan."""

    def write(elements: Elements, number: Callable[[int, int], int | None], **more: Any) -> Path:
        return make_series(
            np.array([np.full((3, 5), 10 * t + k) for t in range(4) for k in range(2)], np.uint16),
            positions=[(1.0, 2.0, 3.0 * k) for _ in range(4) for k in range(2)],
            orientation=(*ROW, *COLUMN),
            slice_elements=lambda index: {
                "InstanceNumber": number(index // 2, index % 2),
                **elements(index // 2),
            },
            **MR | {"PatientPosition": "HFS", "InPlanePhaseEncodingDirection": "COL"} | more,
        )

    return write


def by_frame(t: int, k: int) -> int:
    return 2 * t + k + 1


@pytest.mark.parametrize(
    ("order", "number"),
    [
        (lambda t: {"TemporalPositionIdentifier": t + 1}, lambda t, k: 99 - 2 * t - k),
        (lambda t: {"AcquisitionDate": "20200101", "AcquisitionTime": f"1200{t:02d}"}, None),
        (lambda t: {}, by_frame),
        (lambda t: {}, lambda t, k: 4 * k + t + 1),
    ],
)
def test_frames_keep_the_order_of_the_scan(
    scan: Callable[..., Path], order: Elements, number: Callable[[int, int], int] | None
) -> None:
    volume = load(scan(lambda t: {**public(t), **order(t)}, number or (lambda t, k: None)))
    assert volume.voxels[:, 0, 0, 0].tolist() == [0, 10, 20, 30]
    assert [gradient.b_value for gradient in volume.gradients] == [0, 1000, 1000, 1000]
    directions = [gradient.direction for gradient in volume.gradients]
    assert np.allclose(directions, IN_PATIENT)
    assert volume.frame(2).gradients == volume.gradients[2:3]


def test_an_order_that_nothing_states_is_refused(scan: Callable[..., Path]) -> None:
    says = "the order of its diffusion frames is unknown"
    refused(scan(public, lambda t, k: None), says, GeometryError)


def private(maker: str, t: int) -> list[tuple[int, str, str, Any]]:
    """Element, creator, VR and value, as the maker writes a frame."""
    along, image = patient(t), list(SCAN[t] or (0.0, 0.0, 0.0))
    if maker == "siemens":
        rows = [(0x0019100C, "SIEMENS MR HEADER", "IS", 1000 if SCAN[t] else 0)]
        more = [(0x0019100E, "SIEMENS MR HEADER", "FD", list(along))]
        return rows + (more if SCAN[t] else [])
    if maker == "siemens csa":
        stated = {"B_value": ("1000" if SCAN[t] else "0",)}
        stated["DiffusionGradientDirection"] = tuple(map(str, along)) if SCAN[t] else ()
        return [(0x00291010, "SIEMENS CSA HEADER", "OB", csa(stated))]
    if maker == "philips":
        return [
            (0x20011003, "Philips Imaging DD 001", "FL", 1000.0 if SCAN[t] else 0.0),
            *((0x200510B0 + n, "Philips MR Imaging DD 001", "FL", along[n]) for n in range(3)),
        ]
    if maker == "uih":
        return [
            (0x00651009, "Image Private Header", "FD", 1000.0 if SCAN[t] else 0.0),
            (0x00651037, "Image Private Header", "FD", image),
        ]
    axes = [-image[0], -image[1], image[2]]  # of GE's gradients
    return [
        (0x00431039, "GEMS_PARM_01", "IS", [1000001000 if SCAN[t] else 0, 8, 0, 0]),
        *((0x001910BB + n, "GEMS_ACQU_01", "DS", f"{axes[n]:.6f}") for n in range(3)),
    ]


def add_private(folder: Path, maker: str, creator: str = "") -> None:
    for dataset in edited(folder):
        for tag, named, vr, value in private(maker, (dataset.InstanceNumber - 1) // 2):
            block = dataset.private_block(tag >> 16, creator or named, create=True)
            block.add_new(tag & 0xFF, vr, value)


@pytest.mark.parametrize("maker", ["siemens", "siemens csa", "philips", "uih", "ge"])
def test_private_elements_state_b_value_and_direction_of_each_maker(
    scan: Callable[..., Path], maker: str
) -> None:
    folder = scan(lambda t: {}, by_frame)
    add_private(folder, maker)
    gradients = load(folder).gradients
    assert [gradient.b_value for gradient in gradients] == [0, 1000, 1000, 1000]
    assert np.allclose([gradient.direction for gradient in gradients], IN_PATIENT, atol=1e-6)


@pytest.mark.parametrize("maker", ["siemens", "siemens csa"])
def test_elements_of_siemens_that_lost_their_creator_are_read(
    scan: Callable[..., Path], maker: str
) -> None:
    folder = scan(lambda t: {}, by_frame, Manufacturer="Siemens Healthineers")
    add_private(folder, maker)
    for dataset in edited(folder):
        del dataset[0x00190010 if maker == "siemens" else 0x00290010]
    assert [gradient.b_value for gradient in load(folder).gradients] == [0, 1000, 1000, 1000]
    for dataset in edited(folder):
        dataset.Manufacturer = "SOMEBODY ELSE"
    refused(folder, "share a place", GeometryError)


def test_the_collapse_flag_does_not_divide_a_diffusion_scan_of_ge(
    scan: Callable[..., Path],
) -> None:
    epi = {"ScanningSequence": ["EP", "SE"], "MRAcquisitionType": "2D", "RepetitionTime": 7500}
    folder = scan(lambda t: {}, by_frame, **epi)
    add_private(folder, "ge")
    for dataset in edited(folder):
        block = dataset.private_block(0x0043, "GEMS_PARM_01")
        block.add_new(0x30, "SS", 16 if dataset.InstanceNumber > 2 else 14)
    (row,) = list_series(folder)
    volume = load(folder)
    assert (row.part, volume.shape, volume.frame_interval_s) == ("", (4, 2, 3, 5), 7.5)
    assert [gradient.b_value for gradient in volume.gradients] == [0, 1000, 1000, 1000]


def test_private_elements_of_another_creator_are_none(scan: Callable[..., Path]) -> None:
    folder = scan(lambda t: {"TemporalPositionIdentifier": t + 1}, by_frame)
    add_private(folder, "uih", "SOMEBODY ELSE")
    assert load(folder).gradients == ()


def test_directions_in_an_unknown_frame_are_zero_and_said(
    scan: Callable[..., Path], recorder: WarningRecorder
) -> None:
    folder = scan(lambda t: {"TemporalPositionIdentifier": t + 1}, by_frame, PatientPosition="FFS")
    add_private(folder, "ge")
    volume = load(folder, monitor=recorder.monitor)
    assert {gradient.direction for gradient in volume.gradients} == {(0.0, 0.0, 0.0)}
    says = "3 of 3 diffusion-weighted frames state no direction"
    assert any(says in warning for warning in recorder.warnings)


def convert(folder: Path, output: Path, **more: Any) -> dict[str, Any]:
    params = {"input": str(folder), "output": str(output), **more}
    return dict(run_job(JobSpec("convert", params)).fields)


def test_convert_writes_the_tables_of_fsl_and_names_them(
    scan: Callable[..., Path], tmp_path: Path
) -> None:
    folder, output = scan(public, by_frame), tmp_path / "dwi.nii.gz"
    result = convert(folder, output)
    assert (tmp_path / "dwi.bval").read_text() == "0 1000 1000 1000\n"
    # The affine's determinant is positive, so the first axis is mirrored.
    assert (tmp_path / "dwi.bvec").read_text() == "0 0 -1 0.6\n0 0 0 0.8\n0 1 0 0\n"
    assert result["outputs"]["bval"] == str(tmp_path / "dwi.bval")
    manifest = json.loads((tmp_path / "dwi.nii.gz.json").read_text())["results"]
    assert manifest["gradients"][1] == {"b_value": 1000, "direction": [0, 0, 1]}
    assert "SHA-256" in manifest["gradient_tables"]["bvec"]
    for name in ("dwi.nii.gz", "dwi.nii.gz.json", "dwi.bval"):
        (tmp_path / name).unlink()
    with pytest.raises(OutputError, match=r"dwi\.bvec exists already"):
        convert(folder, output)
    assert not output.exists()
    convert(folder, output, overwrite=True)
    assert output.exists()


def test_the_card_counts_the_frames_of_each_b_value_and_json_has_their_directions(
    scan: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from MedEnhanceLib.cli.main import main

    folder = str(scan(public, by_frame))
    assert main(["inspect", folder]) == 0
    shown = capsys.readouterr().out
    assert "b = 0 s/mm²: 1 frame\n" in shown
    assert "b = 1000 s/mm²: 3 frames, 3 directions" in shown
    assert main(["inspect", folder, "--json"]) == 0
    third = json.loads(capsys.readouterr().out)["card"]["gradients"][2]
    assert third["b_value"] == 1000 and third["direction"] == pytest.approx([0.8, 0.6, 0])


def test_a_volume_has_a_gradient_for_each_frame_or_none() -> None:
    voxels = np.zeros((2, 3, 4, 5), np.float32)
    with pytest.raises(InputError, match="1 diffusion gradients for 2 frames"):
        Volume(voxels, gradients=(Gradient(0.0),))
