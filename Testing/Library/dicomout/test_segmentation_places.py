"""Where the frames of a segmentation lie, and which images each of them names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.dicomout.conftest import MEANINGS, Examine, Study, study_of
from Library.dicomout.writing import write_segmentation
from pydicom import Dataset

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin, Instance
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout import Derivation, build_series, new_study, read_template
from MedEnhanceLib.io.dicomout.segments import build_segmentation

Decode = Callable[..., np.ndarray]
Options = dict[str, Any]


def source_of(frame: Dataset) -> Dataset:
    """The one image that a frame names."""
    (source,) = frame.DerivationImageSequence[0].SourceImageSequence
    return source


def test_frames_lie_where_the_images_lie_digit_by_digit_and_name_them(
    study: Study, built: Dataset
) -> None:
    headers = study.template.headers
    frames = built.PerFrameFunctionalGroupsSequence
    by_position = {str(header.ImagePositionPatient): header.SOPInstanceUID for header in headers}
    places = [str(frame.PlanePositionSequence[0].ImagePositionPatient) for frame in frames]
    assert set(places) == {str(header.ImagePositionPatient) for header in headers[1:5]}
    for frame, place in zip(frames, places, strict=True):
        assert source_of(frame).ReferencedSOPInstanceUID == by_position[place]
        assert "ReferencedFrameNumber" not in source_of(frame)
    shared = built.SharedFunctionalGroupsSequence[0]
    cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert str(cosines) == str(headers[1].ImageOrientationPatient)
    measures = shared.PixelMeasuresSequence[0]
    assert str(measures.PixelSpacing) == str(headers[1].PixelSpacing)
    assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (2.5, 2.5)
    assert built.FrameOfReferenceUID == "1.2.3.4.5"
    (series,) = built.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.1"
    named = {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}
    assert named == set(by_position.values())


def test_resampled_labels_lie_where_they_are_and_name_the_series_alone(
    decoded: Decode, tmp_path: Path, examine: Examine, labels: Volume, options: Options
) -> None:
    finer = Geometry((0.5, 0.8, 1.9), (1.0, 2.0, 3.3), labels.geometry.direction)
    moved = replace(labels, geometry=finer, origin=replace(labels.origin, on_grid=False))
    path = write_segmentation(moved, MEANINGS, tmp_path / "out", **options)
    dataset = pydicom.dcmread(path)
    assert np.count_nonzero(decoded(dataset, moved)) == np.count_nonzero(labels.voxels)
    assert all("DerivationImageSequence" not in f for f in dataset.PerFrameFunctionalGroupsSequence)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    assert list(measures.PixelSpacing) == [0.8, 0.5]  # between rows, then between columns
    assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (1.9, 1.9)
    cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert list(cosines) == [1, 0, 0, 0, 0.8, 0.6]
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6
    assert examine(path) == []


def test_images_that_cover_a_part_are_named_where_they_lie(
    decoded: Decode, study: Study, labels: Volume, options: Options
) -> None:
    some = study.template.headers[:3]
    plain = replace(labels, origin=None)
    dataset = build_segmentation(plain, MEANINGS, source_images=some, **options)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        k = round((float(place[2]) + 7.3) / 2)
        assert len(frame.DerivationImageSequence) == (k < 3)
    assert np.count_nonzero(decoded(dataset, labels)) == np.count_nonzero(labels.voxels)


def test_frames_of_a_multi_frame_image_are_named_by_their_number(
    tmp_path: Path, examine: Examine, derivation: Derivation
) -> None:
    file = pydicom.data.get_testdata_file("eCT_Supplemental.dcm", download=False)
    if file is None:
        pytest.skip("pydicom's further files (package pydicom-data) are not here")
    source = pydicom.dcmread(file, stop_before_pixels=True)
    uids = (str(source.SOPClassUID), str(source.SOPInstanceUID))
    origin = DicomOrigin(
        str(source.StudyInstanceUID),
        str(source.SeriesInstanceUID),
        (tuple(Instance(file, *uids, number) for number in (1, 2)),),
    )
    template = read_template(origin)
    first, second = (np.array(header.ImagePositionPatient, float) for header in template.headers)
    cosines = np.reshape(np.array(template.headers[0].ImageOrientationPatient, float), (2, 3))
    between = float(np.linalg.norm(second - first))
    down, across = map(float, template.headers[0].PixelSpacing)
    geometry = Geometry(
        (across, down, between),
        tuple(first.tolist()),
        tuple(map(tuple, np.stack([*cosines, (second - first) / between], axis=1).tolist())),
    )
    voxels = np.zeros((2, source.Rows, source.Columns), np.uint8)
    voxels[1, 5:9, 5:9] = 1
    labels = Volume(voxels, geometry, "SEG", origin=origin)
    path = write_segmentation(
        labels, [], tmp_path / "out", template=template, derivation=derivation
    )
    dataset = pydicom.dcmread(path)
    (frame,) = dataset.PerFrameFunctionalGroupsSequence
    image = source_of(frame)
    assert (image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber) == (uids[1], 2)
    (series,) = dataset.ReferencedSeriesSequence
    (whole,) = series.ReferencedInstanceSequence
    assert "ReferencedFrameNumber" not in whole
    assert examine(path) == []


def test_labels_that_never_were_dicom_stand_alone(
    decoded: Decode, tmp_path: Path, examine: Examine, labels: Volume, derivation: Derivation
) -> None:
    plain = replace(labels, origin=None)
    template = new_study(modality="CT", patient_id="phantom")
    path = write_segmentation(
        plain, MEANINGS, tmp_path / "out", template=template, derivation=derivation
    )
    alone = pydicom.dcmread(path)
    assert "ReferencedSeriesSequence" not in alone
    assert alone.FrameOfReferenceUID == template.frame_of_reference
    assert alone.PatientID == "phantom"
    assert examine(path) == []
    assert np.count_nonzero(decoded(alone, labels)) == np.count_nonzero(labels.voxels)


def test_labels_refer_to_the_derived_images_they_were_found_in(
    decoded: Decode,
    tmp_path: Path,
    examine: Examine,
    study: Study,
    labels: Volume,
    options: Options,
) -> None:
    images = build_series(study.volume, **options)
    path = write_segmentation(labels, MEANINGS, tmp_path / "out", source_images=images, **options)
    dataset = pydicom.dcmread(path)
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert len(series.ReferencedInstanceSequence) == len(images)
    places = {image.SOPInstanceUID: image.ImagePositionPatient for image in images}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert place == places[source_of(frame).ReferencedSOPInstanceUID]
    assert np.count_nonzero(decoded(dataset, labels)) == np.count_nonzero(labels.voxels)
    assert examine(path) == []


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_series_is_segmented_to_the_standard(
    decoded: Decode, tmp_path: Path, examine: Examine, shared_data: Path, derivation: Derivation
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    files = sorted(
        (shared_data / "dicom" / "STS_025" / "MR_T1_series").iterdir(),
        key=lambda file: -float(pydicom.dcmread(file).ImagePositionPatient[2]),
    )
    for number, file in enumerate(files):
        (folder / f"{number:03d}.dcm").write_bytes(file.read_bytes())
    study = study_of(folder, between=3.26996)
    voxels = np.zeros(study.volume.shape, np.uint8)
    voxels[4:20, 10:30, 20:50] = 1
    labels = replace(study.volume, voxels=voxels, modality="SEG")
    path = write_segmentation(
        labels, [], tmp_path / "out", template=study.template, derivation=derivation
    )
    dataset = pydicom.dcmread(path)
    assert examine(path) == []
    assert np.array_equal(decoded(dataset, labels, tolerance=1e-4), voxels)
    frames = dataset.PerFrameFunctionalGroupsSequence
    assert all(len(frame.DerivationImageSequence) == 1 for frame in frames)


def test_what_was_resampled_lies_by_its_own_numbers_even_close_to_the_images(
    labels: Volume, options: Options
) -> None:
    shifted = np.add(labels.geometry.origin, (0.01, 0.0, 0.0))
    geometry = replace(labels.geometry, origin=tuple(shifted))
    moved = replace(labels, geometry=geometry, origin=replace(labels.origin, on_grid=False))
    dataset = build_segmentation(moved, MEANINGS, **options)
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        assert float(frame.PlanePositionSequence[0].ImagePositionPatient[0]) == 0.11
