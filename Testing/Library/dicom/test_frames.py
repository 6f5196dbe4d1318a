"""Series become what they are: volumes, frames of one, or parts; no frame mixes kinds.

All frames lie on one grid, and times are what the images say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.conftest import Make, WarningRecorder
from Library.dicom.images import MR
from Library.dicom.reading import edited, refused

from MedEnhanceLib import list_series, save_dicom
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io import load

#: One slice: its value, mm along the patient, its elements.
Row = tuple[int, float, dict[str, Any]]
PLACES = (0.0, 2.0, 4.0)
DAY = {"AcquisitionDate": "20200101"}


@pytest.fixture
def make(make_series: Make) -> Make:
    def of(rows: Iterable[Row], x: float = 0.0, **more: Any) -> Path:
        rows = list(rows)
        return make_series(
            np.array([np.full((4, 5), value) for value, _, _ in rows], np.uint16),
            positions=[(x, 0.0, z) for _, z, _ in rows],
            slice_elements=lambda index: {"InstanceNumber": index + 1, **rows[index][2]},
            **(MR | more),
        )

    return of


def values(path: Path, **options: Any) -> list[Any]:
    found: list[Any] = load(path, **options).voxels[..., 0, 0].tolist()
    return found


def parts(path: Path) -> dict[str, str]:
    return {row.part: row.size for row in list_series(path)}


def time(text: str) -> dict[str, Any]:
    return {**DAY, "AcquisitionTime": text}


def frames_of(elements: Callable[[int], dict[str, Any]]) -> list[Row]:
    """Three stacks at the same places; the value of each slice encodes frame and place."""
    return [(10 * t + k, z, elements(t)) for t in range(3) for k, z in enumerate(PLACES)]


FRAMES = [[0, 1, 2], [10, 11, 12], [20, 21, 22]]


@pytest.mark.parametrize(
    "elements",
    [
        lambda t: {"EchoNumbers": t + 1, "EchoTime": 10.0 * t},
        lambda t: {"EchoTime": 5.0 + 10.0 * t},
        lambda t: {"TemporalPositionIdentifier": t + 1, "NumberOfTemporalPositions": 3},
        lambda t: {"TriggerTime": 40.0 * t},
        lambda t: {"NominalPercentageOfCardiacPhase": 30.0 * t},
        lambda t: {"DiffusionBValue": 500.0 * t},
        lambda t: {"AcquisitionNumber": 9 + t},
    ],
)
def test_stacks_that_differ_in_one_thing_are_frames(
    make: Make, elements: Callable[[int], dict[str, Any]]
) -> None:
    folder = make(frames_of(elements))
    assert values(folder) == FRAMES
    (row,) = list_series(folder)
    assert (row.size, row.files, row.part, row.readable) == ("5×4×3×3 frames", 9, "", True)


def test_a_frame_that_lacks_a_slice_is_named(make: Make) -> None:
    rows = [(0, 2.0 * k, {"TemporalPositionIdentifier": t + 1}) for t in range(5) for k in range(6)]
    refused(make(rows[:16] + rows[17:]), r"missing: time 3 at 8\.00 mm", GeometryError)


@pytest.mark.parametrize("slices", [17, 25])
def test_an_interrupted_scan_gives_its_complete_frames_on_request(
    make: Make, recorder: WarningRecorder, slices: int
) -> None:
    rows = [(10 * t + k, 2.0 * k, time(f"12{t:02d}{k:02d}")) for t in range(5) for k in range(6)]
    folder = make(rows[:slices])
    says = r"the last frame lacks [15] of 6"
    assert "--complete-frames" in refused(folder, says, GeometryError)
    volume = load(folder, complete_frames=True, monitor=recorder.monitor)
    whole = slices // 6
    complete = [[10 * t + k for k in range(6)] for t in range(whole)]
    assert volume.voxels[..., 0, 0].tolist() == complete
    assert any(f"frame {whole + 1} is left out" in warning for warning in recorder.warnings)


def ge(number: Callable[[int, int], int], count: int | None = 3) -> list[Row]:
    """A sequence of GE: nothing but InstanceNumber differs from frame to frame."""
    alike = {"NumberOfTemporalPositions": count, **time("120000"), "AcquisitionNumber": 1}
    return [
        (10 * t + k, z, alike | {"InstanceNumber": number(t, k)})
        for k, z in enumerate(PLACES)
        for t in range(3)
    ]


@pytest.mark.parametrize(
    "number", [lambda t, k: 3 * t + k, lambda t, k: 3 * k + t, lambda t, k: 3 * t - k + 9]
)
def test_sequences_that_instance_numbers_alone_order_are_read(
    make: Make, number: Callable[[int, int], int]
) -> None:
    assert values(make(ge(number))) == FRAMES


@pytest.mark.parametrize(
    ("count", "number"),
    [
        (None, lambda t, k: 3 * t + k),  # magnitude and phase?
        (2, lambda t, k: 3 * t + k),
        (9, lambda t, k: 3 * k + t),
        (3, lambda t, k: 3 * t + (k + t) % 3),
        (3, lambda t, k: 7),
    ],
)
def test_instance_numbers_order_nothing_that_they_leave_uncertain(
    make: Make, count: int | None, number: Callable[[int, int], int]
) -> None:
    refused(make(ge(number, count)), "share a place", GeometryError)


def _maps() -> Iterable[Row]:
    """Magnitude and phase, whose order in time alternates from place to place."""
    for z, order in zip(PLACES, ("MP", "PM", "MP"), strict=True):
        for turn, kind in enumerate(order):
            image = {"ImageType": ["ORIGINAL", "PRIMARY", kind]}
            value = 100 * (1 + (kind == "P")) + int(z)
            yield value, z, {**image, **time(f"1200{int(z):02d}.{turn}")}


def _echoes(swapped: bool) -> Iterable[Row]:
    """Two echoes at two times; swapped: at one place in the other order."""
    for t, z, echo in product((0, 1), PLACES, (1, 2)):
        turn = 3 - echo if swapped and z == 2 else echo
        moment = time(f"12{t:02d}{int(z):02d}.{turn}")
        value = 100 * echo + 1000 * t + int(z)
        yield value, z, {"EchoNumbers": echo, "EchoTime": 5.0 * echo, **moment}


def _stack(elements: Callable[[int], dict[str, Any]]) -> Iterable[Row]:
    return ((k, 2.0 * k, elements(k)) for k in range(6))


@pytest.mark.parametrize(
    ("rows", "names", "second"),
    [
        (_maps(), {"M", "P"}, [200, 202, 204]),
        *((_echoes(swapped), {"echo 1", "echo 2"}, [[200, 202, 204], [1200, 1202, 1204]])
          for swapped in (False, True)),
        # Place by place, each with two acquisitions: who knows which phase the first of each saw.
        (((turn, z, {"AcquisitionNumber": turn, **time(f"12{int(z):02d}{turn:02d}")})
          for z in PLACES for turn in (1, 2)), {"acquisition 1", "acquisition 2"}, [2, 2, 2]),
        (_stack(lambda k: {"DiffusionBValue": 1e3 * (k % 2)}), {"b-value 0", "b-value 1000"},
         [1, 3, 5]),
        (_stack(lambda k: {"DiffusionBValue": 1e3 * (k == 3)}), {"b-value 0", "b-value 1000"}, [3]),
        (_stack(lambda k: {"EchoNumbers": 1 + k // 3}), {"echo 1", "echo 2"}, [3, 4, 5]),
        (_stack(lambda k: {"ConvolutionKernel": "AB"[k % 2]}), {"kernel A", "kernel B"}, [1, 3, 5]),
        (_stack(lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "MP"[k % 2]]}), {"M", "P"},
         [1, 3, 5]),
    ],
)  # fmt: skip
def test_kinds_that_alternate_are_listed_apart(
    make: Make, rows: Iterable[Row], names: set[str], second: list[Any]
) -> None:
    folder = make(rows)
    assert set(parts(folder)) == names
    assert values(folder, series="2") == second


def test_a_diffusion_scan_is_one_sequence_without_times(make: Make) -> None:
    folder = make(
        (b + int(z) + 10 * turn, z, {"DiffusionBValue": float(b), **time(f"12{turn:02d}00")})
        for turn, b in enumerate((0, 1000, 0, 1000))
        for z in PLACES
    )
    volume = load(folder)
    assert volume.voxels[:, 0, 0, 0].tolist() == [0, 1010, 20, 1030]
    assert volume.frame_interval_s is None


def test_magnitude_and_map_of_ge_are_parts(make: Make) -> None:
    folder = make(
        (10 * kind + k, 2.0 * k, {"AcquisitionNumber": 1}) for kind in (0, 2) for k in range(3)
    )
    for dataset in edited(folder):
        block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
        block.add_new(0x30, "SS", 0 if dataset.InstanceNumber <= 3 else 2)
        block.add_new(0x39, "IS", [0, 8, 0, 0])  # b = 0: not a diffusion scan
    assert parts(folder) == {"collapse flag 0": "5×4×3", "collapse flag 2": "5×4×3"}
    assert values(folder, series="1.2.3.1/collapse flag 2") == [20, 21, 22]


def test_a_part_that_lacks_places_of_its_series_says_so(
    make: Make, recorder: WarningRecorder
) -> None:
    folder = make((k, 2.0 * k, {"KVP": 80 if k == 3 else 120}) for k in range(4))
    volume = load(folder, series="1.2.3.1/kV 120", monitor=recorder.monitor)
    assert volume.voxels[:, 0, 0].tolist() == [0, 1, 2]
    assert any("kV 120 leaves out 1 slice of its series" in text for text in recorder.warnings)


@pytest.mark.parametrize(
    ("element", "first", "others"),
    [
        ("KVP", "120", "120.000000"),
        ("KVP", "120", "119.9999999"),
        ("AcquisitionNumber", "1", "01"),
        ("EchoNumbers", "1", "+1"),
        ("EchoTime", "2.5", "2.50"),
        ("FlipAngle", "9", "9.0E0"),
        ("InversionTime", "900", "900."),
        ("ConvolutionKernel", "B30f", "B30F "),
        ("RescaleType", "US", "us "),
    ],
)
def test_equal_values_that_are_written_otherwise_divide_nothing(
    make: Make, element: str, first: str, others: str
) -> None:
    more = {"RescaleSlope": 1, "RescaleIntercept": 0}
    folder = make(((k, 2.0 * k, {element: others if k else first}) for k in range(4)), **more)
    assert parts(folder) == {"": "5×4×4"}
    assert values(folder) == [0, 1, 2, 3]


def test_orientations_are_listed_apart(make_series: Make) -> None:
    make_series(np.zeros((3, 4, 4), np.uint16), prefix="axial", **MR)
    folder = make_series(
        np.ones((3, 4, 4), np.uint16),
        positions=[(2.0 * k, 0.0, 0.0) for k in range(3)],
        orientation=(0, 1, 0, 0, 0, -1),
        prefix="sagittal",
        slice_elements=lambda k: {"SOPInstanceUID": f"1.2.9.{k}"},
        **MR,
    )
    assert parts(folder) == {"axial 1": "4×4×3", "sagittal 2": "4×4×3"}
    with pytest.raises(InputError, match=r"holds 2 series"):
        load(folder)
    with pytest.raises(InputError, match=r"holds 2 parts of 1\.2\.3\.1"):
        load(folder, series="1.2.3.1")
    assert values(folder, series="1.2.3.1/sagittal 2") == [1, 1, 1]


@pytest.mark.parametrize(
    "elements",
    [
        lambda k: {"AcquisitionNumber": k + 1},
        lambda k: {"TriggerTime": 12.5 * k},
        lambda k: {"AcquisitionTime": f"1200{k:02d}"},
        lambda k: {"AcquisitionNumber": k % 2},
        lambda k: {"EchoTime": 10.0 + 0.01 * k},
        lambda k: {"TemporalPositionIdentifier": k % 2 + 1},
        lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL" if k % 2 else "OTHER"]},
        lambda k: {"FrameOfReferenceUID": "1.2.3" if k else None},
    ],
)
def test_attributes_that_vary_within_an_even_stack_do_not_divide_it(
    make_series: Make, elements: Callable[[int], dict[str, Any]]
) -> None:
    folder = make_series(np.zeros((8, 3, 3), np.uint16), slice_elements=elements)
    (row,) = list_series(folder)
    assert (row.part, row.size, row.readable) == ("", "3×3×8", True)


def test_localizers_among_slices_are_left_out_and_named(
    make_series: Make, recorder: WarningRecorder
) -> None:
    make_series(np.zeros((5, 4, 4), np.uint16))
    folder = make_series(
        np.zeros((2, 9, 9), np.uint16),
        prefix="scout",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        orientation=(0, 1, 0, 0, 0, -1),
        slice_elements=lambda k: {"SOPInstanceUID": f"1.2.5.{k}"},
    )
    assert load(folder, monitor=recorder.monitor).shape == (5, 4, 4)
    (warning,) = (one for one in recorder.warnings if "localizer" in one)
    assert "scout001.dcm" in warning
    assert "scout002.dcm" in warning


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"PatientID": "Q"}, "PatientID"),
        ({"Modality": "PT"}, "Modality"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "PhotometricInterpretation"),
        ({"RescaleSlope": None}, "differ in RescaleSlope: missing in"),
        ({"RescaleIntercept": None}, "differ in RescaleIntercept: missing in"),
    ],
)
def test_slices_that_are_no_one_image_are_refused(
    make: Make, elements: dict[str, Any], said: str
) -> None:
    alike = {"RescaleSlope": 2, "RescaleIntercept": 0, "PatientID": "P"}
    refused(make((k, 2.0 * k, alike | (elements if k > 1 else {})) for k in range(4)), said)


def test_files_without_a_series_are_one_if_nothing_contradicts(
    make: Make, recorder: WarningRecorder
) -> None:
    folder = make((k, 2.0 * k, {"SeriesInstanceUID": None}) for k in range(3))
    volume = load(folder, monitor=recorder.monitor)
    assert volume.shape == (3, 4, 5)
    assert volume.source.endswith("(series without UID)")
    assert any("3 files have no SeriesInstanceUID" in one for one in recorder.warnings)
    assert load(folder / "001.dcm").shape == (1, 4, 5)


def test_frames_must_lie_together_at_every_corner(make_series: Make) -> None:
    """The first voxels agree, those at the other end lie pixels apart."""
    folder = make_series(
        np.zeros((4, 256, 256), np.uint16),
        positions=[(0.0, 0.0, 2.0 * (k % 2)) for k in range(4)],
        slice_elements=lambda k: {
            "PixelSpacing": [0.509 if k > 1 else 0.505] * 2,
            "TemporalPositionIdentifier": k // 2 + 1,
        },
        **MR,
    )
    refused(folder, "frame 2", GeometryError)


EPI = {"ScanningSequence": ["EP", "GR"], "MRAcquisitionType": "2D", "RepetitionTime": 3000.0}
_BESIDE = "RepetitionTime is 3 s"


@pytest.mark.parametrize(
    ("elements", "seconds", "says"),
    [
        (lambda t: {"TriggerTime": 40.0 * t, **time("120000")}, 0.04, ""),
        (lambda t: {"TriggerTime": 40.0 * t, "TemporalPositionIdentifier": t + 1}, 0.04, ""),
        (lambda t: time(f"12{30 + t}"), 60.0, ""),
        (lambda t: {"AcquisitionDateTime": f"2020010112{t:02d}00.5-0500"}, 60.0, ""),
        (lambda t: {"TemporalPositionIdentifier": t + 1, "TemporalResolution": 2500.0}, 2.5, ""),
        (lambda t: {"AcquisitionNumber": t + 1, "FrameReferenceTime": 15e3 + 30e3 * t}, 30.0, ""),
        (lambda t: {"TemporalPositionIdentifier": t + 1}, None, ""),
        (lambda t: {"TemporalPositionIdentifier": t + 1, "TriggerTime": 40.0}, None, ""),
        (lambda t: time(f"1200{(0, 10, 50, 51)[t]:02d}"), None, "after 0, 10, 50, 51 s: times"),
        (  # frames of 10, 10, 10 and 30 s that begin at even times
            lambda t: {"ActualFrameDuration": (1e4, 1e4, 1e4, 3e4)[t], **time(f"1200{10 * t:02d}")},
            None, "0, 10, 20, 30 s and last 10, 10, 10, 30 s: times",
        ),
        (lambda t: {**EPI, "TemporalPositionIdentifier": t + 1}, 3.0, ""),
        (lambda t: {**EPI, "TemporalPositionIdentifier": t + 1, **time("120000")}, 3.0, ""),
        (lambda t: {**EPI, **time(f"1200{3 * t:02d}.{125 * t:04d}")}, 3.0, ""),
        (lambda t: {**EPI, **time(f"1200{3 * t + t % 2:02d}")}, 3.0, ""),  # in whole seconds
        (lambda t: {**EPI, **time(f"1200{14 * t:02d}.{250 + 25 * t}")}, 3.0, _BESIDE),
        (lambda t: {**EPI, "TriggerTime": 3350.0 * t}, 3.35, _BESIDE),
        (lambda t: {**EPI, "TriggerTime": 3350.0 * t**2}, None, _BESIDE),
        (lambda t: {**EPI, **time(f"1200{3 * t:02d}.5"), "RepetitionTime": None}, 3.0, ""),
        (lambda t: {**EPI, **time(f"1200{9 * t:02d}.5"), "MRAcquisitionType": "3D"}, 9.0, ""),
    ],
)  # fmt: skip
def test_the_interval_is_what_images_say_and_of_epi_the_repetition_time(
    make: Make,
    recorder: WarningRecorder,
    elements: Callable[[int], dict[str, Any]],
    seconds: float | None,
    says: str,
) -> None:
    rows = ((t, z, elements(t)) for t in range(4) for z in PLACES)
    volume = load(make(rows), monitor=recorder.monitor)
    assert volume.voxels[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert volume.frame_interval_s == (seconds and pytest.approx(seconds))
    said = [text for text in recorder.warnings if "begin after" in text]
    assert len(said) == bool(says) and all(says in text for text in said)


def test_the_delay_after_each_volume_of_ge_belongs_to_its_interval(make: Make) -> None:
    rows = ((t, z, EPI | {"TemporalPositionIdentifier": t + 1}) for t in range(3) for z in PLACES)
    folder = make(rows)
    for dataset in edited(folder):
        dataset.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x7C, "FL", 0.055)
    assert load(folder).frame_interval_s == 3.055
    save_dicom(load(folder), folder.with_name("derived"))
    assert load(folder.with_name("derived")).frame_interval_s == 3.055


def test_a_clock_that_ran_past_midnight_makes_no_frames(make: Make) -> None:
    """Under the date of the beginning, what came last would be first."""
    moments = ("235950", "235955", "000000", "000005")
    rows = ((t, z, time(moment)) for t, moment in enumerate(moments) for z in PLACES)
    refused(make(rows), "share a place", GeometryError)


@pytest.mark.parametrize(
    ("moments", "seconds"),
    [
        (("120000", "120001", "120001"), None),
        (("120000", "120000", "120001"), None),
        (("235958", "000000", "000002"), 2.0),
    ],
)
def test_acquisitions_whose_times_never_fall_are_one_sequence(
    make: Make, moments: tuple[str, ...], seconds: float | None
) -> None:
    """A clock of whole seconds gives frames equal times; one that passed midnight starts anew."""
    folder = make(frames_of(lambda t: {"AcquisitionNumber": t + 1, **time(moments[t])}))
    assert values(folder) == FRAMES
    assert load(folder).frame_interval_s == seconds


def test_nearly_equal_inversion_times_are_one_also_beside_images_without(make: Make) -> None:
    folder = make(
        (10 * t + k, z, {"InversionTime": start + 0.1 * k} if start else {})
        for t, start in enumerate((0.0, 100.0, 800.0))
        for k, z in enumerate(PLACES)
    )
    assert parts(folder) == {"": "5×4×3×3 frames"}
    assert values(folder) == FRAMES
