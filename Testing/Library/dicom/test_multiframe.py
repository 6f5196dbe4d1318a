"""Frames in one file are the planes that they say they are, in 3D and in 4D; clips are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from Library.dicom.images import enhanced_mr, mr
from Library.dicom.reading import loaded

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import read_template
from MedEnhanceLib.io.dicomout.derivation import with_elements

FRAMES = np.arange(6 * 5 * 7, dtype=np.uint16).reshape(6, 5, 7)
_CLASS = "1.2.840.10008.5.1.4.1.1."


#: Of frames that `enhanced_mr` gives an intercept each.
RESCALED = FRAMES.astype(int) + np.arange(6)[:, None, None]


def test_frames_are_ordered_by_place_and_rescaled_each_by_its_own_group(tmp_path: Path) -> None:
    places = [4.0, 0.0, 2.0, 6.0, 10.0, 8.0]
    volume = loaded(tmp_path, enhanced_mr(FRAMES, places))
    order = np.argsort(places)
    assert np.array_equal(volume.voxels, RESCALED[order])
    assert volume.modality == "MR"
    assert volume.geometry == Geometry((0.75, 0.5, 2.0), (-3.0, 4.0, 0.0))
    assert volume.dicom_origin is not None
    assert [one.frame for one in volume.dicom_origin.instances[0]] == (order + 1).tolist()


@pytest.mark.parametrize(
    ("group_name", "field", "values"),
    [
        ("FrameContentSequence", "TemporalPositionIndex", (1, 2)),
        ("MREchoSequence", "EffectiveEchoTime", (10.0, 80.0)),
        ("MRDiffusionSequence", "DiffusionBValue", (0.0, 1000.0)),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", (0.0, 350.0)),
    ],
)
def test_frames_at_the_same_places_become_a_sequence(
    group_name: str, field: str, values: tuple[float, float], tmp_path: Path
) -> None:
    """Stored slice by slice, both values of one place beside each other."""
    dataset = enhanced_mr(FRAMES, [0.0, 0.0, 2.0, 2.0, 4.0, 4.0])
    for index, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        if group_name not in groups:
            setattr(groups, group_name, [with_elements()])
        setattr(getattr(groups, group_name)[0], field, values[index % 2])
    assert np.array_equal(loaded(tmp_path, dataset).voxels, [RESCALED[0::2], RESCALED[1::2]])


def test_directions_of_diffusion_are_separated_by_their_gradient(
    tmp_path: Path,
) -> None:
    """Two shells; they keep the order of the scan, which begins with the second one."""
    gradients = [(2000, [0, 1, 0]), (1000, [1, 0, 0]), (0, None)]
    dataset = enhanced_mr(FRAMES, [0.0, 2.0] * 3)
    for index, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        weight, direction = gradients[index // 2]
        groups.MRDiffusionSequence = [with_elements(DiffusionBValue=float(weight))]
        if direction:
            groups.MRDiffusionSequence[0].DiffusionGradientDirectionSequence = [
                with_elements(DiffusionGradientOrientation=direction)
            ]
    volume = loaded(tmp_path, dataset)
    assert np.array_equal(volume.voxels, RESCALED.reshape(3, 2, 5, 7))
    assert [str(gradient) for gradient in volume.gradients] == [
        "b = 2000 s/mm² along (0.0000, 1.0000, 0.0000)",
        "b = 1000 s/mm² along (1.0000, 0.0000, 0.0000)",
        "b = 0 s/mm²",
    ]


def test_private_sequences_override_no_public_element(tmp_path: Path) -> None:
    dataset = enhanced_mr(FRAMES, [2.0 * k for k in range(6)])
    truth = loaded(tmp_path, dataset)
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        block = groups.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        other = with_elements(ImagePositionPatient=[9, 9, 9], RescaleSlope=3, PixelSpacing=[7, 7])
        block.add_new(0x0F, "SQ", [other])
    volume = loaded(tmp_path, dataset)
    assert volume.is_equal(truth)
    assert volume.dicom_origin
    derived = read_template(volume.dicom_origin).headers
    assert [list(header.ImagePositionPatient) for header in derived][:2] == [[-3, 4, 0], [-3, 4, 2]]


def test_more_frames_than_pixels_are_refused(tmp_path: Path) -> None:
    dataset = enhanced_mr(FRAMES[:2], [0.0, 2.0])
    dataset.PixelData = dataset.PixelData[:-2]
    with pytest.raises(InputError, match="7×5 × 2 frames"):
        loaded(tmp_path, dataset)


@pytest.mark.parametrize("count", [-1, 1, 3])
def test_frames_are_as_many_as_the_header_says(count: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"NumberOfFrames is {count}"):
        loaded(tmp_path, enhanced_mr(FRAMES[:2], [0.0, 2.0], NumberOfFrames=count))


def test_maps_are_separated_by_the_elements_that_dicom_has_for_it(tmp_path: Path) -> None:
    """FrameType is alike in both, as the standard prescribes."""
    dataset = enhanced_mr(FRAMES, [0.0, 2.0, 4.0] * 2)
    for index, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        groups.MRImageFrameTypeSequence = [
            with_elements(
                FrameType=["ORIGINAL", "PRIMARY", "OTHER", "NONE"],
                ComplexImageComponent="MAGNITUDE" if index < 3 else "PHASE",
                AcquisitionContrast="FLOW_ENCODED",
            )
        ]
    with pytest.raises(InputError, match=r"holds 2 .*\n.*/MAGNITUDE\n.*/PHASE"):
        loaded(tmp_path, dataset)
    assert np.array_equal(loaded(tmp_path, dataset, series="2").voxels, RESCALED[3:])


@pytest.mark.parametrize(
    ("sop_class", "name"), [("20", "Nuclear Medicine"), ("12.1", "X-Ray Angiographic")]
)
def test_clips_are_refused_with_what_they_are(sop_class: str, name: str, tmp_path: Path) -> None:
    dataset = mr(FRAMES[0], NumberOfFrames=6, SOPClassUID=_CLASS + sop_class)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.PixelData = FRAMES.tobytes()
    says = f"{name} Image Storage: 6 frames in one file, and none states"
    with pytest.raises(InputError, match=says) as caught:
        loaded(tmp_path, dataset)
    assert caught.value.hint


def test_frames_that_are_spread_over_files_are_refused(tmp_path: Path) -> None:
    part = {"ConcatenationUID": "1.2.9", "InConcatenationTotalNumber": 2}
    with pytest.raises(InputError, match="concatenation") as caught:
        loaded(tmp_path, enhanced_mr(FRAMES, [0, 2, 4, 6, 8, 10], **part))
    assert caught.value.hint
