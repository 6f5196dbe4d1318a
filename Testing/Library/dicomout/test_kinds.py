"""Derived objects of every kind of source: no error of the examiner, nothing untrue inherited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.conftest import Make, WarningRecorder
from Library.dicom.images import MR, enhanced_mr
from Library.dicom.reading import loaded
from Library.dicom.test_mosaic import make as make_mosaic
from Library.dicomout.conftest import MEANINGS, Sound
from Library.dicomout.test_series import PET
from Library.dicomout.writing import ENHANCED, derive
from pydicom import Dataset

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout import read_template
from MedEnhanceLib.io.dicomout.derivation import coded, with_elements
from MedEnhanceLib.io.dicomout.parametric_map import build_uncertainty
from MedEnhanceLib.io.dicomout.segments import build_segmentation

STORED = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)
FRAMES = [(0.0, 0.0, 2.5 * (k % 2)) for k in range(4)]
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
HEAD = {"BodyPartExamined": "HEAD"}


def mapping(**more: Any) -> dict[str, Any]:
    item = with_elements(
        LUTLabel="ADC", LUTExplanation="diffusion", RealWorldValueSlope=0.5,
        RealWorldValueIntercept=3.0, RealWorldValueFirstValueMapped=0,
        RealWorldValueLastValueMapped=65535,
        MeasurementUnitsCodeSequence=[coded("113041", "Apparent Diffusion Coefficient")],
    )  # fmt: skip
    for keyword in ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped"):
        item[keyword].VR = "US"
    return {"RealWorldValueMappingSequence": [item], **more}


def enhanced(folder: Path, **more: Any) -> Volume:
    folder.mkdir()
    return loaded(folder, enhanced_mr(STORED, [0.0, 2.0, 4.0, 6.0], **more))


def with_mapped_groups(folder: Path) -> Volume:
    folder.mkdir()
    dataset = enhanced_mr(STORED, [0.0, 2.0, 4.0, 6.0])
    dataset.SharedFunctionalGroupsSequence[0].update(with_elements(**mapping()))
    return loaded(folder, dataset)


def thinner(volume: Volume) -> Volume:
    """The volume with twice as many slices, as thin slices are restored."""
    assert volume.dicom_origin is not None
    return replace(
        volume,
        voxels=np.repeat(volume.voxels, 2, axis=-3),
        geometry=replace(volume.geometry, spacing=(*volume.geometry.spacing[:2], 1.25)),
        dicom_origin=replace(volume.dicom_origin, on_grid=False),
    )


#: Kinds of sources, from a folder and the writer of a series.
KINDS: dict[str, Callable[[Path, Make], Volume]] = {
    "CT": lambda _, make: io.load(make(STORED, **HEAD)),
    "CT, signed": lambda _, make: io.load(make(STORED.astype(np.int16) - 9, **HEAD)),
    "MR": lambda _, make: io.load(make(STORED, **MR)),
    "MR, rescaled": lambda _, make: io.load(make(STORED, **MR | {"RescaleSlope": 2.5})),
    "MR, distance below 0": lambda _, make: io.load(make(STORED, **MR, SpacingBetweenSlices=-2.5)),
    "MR, thickness below 0": lambda _, make: io.load(make(STORED, **MR | {"SliceThickness": -2})),
    "MR, window below 0": lambda _, make: io.load(
        make(STORED, **MR, WindowCenter=40, WindowWidth=-400)
    ),
    "MR, 4-D": lambda _, make: io.load(
        make(
            STORED, positions=FRAMES, **MR,
            slice_elements=lambda n: {"TemporalPositionIdentifier": n // 2 + 1},
        )
    ),
    "MR, real-world values": lambda _, make: io.load(make(STORED, **MR, **mapping())),
    "MR, real-world values and slope": lambda _, make: io.load(
        make(STORED, **MR | {"RescaleSlope": 2.5}, **mapping())
    ),
    "MR, thin slices": lambda _, make: thinner(io.load(make(STORED, **MR, **mapping()))),
    "PET": lambda _, make: io.load(make(STORED.astype(np.int16), **PET)),
    "enhanced MR": lambda folder, _: enhanced(folder),
    "enhanced CT": lambda folder, _: enhanced(folder, SOPClassUID=ENHANCED_CT, Modality="CT"),
    "enhanced MR, real-world values": lambda folder, _: with_mapped_groups(folder),
    "mosaic": lambda folder, _: io.load(make_mosaic(folder)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_passes_the_examiner_and_comes_back(
    sound: Sound, out: Path, make_series: Make, tmp_path: Path, kind: str
) -> None:
    volume = KINDS[kind](tmp_path / "source", make_series)
    images = sound(derive(volume))
    back = io.load(out)
    assert np.array_equal(back.voxels, volume.voxels)
    assert back.geometry.is_close(volume.geometry, 1e-5)
    for image in images:
        between = image.get("SpacingBetweenSlices", volume.geometry.spacing[2])
        assert float(between) == pytest.approx(volume.geometry.spacing[2])
        assert float(image.SliceThickness) > 0
        assert ("RealWorldValueMappingSequence" in image) == ("real" in kind or "thin" in kind)


@pytest.mark.parametrize("kind", ["CT", "MR, real-world values", "PET", "enhanced MR"])
def test_labels_and_uncertainty_of_every_kind_pass_the_examiner(
    sound: Sound, make_series: Make, tmp_path: Path, kind: str
) -> None:
    volume = KINDS[kind](tmp_path / "source", make_series)
    template = read_template(volume.dicom_origin)
    options: dict[str, Any] = {"template": template, "derivation": ENHANCED}
    spread = volume.with_voxels(np.full(volume.shape, 0.5, np.float32))
    labels = replace(volume, voxels=(volume.voxels > 50).astype(np.uint8), modality="SEG")
    objects = [
        build_uncertainty(spread, **options),
        build_segmentation(labels, MEANINGS, **options),
    ]
    assert [written.Modality for written in sound(objects)] == ["OT", "SEG"]


def test_enhanced_images_become_single_ones_in_their_terms(
    sound: Sound, tmp_path: Path, recorder: WarningRecorder
) -> None:
    """Elements that Siemens XA and Philips write, without those that they leave out."""
    source = enhanced_mr(STORED, [0.0, 2.0, 4.0, 6.0], BodyPartExamined="HEAD")
    (values,) = mapping()["RealWorldValueMappingSequence"]
    del values.LUTExplanation
    region = with_elements(CodeValue="12738006", CodingSchemeDesignator="SCT")
    pulse = with_elements(
        EchoPulseSequence="GRADIENT", InversionRecovery="YES", EchoPlanarPulseSequence="NO"
    )
    source.SharedFunctionalGroupsSequence[0].update(
        with_elements(
            MRFOVGeometrySequence=[with_elements(InPlanePhaseEncodingDirection="COLUMN")],
            MRVelocityEncodingSequence=[with_elements(VelocityEncodingDirection=[0.0, 0.0, 0.0])],
            MRModifierSequence=[with_elements(InversionTimes=[900.0, 1000.0])],
            FrameAnatomySequence=[with_elements(AnatomicRegionSequence=[region])],
            RealWorldValueMappingSequence=[values],
        )
    )
    source.update(pulse)
    source.update(
        with_elements(
            ScanningSequence=None, SlabOrientation=[0.0, -3.5, 2.2], MRAcquisitionType="MIXED",
            ReferencedImageSequence=[Dataset()], ReferencedStudySequence=[],
            ContributingEquipmentSequence=[with_elements(Manufacturer="ACME")],
        )
    )  # fmt: skip
    folder = tmp_path / "source"
    folder.mkdir()
    volume = loaded(folder, source)
    template = read_template(volume.dicom_origin, recorder.monitor)
    image = sound(derive(volume, template=template))[0]
    assert (image.InPlanePhaseEncodingDirection, float(image.InversionTime)) == ("COL", 900)
    assert list(image.ScanningSequence) == ["GR", "IR"]
    assert image.AnatomicRegionSequence[0].CodeMeaning == "12738006"
    assert image.RealWorldValueMappingSequence[0].LUTExplanation == "ADC"
    assert "ReferencedImageSequence" not in image
    assert sorted(text.split()[2] for text in recorder.warnings) == [
        "ContributingEquipmentSequence", "ReferencedImageSequence", "SlabOrientation",
        "VelocityEncodingDirection",
    ]  # fmt: skip
    options: dict[str, Any] = {"template": template, "derivation": ENHANCED}
    sound([build_uncertainty(volume.with_voxels(np.ones(STORED.shape, np.float32)), **options)],
          tmp_path / "map")  # fmt: skip


def test_exposure_of_enhanced_ct_is_whole(sound: Sound, tmp_path: Path) -> None:
    exposure = with_elements(ExposureInmAs=12.6, ExposureTimeInms=500.4, XRayTubeCurrentInmA=25.0)
    source = enhanced_mr(STORED, [0.0, 2.0, 4.0, 6.0], SOPClassUID=ENHANCED_CT, Modality="CT")
    source.SharedFunctionalGroupsSequence[0].CTExposureSequence = [exposure]
    (tmp_path / "source").mkdir()
    image = sound(derive(loaded(tmp_path / "source", source)))[0]
    assert (image.Exposure, image.ExposureTime, image.XRayTubeCurrent) == (13, 500, 25)


def real(image: Dataset) -> np.ndarray:
    """The quantities of an image."""
    (item,) = image.RealWorldValueMappingSequence
    return image.pixel_array * item.RealWorldValueSlope + item.RealWorldValueIntercept


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "real" in kind])
def test_real_world_values_stay_those_of_the_source(
    sound: Sound, make_series: Make, tmp_path: Path, kind: str
) -> None:
    images = sound(derive(KINDS[kind](tmp_path / "source", make_series)))
    for image, stored in zip(images, STORED, strict=True):
        assert np.array_equal(real(image), stored * 0.5 + 3)
        (item,) = image.RealWorldValueMappingSequence
        last = 32767 if image.PixelRepresentation else 65535
        assert item.RealWorldValueLastValueMapped == last


def test_real_world_values_that_no_longer_hold_are_left_out_and_named(
    sound: Sound, make_series: Make, recorder: WarningRecorder
) -> None:
    volume = io.load(make_series(STORED, **MR, **mapping()))
    half = volume.with_voxels(volume.voxels * np.float32(0.37))
    for image in sound(derive(half, monitor=recorder.monitor)):
        assert "RealWorldValueMappingSequence" not in image
    assert [text for text in recorder.warnings if "real-world values" in text]


def test_what_holds_for_another_grid_alone_is_not_inherited(make_series: Make) -> None:
    of_grid = {
        "ReconstructionDiameter": 250, "PatientOrientation": ["L", "P"],
        "ReconstructionFieldOfView": [250.0, 250.0],
    }  # fmt: skip
    folder = make_series(STORED, **HEAD, **of_grid, ImagesInAcquisition=4, SpacingBetweenSlices=9)
    volume = io.load(folder)
    same, (thin, *_) = derive(volume), derive(thinner(volume))
    cut, *_ = derive(replace(volume.crop(i=slice(1, 5)), dicom_origin=volume.dicom_origin))
    assert [keyword for keyword in of_grid if keyword not in same[0]] == []
    assert [keyword for keyword in of_grid if keyword in cut] == []
    assert "ImagesInAcquisition" not in same[0]
    assert (float(same[0].SpacingBetweenSlices), float(thin.SpacingBetweenSlices)) == (2.5, 1.25)
