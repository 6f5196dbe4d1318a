"""The corners of NRRD and MetaImage: what ITK reads well is kept, what it misreads is refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from Library.conftest import WarningRecorder

from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load, save

LPS = "space: left-posterior-superior"
DIAGONAL, ORIGIN = "(2,0,0) (0,3,0) (0,0,4)", "space origin: (10,20,30)"
DIRECTIONS = f"space directions: {DIAGONAL}\n{ORIGIN}"


def nrrd(path: Path, lines: str, sizes: tuple[int, ...] = (6, 5, 4), **changes: str) -> Path:
    fields = {"type": "short", "endian": "little", "encoding": "raw"}
    fields |= {"dimension": f"{len(sizes)}", "sizes": " ".join(map(str, sizes))} | changes
    head = "".join(f"{key}: {value}\n" for key, value in fields.items())
    voxels = np.arange(np.prod(sizes), dtype="<i2")
    path.write_bytes(f"NRRD0004\n{head}{lines}\n\n".encode() + voxels.tobytes())
    return path


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (1, 1, 1)),
        ("LPS", (1, 1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
        ("RAS", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
    ],
)
def test_known_spaces_come_to_lps(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    path = nrrd(tmp_path / "a.nrrd", f"space: {space}\n{DIRECTIONS}")
    geometry = load(path, modality="OT").geometry
    affine = np.array([[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
    assert np.array_equal(geometry.affine_lps, np.diag([*signs, 1]) @ affine)


@pytest.mark.parametrize(
    ("directions", "kinds", "sizes", "axis"),
    [
        (f"{DIAGONAL} none", "domain domain domain list", (6, 5, 4, 3), 0),
        (f"none {DIAGONAL}", "list domain domain domain", (3, 6, 5, 4), -1),
    ],
)
def test_axis_of_frames_comes_first_wherever_it_stands(
    tmp_path: Path, directions: str, kinds: str, sizes: tuple[int, ...], axis: int
) -> None:
    lines = f"{LPS}\nspace directions: {directions}\n{ORIGIN}\nkinds: {kinds}"
    volume = load(nrrd(tmp_path / "a.nrrd", lines, sizes), modality="OT")
    stored = np.arange(360).reshape(sizes[::-1])
    assert np.array_equal(volume.voxels, np.moveaxis(stored, axis, 0))
    assert volume.geometry == Geometry((2, 3, 4), (10, 20, 30))


@pytest.mark.parametrize(
    ("lines", "changes", "says"),
    [
        (f"space: scanner-xyz\n{DIRECTIONS}", {}, "space is 'scanner-xyz'"),
        (f'{LPS}\nspace units: "furlong" "furlong" "furlong"\n{DIRECTIONS}', {}, "units of length"),
        (f'{LPS}\nspace units: "mm" "mm" "um"\n{DIRECTIONS}', {}, "units of length"),
        ("spacings: 2 3 nan", {}, "spacings"),
        ("spacings: 2 3 0", {}, "spacings"),
        ("spacings: 2 -3 4", {}, "spacings"),
        ("spacings: a b c", {}, "spacings"),
        (f"{LPS}\n{DIRECTIONS}\ndata file: /etc/hostname", {}, "data file"),
        (f"{LPS}\n{DIRECTIONS}\nbyte skip: 10", {}, "byte skip"),
        (f"{LPS}\n{DIRECTIONS}\nline skip: 1", {}, "line skip"),
        (f"{LPS}\n{DIRECTIONS}\nspace: RAS", {}, "space has two values"),
        (f"{LPS}\n{DIRECTIONS}\nkinds: domain domain list", {}, "kinds"),
        (f"{LPS}\nspace directions: (2,0,0) (0,3,0) none", {}, "space directions"),
        ("kinds: vector domain domain", {}, "several values per voxel"),
        ("", {"sizes": (0, 5, 4)}, "zero"),
        (f"{LPS}\n{DIRECTIONS}\nkinds: domain domain", {}, "kind"),
        (f"{LPS}\n{DIRECTIONS}", {"encoding": "hex"}, "encoding is hex"),
        (f"{LPS}\n{DIRECTIONS}", {"type": "block"}, "type is block"),
        (f"{LPS}\n{DIRECTIONS}", {"endian": "middle"}, "endian"),
    ],
)
def test_nrrd_that_itk_refuses_or_would_misread_is_refused_by_field(
    tmp_path: Path, lines: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=rf"a\.nrrd: .*{says}") as caught:
        load(nrrd(tmp_path / "a.nrrd", lines, **changes))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("lines", "origin", "says"),
    [
        ("spacings: 2 3 4", (0, 0, 0), "which side is left"),
        (f"space dimension: 3\n{DIRECTIONS}", (10, 20, 30), "names no space, only its dimension"),
    ],
)
def test_a_missing_place_of_a_nrrd_is_said(
    tmp_path: Path, recorder: WarningRecorder, lines: str, origin: tuple[int, ...], says: str
) -> None:
    volume = load(nrrd(tmp_path / "a.nrrd", lines), modality="OT", monitor=recorder.monitor)
    assert volume.geometry == Geometry((2, 3, 4), origin)
    assert any(says in warning for warning in recorder.warnings)


@pytest.mark.parametrize("after", [b"", bytes(700)])
def test_nhdr_is_read_with_its_packed_voxels(tmp_path: Path, after: bytes) -> None:
    path = nrrd(tmp_path / "a.nhdr", f"{LPS}\n{DIRECTIONS}\ndata file: a.raw.gz", encoding="gz")
    voxels = np.arange(120, dtype="<i2")
    (tmp_path / "a.raw.gz").write_bytes(gzip.compress(voxels.tobytes()) + after)
    assert np.array_equal(load(path, modality="OT").voxels, voxels.reshape(4, 5, 6))


FOUR = "space directions: (2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,0,%s)\nspace origin: (10,20,30,0)"
LAST = f"{LPS}\nspace directions: {DIAGONAL} none\n{ORIGIN}\nspacings: nan nan nan %s"


@pytest.mark.parametrize(
    ("lines", "seconds", "warns"),
    [
        (f'{LPS}-time\nspace units: "mm" "mm" "mm" "s"\n{FOUR % 2.5}', 2.5, False),
        (f"{LPS}-time\n{FOUR % 2500}", 2.5, True),
        (f'{LAST % 2500}\nunits: "" "" "" "ms"\nkinds: domain domain domain time', 2.5, False),
        (f"{LAST % 0.5}\nkinds: domain domain domain list", 0.5, False),
        (f"{LAST % 'nan'}\nkinds: domain domain domain list", None, False),
        (f'{LAST % "nan"}\nMedEnhance:={{"modality": "OT", "frame_interval_s": 2}}', 2, False),
        (f'{LAST % 3}\nunits: "" "" "" "s/mm2"', None, True),
        (f"{LAST % -3}", None, True),
    ],
)
def test_interval_of_a_nrrd_has_its_unit(
    tmp_path: Path, recorder: WarningRecorder, lines: str, seconds: float | None, warns: bool
) -> None:
    path = nrrd(tmp_path / "a.nrrd", lines, (6, 5, 4, 3))
    volume = load(path, modality="OT", monitor=recorder.monitor)
    assert volume.geometry == Geometry((2, 3, 4), (10, 20, 30))
    assert volume.frame_interval_s == seconds
    assert bool(recorder.warnings) is warns


def test_axis_of_time_may_come_first_without_directions(tmp_path: Path) -> None:
    lines = 'spacings: 2.5 2 3 4\nkinds: time domain domain domain\nunits: "s" "mm" "mm" "mm"'
    volume = load(nrrd(tmp_path / "a.nrrd", lines, (3, 6, 5, 4)), modality="OT")
    assert volume.shape == (3, 4, 5, 6)
    assert (volume.geometry.spacing, volume.frame_interval_s) == ((2, 3, 4), 2.5)


def test_four_axes_name_their_space_and_unit(tmp_path: Path) -> None:
    frames = Volume(np.zeros((2, 4, 5, 6), np.uint8), Geometry((2, 3, 4)), frame_interval_s=0.5)
    save(frames, tmp_path / "a.nrrd")
    text = (tmp_path / "a.nrrd").read_bytes()
    assert b"\nspace: left-posterior-superior-time\n" in text
    assert b'\nspace units: "mm" "mm" "mm" "s"\n' in text
    image = sitk.ReadImage(str(tmp_path / "a.nrrd"))
    assert (image.GetSize(), image.GetSpacing()) == ((6, 5, 4, 2), (2, 3, 4, 0.5))


def metaimage(path: Path, data: str = "LOCAL", **changes: str) -> Path:
    """Written by hand; an empty field is left out."""
    fields = {
        "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "1 2 3", "ElementSpacing": "2 2 3",
        "DimSize": "6 5 4", "ElementType": "MET_SHORT",
    } | changes  # fmt: skip
    head = "".join(f"{key} = {value}\n" for key, value in fields.items() if value)
    voxels = np.arange(120, dtype="<i2")
    path.write_bytes(f"{head}ElementDataFile = {data}\n".encode() + voxels.tobytes())
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ElementToIntensityFunctionSlope": "2"}, "ElementToIntensityFunctionSlope is 2"),
        ({"ElementToIntensityFunctionOffset": "-1024"}, "ElementToIntensityFunctionOffset is"),
        ({"DistanceUnits": "um"}, "DistanceUnits is um"),
        ({"BinaryData": ""}, "BinaryData is missing"),
        ({"Offset": "nan 2 3"}, "Offset is nan 2 3"),
        ({"TransformMatrix": "1 0 0 0 1 0"}, "TransformMatrix is"),
        ({"HeaderSize": "-1"}, "HeaderSize"),
        ({"ElementNumberOfChannels": "3"}, "several values per voxel"),
        ({"DimSize": "0 5 4"}, "zero"),
        *(
            ({"ElementSpacing": mm}, "ElementSpacing is")
            for mm in ("2 3 nan", "2 3 0", "2 -3 4", "a b c")
        ),
    ],
)
def test_metaimage_that_itk_would_misread_is_refused_by_field(
    tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    with pytest.raises(InputError, match=rf"a\.mha: .*{says}") as caught:
        load(metaimage(tmp_path / "a.mha", **changes))
    assert caught.value.hint


@pytest.mark.parametrize("field", ["ElementSpacing", "TransformMatrix", "Offset"])
def test_missing_place_of_a_metaimage_is_said(
    tmp_path: Path, recorder: WarningRecorder, field: str
) -> None:
    path = metaimage(tmp_path / "a.mha", **{field: ""})
    load(path, modality="OT", monitor=recorder.monitor)
    (warning,) = recorder.warnings
    assert field in warning


def test_mhd_is_read_with_its_raw_file(tmp_path: Path, head: Volume) -> None:
    image = sitk.GetImageFromArray(head.voxels)
    image.SetSpacing(head.geometry.spacing)
    for name, packed in (("plain", False), ("packed", True)):
        sitk.WriteImage(image, str(tmp_path / f"{name}.mhd"), packed)
        back = load(tmp_path / f"{name}.mhd", modality="MR")
        assert np.array_equal(back.voxels, head.voxels)
        assert back.geometry.spacing == head.geometry.spacing


@pytest.mark.parametrize("target", ["/etc/hostname", "../a.raw", "LIST", "slice%03d.raw 1 4 1"])
def test_mhd_that_points_elsewhere_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(InputError, match="ElementDataFile") as caught:
        load(metaimage(tmp_path / "a.mhd", target))
    with pytest.raises(InputError, match="data file") as refused:
        load(nrrd(tmp_path / "a.nhdr", f"{LPS}\n{DIRECTIONS}\ndata file: {target}"))
    for error in (caught.value, refused.value):
        assert ("in several files" in error.message) is (".raw 1" in target or target == "LIST")


@pytest.mark.parametrize(
    ("stated", "modality", "units"),
    [
        ("MET_MOD_CT", "CT", "HU"), ("MET_MOD_MR", "MR", ""), ("MET_MOD_NM", "OT", ""),
        ("MET_MOD_US", "OT", ""), ("MET_MOD_OTHER", "OT", ""), ("PT", "PT", ""),
        ("MET_MOD_PET", "PT", ""),
    ],
)  # fmt: skip
def test_the_modality_of_a_metaimage_is_read_and_written(
    tmp_path: Path, recorder: WarningRecorder, stated: str, modality: str, units: str
) -> None:
    path = metaimage(tmp_path / "a.mha", Modality=stated)
    volume = load(path, monitor=recorder.monitor)
    assert (volume.modality, volume.units, volume.modality_is_guess) == (modality, units, False)
    assert not any("no known modality is stated" in text for text in recorder.warnings)
    save(volume, tmp_path / "b.mha")
    kept = stated if modality in ("CT", "MR") else "MET_MOD_OTHER"
    assert f"\nModality = {kept}\n".encode() in (tmp_path / "b.mha").read_bytes()
    assert sitk.ReadImage(str(tmp_path / "b.mha")).GetSize() == (6, 5, 4)


@pytest.mark.parametrize("word", ["UNKNOWN", "XX"])
def test_a_modality_that_is_unknown_is_named_and_guessed(
    tmp_path: Path, recorder: WarningRecorder, word: str
) -> None:
    path = metaimage(tmp_path / "c.mha", Modality=f"MET_MOD_{word}")
    assert load(path, monitor=recorder.monitor).modality_is_guess
    is_named = "c.mha: Modality is 'XX', which is unknown" in recorder.warnings
    assert is_named is (word == "XX")


def test_what_a_header_loses_is_named(tmp_path: Path, recorder: WarningRecorder) -> None:
    lines = (
        f"{LPS}\n{DIRECTIONS}\ncontent: knee\n# mine\nmeasurement frame: (0,1,0) (1,0,0) (0,0,1)"
    )
    paths = [
        nrrd(tmp_path / "a.nrrd", f"{lines}\nkey one:=1"),
        metaimage(tmp_path / "a.mha", Comment="mine", **{"0010|0010": "Doe"}),
    ]
    image = sitk.ReadImage(str(metaimage(tmp_path / "b.mha")))
    for name in ("b.nrrd", "b.mha"):
        sitk.WriteImage(image, str(tmp_path / name))
        paths.append(tmp_path / name)
    for path in paths:
        load(path, modality="OT", monitor=recorder.monitor)
    assert recorder.warnings == [
        "a.nrrd: not kept of its header: content, comments, measurement frame, key one",
        "a.mha: not kept of its header: Comment, 0010|0010",
    ]


NAMES = {0: ("liver", "1 0 0"), 1: ("tumor ü", "0 0.5 1")}


def segmentation(path: Path, layers: list[np.ndarray], **keys: str) -> Path:
    """A .seg.nrrd as 3D Slicer writes it, of one layer or of several; keys as Segment0_Layer."""
    voxels, is_one = np.stack(layers, -1), len(layers) == 1
    stated = {"Segmentation_ContainedRepresentationNames": "Binary labelmap|"}
    for number, (name, color) in NAMES.items():
        begin = f"Segment{number}_"
        stated |= {f"{begin}ID": f"S{number}", f"{begin}Name": name, f"{begin}Color": color}
        stated |= {f"{begin}LabelValue": f"{number + 1}", f"{begin}Extent": "0 1 0 1 0 1"}
    lines = "".join(f"\n{key}:={text}" for key, text in (stated | keys).items())
    space = f"space directions: {'' if is_one else 'none '}{DIAGONAL}\n{ORIGIN}\n"
    space += f"kinds: {'' if is_one else 'list '}domain domain domain"
    nrrd(path, f"{LPS}\n{space}{lines}", voxels.squeeze().T.shape, type="uchar")
    head = path.read_bytes().partition(b"\n\n")[0]
    path.write_bytes(head + b"\n\n" + voxels.astype(np.uint8).tobytes())
    return path


LABELS = np.zeros((4, 5, 6), np.uint8)
LABELS[1:3, 1:3, 1:3], LABELS[3, 3, 3:] = 1, 2


def test_names_and_colors_of_segments_survive_or_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    segmentation(tmp_path / "a.seg.nrrd", [LABELS])
    for command in (
        "convert a.seg.nrrd b.seg.nrrd",
        "compress a.seg.nrrd a.ucv --lossless",
        "decompress a.ucv c.nrrd",
    ):
        assert main(command.split()) == 0
    assert "warning" not in capsys.readouterr().err
    for name in ("b.seg.nrrd", "c.nrrd"):
        image, volume = sitk.ReadImage(str(tmp_path / name)), load(tmp_path / name)
        assert np.array_equal(volume.voxels, LABELS)
        assert (volume.modality, volume.modality_is_guess) == ("SEG", False)
        for number, (segment, color) in NAMES.items():
            assert image.GetMetaData(f"Segment{number}_Name") == segment
            assert image.GetMetaData(f"Segment{number}_Color") == color
            assert image.GetMetaData(f"Segment{number}_LabelValue") == f"{number + 1}"
            assert image.GetMetaData(f"Segment{number}_Extent") == "0 5 0 4 0 3"
    for output in ("d.nii.gz", "d.mha", "d --dicom --patient-id P"):
        assert main(["convert", "a.seg.nrrd", *output.split()]) == 0
        said = capsys.readouterr().err
        assert "names and colors of segments are not kept" in said
        assert "liver, tumor ü" in said


@pytest.mark.parametrize("keys", [{"LabelValue": "1"}, {}])
def test_layers_of_segments_are_labels_and_no_frames(
    tmp_path: Path, recorder: WarningRecorder, keys: dict[str, str]
) -> None:
    layers = [LABELS == 1, (LABELS == 2) * (1 if keys else 2)]
    stated = {f"Segment1_{key}": text for key, text in keys.items()}
    path = segmentation(tmp_path / "a.seg.nrrd", layers, Segment1_Layer="1", **stated)
    volume = load(path, monitor=recorder.monitor)
    assert np.array_equal(volume.voxels, LABELS)
    assert "2 layers joined to one label map: 1 = liver, 2 = tumor ü" in recorder.warnings[0]
    save(volume, tmp_path / "b.seg.nrrd")
    values = [load(tmp_path / "b.seg.nrrd").header_fields[f"Segment{n}_LabelValue"] for n in NAMES]
    assert values == ["1", "2"]
    layers[0] = layers[0] | (LABELS == 2)
    with pytest.raises(InputError, match="segments that overlap") as caught:
        load(segmentation(path, layers, Segment1_Layer="1", **stated))
    assert caught.value.hint


def test_one_layer_of_segments_is_joined_in_silence_or_refused(
    tmp_path: Path, recorder: WarningRecorder
) -> None:
    def one_layer(**keys: str) -> Path:
        path = segmentation(tmp_path / "a.seg.nrrd", [LABELS], Segment1_Layer="0", **keys)
        axes = {
            b"dimension: 3": b"dimension: 4",
            b"sizes: ": b"sizes: 1 ",
            b"kinds:": b"kinds: list",
        }
        axes[b"directions: "] = b"directions: none "
        data = path.read_bytes()
        for before, after in axes.items():
            data = data.replace(before, after, 1)
        path.write_bytes(data)
        return path

    volume = load(one_layer(Segment0_Layer="0"), monitor=recorder.monitor)
    assert np.array_equal(volume.voxels, LABELS)
    assert not recorder.warnings
    with pytest.raises(InputError, match="segments that overlap"):
        load(one_layer(Segment0_Layer="0", Segment1_LabelValue="1"))


@pytest.mark.parametrize("color", ["1.5 nan -2", "red", "1 0", "0.1 0.2 0.3 0.4"])
def test_a_color_that_is_none_and_line_feeds_of_names_stay_out_of_results_and_warnings(
    tmp_path: Path, recorder: WarningRecorder, color: str
) -> None:
    keys = {"Segment0_Color": color, "Segment1_Color": "0.25 1e-05 1.0", "Segment0_Name": "a\\nb"}
    layers = [LABELS == 1, LABELS == 2]
    stated = {"Segment1_Layer": "1", "Segment1_LabelValue": "1"}
    path = segmentation(tmp_path / "a.seg.nrrd", layers, **keys, **stated)
    volume = load(path, monitor=recorder.monitor)
    assert "Segment0_Color" not in volume.header_fields
    assert volume.header_fields["Segment1_Color"] == "0.25 1e-05 1.0"
    save(volume, tmp_path / "b.nii", monitor=recorder.monitor)
    save(volume, tmp_path / "c.nrrd", monitor=recorder.monitor)
    assert load(tmp_path / "c.nrrd").header_fields["Segment0_Name"] == "a\nb"
    assert recorder.warnings[0] == "a.seg.nrrd: not kept of its header: Segment0_Color"
    assert ["a\\nb" in text for text in recorder.warnings] == [False, True, True]


def test_geometry_edited_by_another_program_wins_over_ours(tmp_path: Path, ct: Volume) -> None:
    for ending, field in ((".nrrd", b"space origin: (-12.5,"), (".mha", b"Offset = -12.5 ")):
        path = tmp_path / f"a{ending}"
        save(ct, path)
        data = path.read_bytes()
        assert field in data
        path.write_bytes(data.replace(field, field.replace(b"-12.5", b"-13.5")))
        assert load(path).geometry.origin[0] == -13.5
