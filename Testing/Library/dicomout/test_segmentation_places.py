"""Where the frames of a segmentation lie, and which images each of them names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from Library.dicomout.writing import write_segmentation
from pydicom import Dataset

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin, Instance
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout import Derivation, new_study, read_template
from MedEnhanceLib.io.dicomout.derived_series import build_series
from MedEnhanceLib.io.dicomout.segments import build_segmentation
from MedEnhanceLib.runtime.progress import Monitor

Decode = Callable[..., np.ndarray]
Examine = Callable[[Path], list[str]]
Meanings = list[dict[str, Any]]


def test_frames_lie_where_the_images_lie_digit_by_digit(study: Any, built: Dataset) -> None:
    header = study.template.headers[1]
    shared, first = built.SharedFunctionalGroupsSequence[0], built.PerFrameFunctionalGroupsSequence
    positions = {str(f.PlanePositionSequence[0].ImagePositionPatient) for f in first}
    assert positions == {str(study.template.headers[k].ImagePositionPatient) for k in range(1, 5)}
    cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert str(cosines) == str(header.ImageOrientationPatient)
    measures = shared.PixelMeasuresSequence[0]
    assert str(measures.PixelSpacing) == str(header.PixelSpacing)
    assert measures.SpacingBetweenSlices == 2.5
    assert measures.SliceThickness == 2.5
    assert built.FrameOfReferenceUID == "1.2.3.4.5"


def test_each_frame_names_the_image_it_was_drawn_on(study: Any, built: Dataset) -> None:
    by_position = {
        str(header.ImagePositionPatient): header.SOPInstanceUID for header in study.template.headers
    }
    for frame in built.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        place = str(frame.PlanePositionSequence[0].ImagePositionPatient)
        assert source.ReferencedSOPInstanceUID == by_position[place]
        assert "ReferencedFrameNumber" not in source
    (series,) = built.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.1"
    named = {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}
    assert named == set(by_position.values())


def test_resampled_labels_lie_where_they_are_and_name_the_series_alone(
    decoded: Decode,
    tmp_path: Path,
    examine: Examine,
    study: Any,
    labels: Volume,
    meanings: Meanings,
    derivation: Derivation,
) -> None:
    finer = Geometry((0.5, 0.8, 1.9), (1.0, 2.0, 3.3), labels.geometry.direction)
    origin = replace(labels.origin, on_grid=False)
    moved = replace(labels, geometry=finer, origin=origin)
    path = write_segmentation(
        moved,
        meanings,
        tmp_path / "out",
        template=study.template,
        derivation=derivation,
        monitor=Monitor(),
    )
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
    assert [line for line in examine(path) if "PatientSex" not in line] == []


def test_what_was_resampled_lies_by_its_own_numbers_even_close_to_the_images(
    study: Any, labels: Volume, meanings: Meanings, derivation: Derivation
) -> None:
    origin = replace(labels.origin, on_grid=False)
    shifted = np.add(labels.geometry.origin, (0.01, 0.0, 0.0))
    moved = replace(labels, geometry=replace(labels.geometry, origin=tuple(shifted)), origin=origin)
    dataset = build_segmentation(
        moved, meanings, template=study.template, derivation=derivation, monitor=Monitor()
    )
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        assert float(frame.PlanePositionSequence[0].ImagePositionPatient[0]) == 0.11


def test_images_that_cover_a_part_are_named_where_they_lie(
    decoded: Decode, study: Any, labels: Volume, meanings: Meanings, derivation: Derivation
) -> None:
    dataset = build_segmentation(
        replace(labels, origin=None),
        meanings,
        template=study.template,
        derivation=derivation,
        source_images=study.template.headers[:3],
        monitor=Monitor(),
    )
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        k = round((float(place[2]) + 7.3) / 2)
        assert len(frame.DerivationImageSequence) == (k < 3)
    assert np.count_nonzero(decoded(dataset, labels)) == np.count_nonzero(labels.voxels)


def test_a_time_point_refers_to_its_own_images(
    make_series: Callable[..., Path],
    read_study: Callable[..., Any],
    meanings: Meanings,
    derivation: Derivation,
) -> None:
    places = [(0.0, 0.0, 2.5 * k) for k in range(3)]
    study = read_study(make_series(np.zeros((6, 5, 4), np.int16), positions=places * 2), times=2)
    second = study.volume.frame(1)
    voxels = np.zeros(second.shape, np.uint8)
    voxels[1] = 1
    dataset = build_segmentation(
        replace(second, voxels=voxels),
        meanings,
        template=study.template,
        derivation=derivation,
        monitor=Monitor(),
    )
    (frame,) = dataset.PerFrameFunctionalGroupsSequence
    (source,) = frame.DerivationImageSequence[0].SourceImageSequence
    assert source.ReferencedSOPInstanceUID == "1.2.3.1.5"
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 3


def test_frames_of_a_multi_frame_image_are_named_by_their_number(
    tmp_path: Path, examine: Examine, meanings: Meanings, derivation: Derivation
) -> None:
    file = pydicom.data.get_testdata_file("eCT_Supplemental.dcm", download=False)
    if file is None:
        pytest.skip("pydicom's further files (package pydicom-data) are not here")
    source = pydicom.dcmread(file, stop_before_pixels=True)
    groups = source.PerFrameFunctionalGroupsSequence
    places = [
        np.array(group.PlanePositionSequence[0].ImagePositionPatient, float) for group in groups
    ]
    uids = (str(source.SOPClassUID), str(source.SOPInstanceUID))
    origin = DicomOrigin(
        str(source.StudyInstanceUID),
        str(source.SeriesInstanceUID),
        (tuple(Instance(file, *uids, number) for number in (1, 2)),),
    )
    shared = source.SharedFunctionalGroupsSequence[0]
    measures = next(g for g in (shared, groups[0]) if "PixelMeasuresSequence" in g)
    turned = next(g for g in (shared, groups[0]) if "PlaneOrientationSequence" in g)
    cosines = np.reshape(
        np.array(turned.PlaneOrientationSequence[0].ImageOrientationPatient, float), (2, 3)
    )
    along = places[1] - places[0]
    down, across = map(float, measures.PixelMeasuresSequence[0].PixelSpacing)
    geometry = Geometry(
        (across, down, float(np.linalg.norm(along))),
        tuple(places[0].tolist()),
        tuple(map(tuple, np.stack([*cosines, along / np.linalg.norm(along)], axis=1).tolist())),
    )
    voxels = np.zeros((2, source.Rows, source.Columns), np.uint8)
    voxels[1, 5:9, 5:9] = 1
    path = write_segmentation(
        Volume(voxels, geometry, "SEG", origin=origin),
        meanings,
        tmp_path / "out",
        template=read_template(origin),
        derivation=derivation,
        monitor=Monitor(),
    )
    dataset = pydicom.dcmread(path)
    (frame,) = dataset.PerFrameFunctionalGroupsSequence
    (image,) = frame.DerivationImageSequence[0].SourceImageSequence
    assert (image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber) == (uids[1], 2)
    (series,) = dataset.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == 1
    assert "ReferencedFrameNumber" not in series.ReferencedInstanceSequence[0]
    assert examine(path) == []


def test_labels_that_never_were_dicom_stand_alone_or_beside_derived_images(
    decoded: Decode,
    tmp_path: Path,
    examine: Examine,
    study: Any,
    labels: Volume,
    meanings: Meanings,
    derivation: Derivation,
) -> None:
    plain = replace(labels, origin=None)
    template = new_study(modality="CT", patient_id="phantom")
    path = write_segmentation(
        plain,
        meanings,
        tmp_path / "alone",
        template=template,
        derivation=derivation,
        monitor=Monitor(),
    )
    alone = pydicom.dcmread(path)
    assert "ReferencedSeriesSequence" not in alone
    assert alone.FrameOfReferenceUID == template.frame_of_reference
    assert alone.PatientID == "phantom"
    assert examine(path) == []
    beside = build_segmentation(
        plain,
        meanings,
        template=template,
        derivation=derivation,
        source_images=study.template.headers,
        monitor=Monitor(),
    )
    assert len(beside.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6
    assert np.array_equal(decoded(alone, labels), decoded(beside, labels))


@pytest.mark.slow
@pytest.mark.shared
def test_a_real_series_is_segmented_to_the_standard(
    decoded: Decode,
    tmp_path: Path,
    examine: Examine,
    shared_data: Path,
    read_study: Callable[..., Any],
    meanings: Meanings,
    derivation: Derivation,
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    files = sorted(
        (shared_data / "dicom" / "STS_025" / "MR_T1_series").iterdir(),
        key=lambda file: -float(pydicom.dcmread(file).ImagePositionPatient[2]),
    )
    for number, file in enumerate(files):
        (folder / f"{number:03d}.dcm").write_bytes(file.read_bytes())
    study = read_study(folder, between=3.26996)
    voxels = np.zeros(study.volume.shape, np.uint8)
    voxels[4:20, 10:30, 20:50] = 1
    voxels[10:20, 30:40, 20:50] = 7
    labels = replace(study.volume, voxels=voxels, modality="SEG")
    path = write_segmentation(
        labels,
        meanings,
        tmp_path / "out",
        template=study.template,
        derivation=derivation,
        monitor=Monitor(),
    )
    dataset = pydicom.dcmread(path)
    assert examine(path) == []
    expected = np.select([voxels == 1, voxels == 7], [1, 2])
    assert np.array_equal(decoded(dataset, labels, tolerance=1e-4), expected)
    assert all(
        len(frame.DerivationImageSequence) == 1
        for frame in dataset.PerFrameFunctionalGroupsSequence
    )


def test_labels_refer_to_the_derived_images_they_were_found_in(
    decoded: Decode,
    tmp_path: Path,
    examine: Examine,
    study: Any,
    labels: Volume,
    meanings: Meanings,
    derivation: Derivation,
) -> None:
    images = build_series(
        study.volume,
        template=study.template,
        derivation=replace(derivation, action="enhanced"),
        monitor=Monitor(),
    )
    path = write_segmentation(
        labels,
        meanings,
        tmp_path / "out",
        template=study.template,
        derivation=derivation,
        source_images=images,
        monitor=Monitor(),
    )
    dataset = pydicom.dcmread(path)
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert len(series.ReferencedInstanceSequence) == len(images)
    places = {image.SOPInstanceUID: image.ImagePositionPatient for image in images}
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert place == places[source.ReferencedSOPInstanceUID]
    expected = np.select([labels.voxels == 1, labels.voxels == 7], [1, 2])
    assert np.array_equal(decoded(dataset, labels), expected)
    assert [line for line in examine(path) if "PatientSex" not in line] == []
