"""Series with echoes, times, b-values, maps and scouts become what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.dicom import list_series, load_dicom
from MedEnhanceLib.io.dicom.headers import read_header
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from Testing.Library.conftest import Make, WarningRecorder

pytest.importorskip("pydicom")

T, K = 3, 4
#: [T * K, J, I]; the value of each slice encodes frame and place.
STORED = np.repeat(np.arange(T * K, dtype=np.uint16) + 1, 6 * 5).reshape(T * K, 6, 5)
PLACES = [(0.0, 0.0, 2.0 * (index % K)) for index in range(T * K)]
MR: dict[str, Any] = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
    "Modality": "MR",
    "RescaleIntercept": None,
    "RescaleSlope": None,
}
Elements = Callable[[int], dict[str, Any]]


@pytest.fixture
def make_frames(make_series: Make) -> Callable[[Elements], Path]:
    """T stacks at the same K places; `elements` gives those of slice t * K + k."""

    def make(elements: Elements, **more: Any) -> Path:
        def with_number(index: int) -> dict[str, Any]:
            return {"InstanceNumber": index + 1, **elements(index)}

        return make_series(STORED, positions=PLACES, slice_elements=with_number, **(MR | more))

    return make


MakeFrames = Callable[..., Path]


def values(path: Path, monitor: Monitor | None = None, **options: Any) -> list[Any]:
    """One number a slice: [T][K], or [K]."""
    volume = load_dicom(path, monitor=monitor or Monitor(), **options)
    found: list[Any] = volume.voxels[..., 0, 0].tolist()
    return found


FRAMES = [[1 + t * K + k for k in range(K)] for t in range(T)]


# ------------------------------------------------------------ frames


@pytest.mark.parametrize(
    "elements",
    [
        lambda t: {"EchoNumbers": t + 1, "EchoTime": 10.0 * t},
        lambda t: {"EchoTime": 5.0 + 10.0 * t},
        lambda t: {"TemporalPositionIdentifier": t + 1, "NumberOfTemporalPositions": T},
        lambda t: {"TriggerTime": 40.0 * t},
        lambda t: {"NominalPercentageOfCardiacPhase": 30.0 * t},
        lambda t: {"DiffusionBValue": 500.0 * t},
        lambda t: {"AcquisitionNumber": 9 + t},
    ],
)
def test_stacks_that_differ_in_one_thing_are_frames(
    make_frames: MakeFrames, elements: Elements
) -> None:
    folder = make_frames(lambda index: elements(index // K))
    assert values(folder) == FRAMES
    (row,) = list_series(folder, Monitor())
    assert (row.size, row.files, row.part, row.readable) == ("5×6×4×3 frames", T * K, "", True)


def test_origin_names_each_image_of_each_frame(make_frames: MakeFrames) -> None:
    folder = make_frames(lambda index: {"EchoNumbers": index // K + 1})
    origin = load_dicom(folder, monitor=Monitor()).origin
    assert origin is not None
    found = [[one.sop_instance for one in frame] for frame in origin.instances]
    assert found == [[f"1.2.3.1.{number}" for number in frame] for frame in FRAMES]
    assert origin.on_grid


@pytest.mark.parametrize(
    ("makers", "element", "value"),
    [
        ("SIEMENS MR HEADER", 0x0019100C, lambda b: ("IS", str(b))),
        ("GEMS_PARM_01", 0x00431039, lambda b: ("IS", [str(1000000000 + b), "8", "0", "0"])),
        ("Philips Imaging DD 001", 0x20011003, lambda b: ("FL", float(b))),
    ],
)
def test_private_b_values_are_known_by_their_maker(
    make_frames: MakeFrames, makers: str, element: int, value: Callable[[int], tuple[str, Any]]
) -> None:
    import pydicom

    folder = make_frames(lambda index: {})
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        block = dataset.private_block(element >> 16, makers, create=True)
        b_value = 500 * ((dataset.InstanceNumber - 1) // K)
        block.add_new(element & 0xFF, *value(b_value))
        dataset.save_as(file)
    assert values(folder) == FRAMES
    headers = [read_header(file) for file in folder.iterdir()]
    reported = {one.b_value for header in headers if header for one in header.slices}
    assert reported == {"0", "500", "1000"}


def test_a_frame_that_lacks_a_slice_is_named(make_series: Make) -> None:
    count = 6
    stored = np.zeros((5 * count, 3, 3), np.uint16)
    folder = make_series(
        stored,
        positions=[(0.0, 0.0, 2.0 * (index % count)) for index in range(5 * count)],
        slice_elements=lambda index: {"TemporalPositionIdentifier": index // count + 1},
        **MR,
    )
    (folder / f"{5 * count - (2 * count + 4):03d}.dcm").unlink()  # frame 3, the fifth slice
    with pytest.raises(GeometryError, match=r"missing: time 3 at 8\.00 mm") as caught:
        load_dicom(folder, monitor=Monitor())
    assert caught.value.hint
    (row,) = list_series(folder, Monitor())
    assert "time 3 at 8.00 mm" in row.reason


# ------------------------------------------------------------ parts


def test_magnitude_and_phase_are_volumes_of_their_own(make_series: Make) -> None:
    folder = make_series(
        STORED[: 2 * K],
        positions=PLACES[: 2 * K],
        slice_elements=lambda index: {
            "ImageType": ["ORIGINAL", "PRIMARY", "M" if index < K else "P", "NONE"]
        },
        **MR,
    )
    rows = list_series(folder, Monitor())
    assert [(row.number, row.part, row.size) for row in rows] == [
        (1, "M", "5×6×4"),
        (2, "P", "5×6×4"),
    ]
    with pytest.raises(InputError, match="holds 2 series"):
        load_dicom(folder, monitor=Monitor())
    assert values(folder, series="1") == FRAMES[0]
    assert values(folder, series="1.2.3.1/P") == FRAMES[1]
    with pytest.raises(InputError, match=r"holds 2 parts of 1\.2\.3\.1"):
        load_dicom(folder, series="1.2.3.1", monitor=Monitor())


def test_orientations_are_listed_apart(make_series: Make) -> None:
    planes = {"axial": (1, 0, 0, 0, 1, 0), "sagittal": (0, 1, 0, 0, 0, -1)}
    for number, (name, orientation) in enumerate(planes.items()):
        folder = make_series(
            np.full((3, 4, 4), number, np.uint16),
            positions=[(2.0 * k, 0.0, 2.0 * k * (number == 0)) for k in range(3)]
            if number
            else [(0.0, 0.0, 2.0 * k) for k in range(3)],
            orientation=orientation,
            prefix=name,
            slice_elements=lambda index, number=number: {"SOPInstanceUID": f"1.2.{number}.{index}"},
            **MR,
        )
    rows = list_series(folder, Monitor())
    assert [(row.part, row.size) for row in rows] == [
        ("axial 1", "4×4×3"),
        ("sagittal 2", "4×4×3"),
    ]
    assert values(folder, series="1.2.3.1/sagittal 2") == [1, 1, 1]


def test_frames_of_reference_are_listed_apart(make_series: Make) -> None:
    folder = make_series(
        np.zeros((6, 4, 4), np.uint16),
        slice_elements=lambda index: {"FrameOfReferenceUID": f"1.2.{index // 3}"},
    )
    rows = list_series(folder, Monitor())
    assert [row.part for row in rows] == ["reference 1", "reference 2"]
    assert all(row.readable for row in rows)


# ------------------------------------------------------------ what must not be taken apart


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
    make_series: Make, elements: Elements
) -> None:
    folder = make_series(np.zeros((8, 3, 3), np.uint16), slice_elements=elements)
    (row,) = list_series(folder, Monitor())
    assert (row.part, row.size, row.readable) == ("", "3×3×8", True)


def test_an_attribute_of_each_slice_does_not_excuse_two_at_one_place(make_series: Make) -> None:
    folder = make_series(
        np.zeros((5, 3, 3), np.uint16),
        positions=[(0.0, 0.0, z) for z in (0.0, 2.0, 2.0, 4.0, 6.0)],
        slice_elements=lambda k: {"AcquisitionNumber": k, "TriggerTime": 3.0 * k},
    )
    with pytest.raises(GeometryError, match=r"shares? a place"):
        load_dicom(folder, monitor=Monitor())


# ------------------------------------------------------------ scouts


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
    assert load_dicom(folder, monitor=recorder.monitor).shape == (5, 4, 4)
    (warning,) = (one for one in recorder.warnings if "localizer" in one)
    assert "scout001.dcm" in warning
    assert "scout002.dcm" in warning
