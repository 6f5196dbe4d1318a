"""Slices make one geometry whatever their order, and every fault is named by its place."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicom.stack import Repairs, stack
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import WarningRecorder

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
        "file": FileRef(f"{index:03d}.dcm"),
        "instance": f"1.2.{index}",
        "rows": 8,
        "columns": 6,
        "position": tuple(float(mm) for mm in position),
        "orientation": tuple(orientation),
        "pixel_spacing": (0.8, 0.5),
    }
    return Slice(**(values | fields))


def stacked(slices: list[Slice], **options: Any) -> Any:
    return stack(slices, "series", options.pop("monitor", Monitor()), Repairs(**options))


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


# ------------------------------------------------------------ one geometry


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
@given(ORIENTATIONS, ORIGINS, STEPS, st.data())
def test_every_pixel_lies_where_its_own_header_puts_it(
    orientation: Any, origin: Any, step: float, data: Any
) -> None:
    slices = planes(step * np.arange(9), orientation, origin)
    result = stacked(data.draw(st.permutations(slices)))
    row, column = np.reshape(orientation, (2, 3))
    for k, one in enumerate(result.slices):
        by_header = np.asarray(one.position) + 5 * 0.5 * row + 7 * 0.8 * column
        by_volume = (result.geometry.affine_lps @ [5, 7, k, 1])[:3]
        assert np.allclose(by_header, by_volume, atol=1e-6)


@settings(deadline=None)
@given(
    ORIENTATIONS, STEPS.filter(lambda mm: mm >= 0.6), st.integers(3, 200), st.sampled_from([2, 3])
)
def test_positions_rounded_to_hundredths_make_a_volume(
    orientation: Any, step: float, count: int, digits: int
) -> None:
    slices = planes(step * np.arange(count), orientation)
    rounded = [
        plane(k, np.round(one.position or (), digits), orientation) for k, one in enumerate(slices)
    ]
    geometry = stacked(rounded).geometry
    assert geometry.spacing[2] == pytest.approx(step, abs=0.02 / (count - 1))


def test_positions_and_cosines_of_few_digits_make_a_volume() -> None:
    """0.625 mm in tenths, and a turn that four digits of its cosines describe."""
    positions = [(0.0, 0.0, round(0.625 * k, 1)) for k in range(40)]
    assert stacked([plane(k, p) for k, p in enumerate(positions)]).repair is None
    orientation = turned((0.3, 0.2, 0.1))
    written = tuple(round(cosine, 4) for cosine in orientation)
    exact = planes(2.0 * np.arange(120), orientation)
    slices = [plane(k, one.position, written) for k, one in enumerate(exact)]
    assert stacked(slices).repair is None


def test_pixel_spacing_is_rows_then_columns() -> None:
    assert stacked(planes([0, 2], pixel_spacing=(0.9, 0.4))).geometry.spacing == (0.4, 0.9, 2.0)


def test_frames_of_one_file_are_slices_too() -> None:
    file = FileRef("multi.dcm")
    slices = [
        plane(k, (0, 0, mm), file=file, frame=k + 1)
        for k, mm in enumerate([0.0, 6.0, 2.0, 4.0, 10.0])
    ]
    with pytest.raises(GeometryError, match=r"between 6\.00 and 10\.00 mm \(1 missing\)"):
        stacked(slices)
    assert [one.frame for one in stacked(slices[:4]).slices] == [1, 3, 4, 2]
    shared = [*slices[:4], plane(4, (0, 0, 2), file=file, frame=5)]
    with pytest.raises(GeometryError, match=r"multi\.dcm, frame 3, multi\.dcm, frame 5"):
        stacked(shared)


# ------------------------------------------------------------ what is missing, double, uneven


@settings(deadline=None)
@given(ORIENTATIONS, STEPS, st.integers(4, 40), st.data())
def test_a_missing_slice_is_named_by_its_place(
    orientation: Any, step: float, count: int, data: Any
) -> None:
    slices = planes(step * np.arange(count), orientation)
    gone = data.draw(st.integers(1, count - 2))
    before, after = (gone - 1) * step, (gone + 1) * step
    with pytest.raises(GeometryError) as caught:
        stacked(slices[:gone] + slices[gone + 1 :])
    named = [float(part) for part in _between(caught.value.message)]
    assert np.allclose(named, [before, after], atol=0.0051)
    assert "(1 missing)" in caught.value.message
    assert f"[{gone - 1:03d}.dcm … {gone + 1:03d}.dcm]" in caught.value.message
    assert "--fix-spacing" in caught.value.hint


def _between(message: str) -> list[str]:
    words = message.partition("between ")[2].split()
    return [words[0], words[2]]


@settings(deadline=None)
@given(STEPS, st.integers(8, 60), st.data())
def test_missing_slices_are_counted(step: float, count: int, data: Any) -> None:
    gone = data.draw(st.sets(st.integers(1, count - 2), min_size=1, max_size=3))
    kept = [k for k in range(count) if k not in gone]
    steps = np.diff(kept)
    assume((steps == 1).sum() > (steps > 1).sum() + 2)
    # Three in a row at the same wider distance are a spacing of their own.
    assume(
        not any(
            len(set(three)) == 1 and three[0] > 1
            for three in zip(steps, steps[1:], steps[2:], strict=False)
        )
    )
    with pytest.raises(GeometryError) as caught:
        stacked([one for k, one in enumerate(planes(step * np.arange(count))) if k in kept])
    counted = [int(part.split("(")[-1]) for part in caught.value.message.split(" missing)")[:-1]]
    assert sum(counted) == len(gone)


@settings(deadline=None)
@given(ORIENTATIONS, STEPS, st.integers(2, 30), st.data())
def test_two_slices_at_one_place_are_both_named(
    orientation: Any, step: float, count: int, data: Any
) -> None:
    slices = planes(step * np.arange(count), orientation)
    twin = data.draw(st.sampled_from(slices))
    double = plane(99, twin.position, orientation)
    with pytest.raises(GeometryError, match=r"shares? a place") as caught:
        stacked(data.draw(st.permutations([*slices, double])))
    assert twin.file.name in caught.value.message
    assert "099.dcm" in caught.value.message
    assert "Copies, time points or echoes" in caught.value.hint


def test_a_copy_of_the_same_image_is_called_so() -> None:
    slices = planes([0, 1, 2])
    copy = plane(9, (0, 0, 1), instance=slices[1].instance)
    with pytest.raises(GeometryError) as caught:
        stacked([*slices, copy])
    assert "SOPInstanceUID" in caught.value.hint


def test_a_spacing_that_changes_is_distinguished_from_missing_slices() -> None:
    """As heads are scanned: thin through the skull base, thick above."""
    along = [*np.arange(0, 30, 2.5), *np.arange(30, 90.1, 5)]
    with pytest.raises(GeometryError) as caught:
        stacked(planes(along))
    reported = "2.500 mm from 0.00 to 30.00 mm, then 5.000 mm from 30.00 to 90.00 mm"
    assert reported in caught.value.message
    assert "missing" not in caught.value.message


def test_a_gap_inside_a_changing_spacing_is_named_with_its_own_count() -> None:
    along = [*np.arange(0, 30, 2.5), *np.arange(30, 90.1, 5)]
    along.remove(60.0)
    with pytest.raises(GeometryError) as caught:
        stacked(planes(along))
    assert "between 55.00 and 65.00 mm (1 missing)" in caught.value.message
    assert "the spacing changes" in caught.value.message


def test_one_slice_off_the_grid_is_named() -> None:
    with pytest.raises(GeometryError, match=r"the one at 4\.50 mm \(002\.dcm\) is 0\.500 mm off"):
        stacked(planes([0, 2, 4.5, 6, 8]))


# ------------------------------------------------------------ slants


@settings(deadline=None)
@given(ORIENTATIONS, STEPS, st.floats(1, 30), st.booleans())
def test_a_tilt_is_named_by_its_angle(
    orientation: Any, step: float, degrees: float, down: bool
) -> None:
    along = step * np.arange(12)
    axis = np.asarray(orientation[3:] if down else orientation[:3])
    slices = [
        plane(k, np.asarray(one.position) + mm * np.tan(np.radians(degrees)) * axis, orientation)
        for k, (one, mm) in enumerate(zip(planes(along, orientation), along, strict=True))
    ]
    with pytest.raises(GeometryError, match="slant of") as caught:
        stacked(slices)
    reported = re.search(r"slant of ([\d.]+)°", caught.value.message)
    assert reported
    assert float(reported[1]) == pytest.approx(degrees, abs=0.0501)  # reported to a tenth
    assert "--fix-tilt" in caught.value.hint
    assert "--fix-spacing" not in caught.value.hint


def test_tilt_and_gap_are_both_reported_and_each_option_leaves_the_other() -> None:
    slices = [plane(k, (0, 0.5 * k, 2.0 * k)) for k in range(12) if k != 5]
    with pytest.raises(GeometryError, match=r"slant of 14\.0°.*1 missing") as caught:
        stacked(slices)
    assert "--fix-tilt" in caught.value.hint
    assert "--fix-spacing" in caught.value.hint
    with pytest.raises(GeometryError, match="missing") as caught:
        stacked(slices, tilt=True)
    assert "slant" not in caught.value.message
    with pytest.raises(GeometryError, match="slant") as caught:
        stacked(slices, spacing=True)
    assert "missing" not in caught.value.message


def test_a_slant_of_nearly_nothing_is_reported_with_its_digits() -> None:
    slices = [plane(k, (0, 0.0123 * k, 10.0 * k)) for k in range(30)]
    with pytest.raises(GeometryError, match=r"slant of 0\.07° \(or cosines of too few digits\)"):
        stacked(slices)


def test_slices_strewn_about_are_no_tilt() -> None:
    slices = [plane(k, (0, (0, 9, -4, 7, 3)[k], 2.0 * k)) for k in range(5)]
    with pytest.raises(GeometryError, match="neither behind one another nor on a slanted line"):
        stacked(slices)


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        (planes([0, 1, 2, 3, 7, 8, 9, 10]), "3 missing"),
        ([plane(k, (0, 4.0 * k, 2.0 * k)) for k in range(5)], "slant of 63"),
        ([plane(k, (0, 900.0 * k, 1000.0 * k)) for k in range(200)], "slant of 42"),
    ],
)
def test_no_repair_is_offered_that_would_be_refused(slices: list[Slice], says: str) -> None:
    with pytest.raises(GeometryError, match=says) as caught:
        stacked(slices)
    assert caught.value.hint
    assert "--fix" not in caught.value.hint
    with pytest.raises(GeometryError):
        stacked(slices, tilt=True, spacing=True)


# ------------------------------------------------------------ what does not belong together


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rows": 9}, r"differ in size: 6×8 in 000\.dcm, 6×9 in 003\.dcm"),
        ({"frame_of_reference": "1.2"}, r"differ in FrameOfReferenceUID"),
        ({"pixel_spacing": (0.8, 0.51)}, "differ in PixelSpacing"),
        ({"pixel_spacing": (0.8, 0.0)}, r"003\.dcm: PixelSpacing is \[0\.8, 0\.0\]"),
        ({"orientation": (1.0, 0, 0, 0, 0, 1)}, r"different orientations.*003\.dcm"),
        ({"position": (0.0, 1e300, 0.0)}, r"003\.dcm: ImagePositionPatient.*no patient"),
        ({"position": None}, r"\(003\.dcm first\) has no ImagePositionPatient"),
    ],
)
def test_an_odd_slice_is_named(fields: dict[str, Any], says: str) -> None:
    slices = planes(range(6), frame_of_reference="1.1")
    slices[3] = replace(slices[3], **fields)
    with pytest.raises(InputError, match=says) as caught:
        stacked(slices)
    assert caught.value.hint


def test_pixel_spacing_may_differ_by_its_rounding() -> None:
    slices = planes([0, 1, 2])
    slices[1] = plane(1, (0, 0, 1), pixel_spacing=(0.80000001, 0.5))
    assert stacked(slices).geometry.spacing == (0.5, 0.8, 1.0)


# ------------------------------------------------------------ what else the header says


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"thickness": 3.0}, ""),
        ({"thickness": 3.2}, ""),
        ({"between": 3.0, "thickness": 1.0}, ""),
        ({"thickness": 2.0}, r"leave gaps of 1\.000 mm between them"),
        ({"thickness": 6.0}, r"overlap by 3\.000 mm"),
        ({"between": 5.0}, r"lie 3\.000 mm apart .* says 5\.000 mm"),
        ({"between": -1.5}, r"were 1 of 2 slices left out"),
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


@pytest.mark.parametrize(
    ("numbers", "warns"),
    [
        ([1, 2, 3, 4, 5], False),
        ([50, 40, 30, 20, 10], False),
        ([0, 0, 0, 0, 0], False),
        ([1, 2, None, 4, 5], False),
        ([1, 3, 2, 4, 5], True),
        ([1, 1, 2, 3, 4], True),
    ],
)
def test_numbers_against_the_positions_are_reported(
    recorder: WarningRecorder, numbers: list[int | None], warns: bool
) -> None:
    slices = [plane(k, (0, 0, k), number=number) for k, number in enumerate(numbers)]
    assert stacked(slices, monitor=recorder.monitor).slices == slices
    assert ["InstanceNumber" in warning for warning in recorder.warnings] == [True] * warns
