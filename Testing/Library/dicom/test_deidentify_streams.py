"""Compressed frames keep every pixel and lose every comment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from MedEnhanceLib.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("dicomanonymizer")

from MedEnhanceLib.io.deidentify import Deidentifier, deidentify  # noqa: E402
from MedEnhanceLib.io.deidentify.pixel_data import shows_face  # noqa: E402
from MedEnhanceLib.io.dicom.structure import silence  # noqa: E402
from Testing.Library.dicom.test_deidentify import PIXELS, SECRET, image  # noqa: E402

WORDS = b"taken by Betty"
FILES = {
    "JPEG": "SC_rgb_jpeg_dcmtk.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG 2000": "MR_small_jp2klossless.dcm",
}


def planted(kind: str, where: str) -> Dataset:
    """A compressed image with words in a comment, in an application segment, or behind the end."""
    from pydicom.data import get_testdata_file
    from pydicom.encaps import encapsulate, generate_frames

    path = get_testdata_file(FILES[kind], download=False)
    dataset: Dataset = pydicom.dcmread(str(path))
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    marker = {"comment": b"\xfe", "application": b"\xe1"}.get(where, b"")
    at = 2
    if kind == "JPEG 2000":  # behind SIZ, which comes first
        marker = b"\x64"
        at = 4 + int.from_bytes(frame[4:6], "big")
    segment = b"\xff" + marker + (len(WORDS) + 2).to_bytes(2, "big") + WORDS
    frame = frame + WORDS if where == "behind" else frame[:at] + segment + frame[at:]
    dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    return dataset


@pytest.mark.parametrize("where", ["comment", "application", "behind"])
@pytest.mark.parametrize("kind", list(FILES))
def test_words_in_compressed_frames_go_and_pixels_stay(
    tmp_path: Path, kind: str, where: str
) -> None:
    dataset = planted(kind, where)
    (tmp_path / "in").mkdir()
    dataset.save_as(tmp_path / "in" / "one.dcm")
    report = deidentify(tmp_path / "in", tmp_path / "out", allow_burned_in=True)
    (result,) = (tmp_path / "out").rglob("*.dcm")
    assert WORDS not in result.read_bytes()
    assert "comments in compressed" in str(report.attributes())
    with silence():
        pixels = pydicom.dcmread(result).pixel_array
    assert np.array_equal(pixels, dataset.pixel_array)


def test_a_table_of_long_offsets_is_made_anew_with_its_frames() -> None:
    from pydicom.encaps import encapsulate_extended, generate_frames

    dataset = planted("JPEG 2000", "comment")
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    pixels = dataset.pixel_array
    value, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
        [frame]
    )
    dataset.PixelData = value
    lengths = dataset.ExtendedOffsetTableLengths
    cleaned, changes = Deidentifier(SECRET, allow_burned_in=True).dataset(dataset)
    assert WORDS not in cleaned.PixelData
    assert cleaned.ExtendedOffsetTableLengths != lengths
    assert any("comments in compressed" in one.action for one in changes)
    assert np.array_equal(cleaned.pixel_array, pixels)


@pytest.mark.parametrize(
    ("elements", "shows"),
    [
        ({"BodyPartExamined": "HEAD"}, True),
        ({"BodyPartExamined": "CHEST"}, False),
        ({}, True),
        ({"BodyPartExamined": "HEAD", "RecognizableVisualFeatures": "NO"}, False),
        ({"BodyPartExamined": "CHEST", "RecognizableVisualFeatures": "YES"}, True),
        ({"BodyPartExamined": "HEAD", "Modality": "DX"}, False),
    ],
)
def test_a_face_is_warned_of_where_a_head_is_shown(elements: dict[str, str], shows: bool) -> None:
    dataset = pydicom.Dataset()
    dataset.Modality = "MR"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    assert bool(shows_face(dataset)) is shows


@pytest.mark.parametrize("kind", list(FILES))
@pytest.mark.parametrize("left", [0.0, 0.05, 0.5])
def test_a_compressed_frame_that_is_cut_short_is_damaged(kind: str, left: float) -> None:
    from pydicom.encaps import encapsulate, generate_frames

    dataset = planted(kind, "comment")
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    cut = frame[: int(len(frame) * left) // 2 * 2]
    dataset.PixelData = encapsulate([cut or b"\0\0"])
    with pytest.raises(InputError, match="damaged"):
        Deidentifier(SECRET, allow_burned_in=True).dataset(dataset)


def test_frames_in_pieces_are_put_together() -> None:
    """Two frames in four fragments, and no table says where the second one begins."""
    from pydicom.encaps import encapsulate, generate_frames

    dataset = planted("JPEG 2000", "comment")
    pixels = dataset.pixel_array
    frames = [*generate_frames(dataset.PixelData, number_of_frames=1)] * 2
    dataset.NumberOfFrames = 2
    dataset.PixelData = encapsulate(frames, fragments_per_frame=2, has_bot=False)
    cleaned, _ = Deidentifier(SECRET, allow_burned_in=True).dataset(dataset)
    assert WORDS not in cleaned.PixelData
    assert np.array_equal(cleaned.pixel_array, [pixels, pixels])


def test_a_comment_inside_a_tile_stops_the_file() -> None:
    """Its length stands in several places: nobody is to guess which."""
    from pydicom.encaps import encapsulate, generate_frames

    dataset = planted("JPEG 2000", "behind")
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    tile = frame.index(b"\xff\x90")
    length = int.from_bytes(frame[tile + 6 : tile + 10], "big")
    segment = b"\xff\x64" + (len(WORDS) + 2).to_bytes(2, "big") + WORDS
    longer = (length + len(segment)).to_bytes(4, "big") if length else bytes(4)
    frame = frame[: tile + 6] + longer + frame[tile + 10 : tile + 12] + segment + frame[tile + 12 :]
    dataset.PixelData = encapsulate([frame + b"\0" * (len(frame) % 2)])
    with pytest.raises(InputError, match="middle of its compressed"):
        Deidentifier(SECRET, allow_burned_in=True).dataset(dataset)


def test_missing_frames_are_reported() -> None:
    dataset = planted("JPEG 2000", "comment")
    dataset.NumberOfFrames = 3
    with pytest.raises(InputError, match="damaged"):
        Deidentifier(SECRET).dataset(dataset)


def test_a_dataset_in_memory_loses_what_is_behind_its_pixels() -> None:
    copied, changes = Deidentifier(SECRET).dataset(image(PixelData=PIXELS.tobytes() + b"Ignatius"))
    assert copied.PixelData == PIXELS.tobytes()
    assert "bytes after the pixels removed" in {change.action for change in changes}
    overlaid = image(PixelData=(PIXELS | np.uint16(0x8000)).tobytes(), BitsStored=12, HighBit=11)
    overlaid.add_new(0x60000102, "US", 15)
    assert Deidentifier(SECRET).dataset(overlaid)[0].PixelData == PIXELS.tobytes()
