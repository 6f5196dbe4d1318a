"""The tables .bval and .bvec beside a NIfTI file: read, checked, and written beside results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from Library.conftest import WarningRecorder

from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.diffusion_gradients import Gradient, fsl_tables
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io import load, save
from MedEnhanceLib.jobs import JobSpec, run_job

B_VALUES, DIRECTIONS = "0 1000 1000 995\n", "0 1 0 0.6\n0 0 1 0\n0 0 0 0.8\n"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a scan of four frames as another program does, with both tables beside it."""

    def written(
        name: str = "dwi.nii.gz",
        tables: dict[str, str] | None = None,
        affine: tuple[float, ...] = (-2, 2, 3, 1),
    ) -> Path:
        rng = np.random.default_rng(3)
        frames = np.stack([rng.integers(0, 900 - 90 * t, (5, 6, 4)) for t in range(4)], -1)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(frames.astype(np.int16), np.diag(affine)), path)
        for table, text in (tables or {"dwi.bval": B_VALUES, "dwi.bvec": DIRECTIONS}).items():
            (tmp_path / table).write_text(text)
        return path

    return written


def numbers(path: Path) -> list[list[float]]:
    return [[*map(float, line.split())] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "command",
    [
        "enhance dwi.nii.gz new.nii.gz --modality MR",
        "convert dwi.nii.gz new.nii --modality MR",
        "degrade dwi.nii.gz new.nii.gz --rician 0.05 --modality MR",
        "batch enhance dwi.nii.gz --out out --modality MR",
        "compress dwi.nii.gz dwi.ucv --lossless; decompress dwi.ucv new.nii.gz",
        "convert dwi.nii.gz dwi.nrrd --modality MR; convert dwi.nrrd new.nii.gz",
    ],
)
def test_tables_of_another_program_lie_beside_each_result(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    write()
    monkeypatch.chdir(tmp_path)
    for step in command.split("; "):
        assert main(step.split()) == 0
    (table,) = [*tmp_path.glob("new.bval"), *tmp_path.glob("out/dwi.bval")]
    assert numbers(table) == numbers(tmp_path / "dwi.bval")
    assert numbers(table.with_suffix(".bvec")) == numbers(tmp_path / "dwi.bvec")


@pytest.mark.parametrize("sign", [-1, 1])
def test_directions_are_along_the_image_and_mirrored_by_handedness(write: Write, sign: int) -> None:
    gradients = load(write(affine=(2 * sign, 2, 3, 1)), modality="MR").gradients
    assert gradients[:3] == (
        Gradient(0), Gradient(1000, (1, 0, 0)), Gradient(1000, (0, -1, 0))
    )  # fmt: skip
    assert gradients[3].direction == (0.6, 0, 0.8)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_any_direction_comes_back_bit_for_bit(
    tmp_path: Path, oblique_geometry: Geometry, rng: np.random.Generator, ending: str
) -> None:
    vectors = rng.normal(size=(7, 3))
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    gradients = tuple(Gradient(1234.5678 + n, tuple(row)) for n, row in enumerate(vectors.tolist()))
    volume = Volume(np.zeros((7, 2, 3, 4), np.int16), oblique_geometry, "MR", gradients=gradients)
    save(volume, tmp_path / f"a{ending}")
    assert load(tmp_path / f"a{ending}").gradients == gradients
    upright = Geometry((1.0, 2.0, 3.0), (0.0, 0.0, 0.0), ((0, 1, 0), (1, 0, 0), (0, 0, -1)))
    path = tmp_path / "tables.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2, 7), np.int16), upright.affine_ras), path)
    for kind, text in fsl_tables(gradients, upright).items():
        path.with_suffix(kind).write_text(text)
    assert load(path, modality="MR").gradients == gradients


@pytest.mark.parametrize(
    ("name", "b_values", "directions"),
    [
        ("dwi.nii.gz", "dwi.bvals", "dwi.bvecs"),
        ("dwi.nii", "dwi.bval", "dwi.bvecs"),
        ("data.nii.gz", "bvals", "bvecs"),
    ],
)
@pytest.mark.parametrize("are_columns", [False, True])
def test_other_names_columns_and_line_ends_are_read(
    write: Write, name: str, b_values: str, directions: str, are_columns: bool
) -> None:
    rows = [line.split() for line in DIRECTIONS.splitlines()]
    columns = "".join(" ".join(row) + "\r\n" for row in zip(*rows, strict=True))
    tables = {
        b_values: "\ufeff" + B_VALUES.replace(" ", "\t") + "\r\n",
        directions: columns if are_columns else DIRECTIONS,
    }
    gradients = load(write(name, tables), modality="MR").gradients
    assert [gradient.b_value for gradient in gradients] == [0, 1000, 1000, 995]
    assert gradients[3].direction == (0.6, 0, 0.8)


@pytest.mark.parametrize(
    ("b_values", "directions"),
    [
        (B_VALUES.replace(" ", ",\t"), DIRECTIONS.replace(" ", ", ").replace("\n", ",\n")),
        (B_VALUES.replace(" ", "; "), DIRECTIONS.replace(" ", ";")),
        ("0\r\n1e3\r\n1000.0\r\n995\r\n", DIRECTIONS.replace("\n", "\r\n")),
        (B_VALUES, DIRECTIONS.replace("0 1 0 0.6", "nan 1 0 0.6")),
        (B_VALUES.replace("0 1", "5 1", 1), "NaN NaN NaN\n1 0 0\n0 1 0\n0.6 0 0.8\n"),
    ],
)
def test_separators_and_nan_without_weighting_are_read(
    write: Write, recorder: WarningRecorder, b_values: str, directions: str
) -> None:
    path = write(tables={"dwi.bval": b_values, "dwi.bvec": directions})
    gradients = load(path, modality="MR", monitor=recorder.monitor).gradients
    assert [each.direction for each in gradients] == [
        (0, 0, 0),
        (1, 0, 0),
        (0, -1, 0),
        (0.6, 0, 0.8),
    ]
    assert not [text for text in recorder.warnings if "bval" in text]


_COUNTS = "not 4 b-values of at least 0 and 4 directions"


@pytest.mark.parametrize(
    ("b_values", "directions", "reason"),
    [
        (B_VALUES.replace("995", "[995"), DIRECTIONS, "not numbers: '[995'"),
        (B_VALUES, DIRECTIONS.replace("0.8", "x"), "not numbers: 'x'"),
        ("\udcff", DIRECTIONS, "not numbers: '\ufffd'"),
        (B_VALUES, DIRECTIONS.replace(".", ","), "the comma in 0,6 separates two numbers"),
        (B_VALUES.replace("995", "9,5"), DIRECTIONS, "the comma in 9,5 separates two numbers"),
        ("0 1000 1000\n", DIRECTIONS, _COUNTS),
        (B_VALUES, "0 1 0\n0 0 1\n0 0 0\n", _COUNTS),
        (B_VALUES, "0 1 0 0\n0 0 1\n0 0 0 1\n", _COUNTS),
        (B_VALUES, "0 1 0 0.6\n0 0 1 0\n", ""),
        (B_VALUES, DIRECTIONS.replace("0.8", "8"), ""),
        (B_VALUES, DIRECTIONS.replace("0.8", "nan"), ""),
        (B_VALUES.replace("995", "nan"), DIRECTIONS, ""),
        (B_VALUES, "0 0 0 0 0 1 0 1 0 0 1 0", ""),  # in one line
        (B_VALUES, "", ""),
        (B_VALUES.replace("995", "-995"), DIRECTIONS, ""),
        (B_VALUES.replace("995", "inf"), DIRECTIONS, ""),
        (B_VALUES.replace("995", "b=995"), DIRECTIONS, ""),
        (B_VALUES, None, ""),
        (None, DIRECTIONS, ""),
    ],
)
def test_wrong_tables_are_named_with_the_text_at_fault_and_stay_behind(
    write: Write,
    recorder: WarningRecorder,
    tmp_path: Path,
    b_values: str | None,
    directions: str | None,
    reason: str,
) -> None:
    path = write()
    for kind, text in (("bval", b_values), ("bvec", directions)):
        path.with_name(f"dwi.{kind}").unlink()
        if text is not None:
            path.with_name(f"dwi.{kind}").write_text(text, errors="surrogateescape")
    assert load(path, modality="MR", monitor=recorder.monitor).gradients == ()
    (warning,) = (text for text in recorder.warnings if "not read" in text)
    if b_values and directions is not None:
        says = "dwi.bval and dwi.bvec: not read, and not written beside results: "
        assert f"{says}{reason}" in warning
        assert ("NaN" in warning) is ("nan" in b_values + directions)
    run_job(JobSpec("convert", {"input": str(path), "output": str(tmp_path / "new.nii")}))
    assert not [*tmp_path.glob("new.bv*")]


def test_tables_that_another_program_turned_count_before_the_header(
    write: Write, tmp_path: Path
) -> None:
    save(load(write(), modality="MR"), tmp_path / "ours.nii")
    (tmp_path / "ours.bvec").write_text(DIRECTIONS.replace("0.6", "-0.6"))
    assert load(tmp_path / "ours.nii").gradients[3].direction == (-0.6, 0, 0.8)
    for kind in ("bval", "bvec"):
        (tmp_path / f"ours.{kind}").unlink()
    assert load(tmp_path / "ours.nii").gradients[3].direction == (0.6, 0, 0.8)


def test_the_tables_of_the_input_serve_a_result_of_the_same_name(
    write: Write, tmp_path: Path
) -> None:
    path, target = write("dwi.nii"), tmp_path / "dwi.nii.gz"
    run_job(JobSpec("convert", {"input": str(path), "output": str(target), "modality": "MR"}))
    assert (tmp_path / "dwi.bvec").read_text() == DIRECTIONS
    assert load(target).gradients == load(path, modality="MR").gradients
    target.unlink()
    (tmp_path / "dwi.bvec").write_text(DIRECTIONS.replace("0.6", "-0.6"))
    with pytest.raises(OutputError, match=r"dwi\.bval exists already"):
        save(replace(load(path, modality="MR"), gradients=(Gradient(7),) * 4), target)


def test_one_frame_keeps_its_gradient_in_every_format(write: Write, tmp_path: Path) -> None:
    frame = load(write(), modality="MR").frame(3)
    save(frame, tmp_path / "one.nii.gz")
    assert numbers(tmp_path / "one.bval") == [[995]]
    assert numbers(tmp_path / "one.bvec") == [[0.6], [0], [0.8]]
    params = {"input": str(tmp_path / "one.nii.gz"), "output": str(tmp_path / "one.ucv")}
    run_job(JobSpec("compress", params | {"config": {"lossless": True}}))
    assert load(tmp_path / "one.ucv").gradients == frame.gradients


def test_labels_of_a_diffusion_image_have_no_tables(write: Write, tmp_path: Path) -> None:
    labels = replace(load(write(), modality="MR").frame(3), modality="SEG")
    save(labels, tmp_path / "labels.nii.gz")
    assert not [*tmp_path.glob("labels.bv*")]


def test_gradients_of_too_many_frames_are_named_where_they_are_lost(
    tmp_path: Path, recorder: WarningRecorder
) -> None:
    many = (Gradient(1000, (0.0, 0.6, 0.8)),) * 301
    volume = Volume(np.zeros((301, 1, 1, 2), np.uint8), modality="MR", gradients=many)
    save(volume, tmp_path / "a.nii", monitor=recorder.monitor)
    assert load(tmp_path / "a.nii").gradients == many
    assert not recorder.warnings
    for name in ("a.nrrd", "a.mha"):
        recorder = WarningRecorder()
        save(volume, tmp_path / name, monitor=recorder.monitor)
        assert recorder.warnings == ["NIfTI alone keeps the b-values of over 300 frames"]


def test_a_batch_knows_tables_of_every_name_and_follows_their_change(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("scans/data.nii.gz", {"scans/bvals": B_VALUES, "scans/bvecs": DIRECTIONS})
    command = ["batch", "enhance", str(tmp_path / "scans"), "--out", str(tmp_path / "out")]
    command += ["--modality", "MR", "--strength", "0"]
    for changed, before in (("", 0), ("", 1), (DIRECTIONS.replace("0.6", "-0.6"), 0)):
        if changed:
            (tmp_path / "scans/bvecs").write_text(changed)
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert f"1 of 1 done ({before} of them before)" in out
        assert "left out" not in err
    assert numbers(tmp_path / "out/data.bvec")[0][3] == -0.6
