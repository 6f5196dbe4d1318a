"""Slices make one geometry whatever their order, and every fault is named by its place."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from Library.conftest import WarningRecorder

from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.stack import stack, stack_frames
from MedEnhanceLib.runtime.progress import Monitor

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def planes(
    distances: Any, orientation: Any = AXIAL, origin: Any = (0.0, 0.0, 0.0), **fields: Any
) -> list[Slice]:
    """Slices at these distances along the normal through `origin`."""
    axes = np.asarray(orientation, float)
    normal = np.cross(axes[:3], axes[3:])
    return [
        plane(index, np.asarray(origin) + mm * normal, tuple(axes.tolist()), **fields)
        for index, mm in enumerate(distances)
    ]


def plane(index: int, position: Any, orientation: Any = AXIAL, **fields: Any) -> Slice:
    values = {
        "file": Path(f"{index:03d}.dcm"),
        "instance": f"1.2.{index}",
        "rows": 8,
        "columns": 6,
        "position": tuple(float(mm) for mm in position),
        "orientation": tuple(orientation),
        "pixel_spacing": (0.8, 0.5),
    }
    return Slice(**(values | fields))


def stacked(slices: list[Slice], **options: Any) -> Any:
    return stack(slices, "series", options.pop("monitor", Monitor()), **options)


def turned(angles: tuple[float, float, float]) -> tuple[float, ...]:
    """Rows and columns turned about x, y and z: double oblique."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return (*matrix[:, 0].tolist(), *matrix[:, 1].tolist())


ANGLE = st.floats(-3.1, 3.1)
ORIENTATIONS = st.tuples(ANGLE, ANGLE, ANGLE).map(turned)
ORIGINS = st.tuples(*[st.floats(-2000, 2000)] * 3)
STEPS = st.floats(0.3, 12.0)


@pytest.mark.slow
@settings(deadline=None)
@given(ORIENTATIONS, ORIGINS, STEPS, st.integers(2, 40), st.randoms(use_true_random=False))
def test_any_order_gives_the_same_right_handed_geometry(
    orientation: Any, origin: Any, step: float, count: int, random: Any
) -> None:
    slices = planes(step * np.arange(count), orientation, origin)
    straight = stacked(slices)
    shuffled = [*slices]
    random.shuffle(shuffled)
    again = stacked(shuffled)
    assert again.geometry == straight.geometry
    assert again.slices == straight.slices == slices
    assert straight.repair is None
    geometry = straight.geometry
    assert geometry.is_right_handed
    assert np.allclose(geometry.spacing, (0.5, 0.8, step), rtol=1e-6)
    assert np.allclose(geometry.origin, origin)
    row, column = np.reshape(orientation, (2, 3))
    expected = np.column_stack([row, column, np.cross(row, column)])
    assert np.allclose(geometry.direction, expected, atol=1e-9)


@settings(deadline=None)
@given(ORIENTATIONS, STEPS, st.integers(4, 40), st.data())
def test_a_missing_and_a_double_slice_are_named_by_their_place(
    orientation: Any, step: float, count: int, data: Any
) -> None:
    slices = planes(step * np.arange(count), orientation)
    gone = data.draw(st.integers(1, count - 2))
    with pytest.raises(GeometryError) as caught:
        stacked(slices[:gone] + slices[gone + 1 :])
    words = caught.value.message.partition("between ")[2].split()
    between = [float(words[0]), float(words[2])]
    assert np.allclose(between, [(gone - 1) * step, (gone + 1) * step], atol=0.0051)
    assert f"(1 missing) [{gone - 1:03d}.dcm … {gone + 1:03d}.dcm]" in caught.value.message
    assert "rectangular grid: --resample" in caught.value.hint
    double = plane(99, slices[gone].position, orientation)
    with pytest.raises(GeometryError, match=r"shares? a place") as caught:
        stacked(data.draw(st.permutations([*slices, double])))
    assert slices[gone].file.name in caught.value.message
    assert "099.dcm" in caught.value.message
    assert "Copies, time points or echoes" in caught.value.hint


@settings(deadline=None)
@given(ORIENTATIONS, STEPS, st.floats(1, 30), st.booleans())
def test_a_tilt_is_named_by_its_angle(
    orientation: Any, step: float, degrees: float, down: bool
) -> None:
    along = step * np.arange(12)
    aside = np.tan(np.radians(degrees)) * np.asarray(orientation[3:] if down else orientation[:3])
    slices = [
        plane(k, np.asarray(upright.position) + mm * aside, orientation)
        for k, (upright, mm) in enumerate(zip(planes(along, orientation), along, strict=True))
    ]
    with pytest.raises(GeometryError, match="slant of") as caught:
        stacked(slices)
    reported = re.search(r"slant of ([\d.]+)°", caught.value.message)
    assert reported
    assert float(reported[1]) == pytest.approx(degrees, abs=0.0501)  # reported to a tenth
    assert "rectangular grid: --resample" in caught.value.hint


def test_tilt_and_gap_are_both_reported_and_repaired() -> None:
    slices = [plane(k, (0, 0.5 * k, 2.0 * k)) for k in range(12) if k != 5]
    with pytest.raises(GeometryError, match=r"slant of 14\.0°.*1 missing") as caught:
        stacked(slices)
    assert "rectangular grid: --resample" in caught.value.hint
    assert stacked(slices, resample=True).shape[0] == 12


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        (planes([0, 1, 2, 3, 7, 8, 9, 10]), "3 missing"),
        ([plane(k, (0, 4.0 * k, 2.0 * k)) for k in range(5)], "slant of 63"),
    ],
)
def test_no_repair_is_offered_that_would_be_refused(slices: list[Slice], says: str) -> None:
    with pytest.raises(GeometryError, match=says) as caught:
        stacked(slices)
    assert caught.value.hint
    assert "--resample" not in caught.value.hint
    with pytest.raises(GeometryError):
        stacked(slices, resample=True)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([4] * 8 + [7] * 6, "each part is even: 8 × 4.000 mm, then 6 × 7.000 mm"),
        ([10] * 4 + [7.5] + [5] * 9, "each part is even: 4 × 10.000 mm, then 9 × 5.000 mm"),
        ([4] * 4 + [5] * 9, "each part is even: 4 × 4.000 mm, then 9 × 5.000 mm"),
        ([4] * 8 + [11] + [7] * 6, "missing"),
        ([4] * 5 + [8] * 2 + [4] * 5, "missing"),
    ],
)
def test_parts_of_a_head_with_other_distances_are_no_gaps(steps: list[float], says: str) -> None:
    slices = planes(np.cumsum([0, *steps]))
    with pytest.raises(GeometryError, match=says) as caught:
        stacked(slices)
    assert "--resample" in caught.value.hint
    is_gap = says == "missing"
    assert ("missing" in caught.value.message, "complete" in caught.value.hint) == (is_gap, is_gap)
    assert stacked(slices, resample=True).repair


def test_frames_with_gaps_at_other_places_are_not_resampled_as_one() -> None:
    frames = [planes([0, 2, 6, 8]), planes([0, 4, 6, 8])]
    with pytest.raises(GeometryError, match="frame 2"):
        stack_frames(frames, "series", Monitor(), resample=True)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rows": 9}, r"differ in size: 6×8 in 000\.dcm, 6×9 in 003\.dcm"),
        ({"frame_of_reference": "1.2"}, r"differ in FrameOfReferenceUID"),
        ({"pixel_spacing": (0.8, 0.51)}, "differ in PixelSpacing"),
        ({"pixel_spacing": (0.8, 0.0)}, r"003\.dcm: PixelSpacing is \[0\.8, 0\.0\]"),
        ({"orientation": (1.0, 0, 0, 0, 0, 1)}, r"differ by up to 1.*003\.dcm"),
        ({"position": None}, r"\(003\.dcm first\) lack ImagePositionPatient"),
    ],
)
def test_an_odd_slice_is_named(fields: dict[str, Any], says: str) -> None:
    slices = planes(range(6), frame_of_reference="1.1")
    slices[3] = replace(slices[3], **fields)
    with pytest.raises(InputError, match=says) as caught:
        stacked(slices)
    assert caught.value.hint


@pytest.mark.parametrize(("turn", "warnings"), [(5e-5, 0), (2e-4, 1), (9e-4, 1)])
def test_rounded_directions_are_read_and_larger_turns_refused(
    recorder: WarningRecorder, turn: float, warnings: int
) -> None:
    slices = planes(range(5))
    slices[2] = replace(slices[2], orientation=(1.0, 0, turn, 0, 1, 0))
    geometry = stacked(slices, monitor=recorder.monitor).geometry
    assert np.array_equal(geometry.direction, np.eye(3))
    assert len(recorder.warnings) == warnings
    assert all(f"{turn:.2g}: ImageOrientationPatient of 002.dcm (1 of 5)" in text
               for text in recorder.warnings)  # fmt: skip
    slices[2] = replace(slices[2], orientation=(1.0, 0, 0.0012, 0, 1, 0))
    with pytest.raises(GeometryError, match=r"differ by up to 0\.0012: .* of 002\.dcm \(1 of 5\)"):
        stacked(slices)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"thickness": 3.0}, ""),
        ({"thickness": 3.2}, ""),
        ({"between": 3.0, "thickness": 1.0}, ""),
        ({"between": 5.0}, r"lie 3\.000 mm apart .* says 5\.000 mm"),
        ({"between": -1.5}, r"says 1\.500 mm: were slices left out"),
    ],
)
def test_positions_win_over_thickness_with_a_warning(
    recorder: WarningRecorder, fields: dict[str, float], says: str
) -> None:
    geometry = stacked(planes(3.0 * np.arange(5), **fields), monitor=recorder.monitor).geometry
    assert geometry.spacing[2] == 3.0
    assert len(recorder.warnings) == bool(says)
    assert all(re.search(says, warning) for warning in recorder.warnings)


@pytest.mark.parametrize(
    ("fields", "spacing", "says"),
    [
        ({"between": 2.5, "thickness": 3.0}, 2.5, "SpacingBetweenSlices"),
        ({"between": -2.5}, 2.5, "SpacingBetweenSlices"),
        ({"thickness": 3.0}, 3.0, "SliceThickness"),
        ({"between": 0.0, "thickness": 0.0}, 1.0, "unknown thickness"),
        ({}, 1.0, "unknown thickness"),
    ],
)
def test_one_slice_takes_the_headers_word_and_says_so(
    recorder: WarningRecorder, fields: dict[str, float], spacing: float, says: str
) -> None:
    result = stacked(planes([7.0], **fields), monitor=recorder.monitor)
    assert result.geometry.spacing == (0.5, 0.8, spacing)
    assert [says in warning for warning in recorder.warnings] == [True]
