"""DICOM that is not written: among originals, for the wrong patient, over what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = Callable[..., Any]


class TestRefused:
    def test_a_file_name_for_a_folder(self, run: Run, mr: Path, tmp_path: Path) -> None:
        ran = run("convert", mr, tmp_path / "out.nii.gz", "--dicom")
        assert ran.status == 1
        assert "DICOM goes into a folder" in ran.err

    def test_a_folder_that_holds_something(self, run: Run, mr: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        for force in ([], ["--force"]):
            assert "holds mine.txt" in run("convert", mr, tmp_path / "out", "--dicom", *force).err
        assert (tmp_path / "out" / "mine.txt").read_text() == "mine"

    @pytest.mark.parametrize("place", ["", "below", ".."])
    def test_a_folder_of_originals(self, run: Run, mr: Path, tmp_path: Path, place: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        ran = run("convert", mr, mr / place, "--dicom", "--force")
        assert ran.status == 1
        assert "among the originals" in ran.err
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize("source", ["a file", "a directory", "a list"])
    @pytest.mark.parametrize("place", [".", "below"])
    def test_a_folder_of_originals_that_were_named_otherwise(
        self, run: Run, mr: Path, tmp_path: Path, source: str, place: str
    ) -> None:
        names = {"a file": mr / "001.dcm", "a directory": mr / "DICOMDIR", "a list": None}
        given = names[source] or tmp_path / "elsewhere" / "files.txt"
        if source == "a directory":
            given.write_bytes(b"no matter what")  # the images beside it are found all the same
        if source == "a list":
            given.parent.mkdir()
            given.write_text("\n".join(map(str, sorted(mr.glob("*.dcm")))))
        before = sorted(tmp_path.rglob("*"))
        ran = run("convert", given, mr / place, "--dicom", "--force")
        assert ran.status == 1, ran.err
        assert "among the originals" in ran.err or "holds 001.dcm" in ran.err
        assert sorted(tmp_path.rglob("*")) == before

    def test_another_patients_series_for_one_that_is_known(
        self, run: Run, mr: Path, make_series: Callable, rng: np.random.Generator, tmp_path: Path
    ) -> None:
        other = make_series(
            rng.integers(0, 1000, (4, 20, 24), dtype=np.uint16),
            folder=tmp_path / "other",
            uid="1.2.9.1",
            StudyInstanceUID="1.2.9",
            PatientName="Roe^Ann",
        )
        small = tmp_path / "small.ucv"
        assert run("compress", mr, small, "--lossless").status == 0
        for command, source in (("convert", mr), ("decompress", small)):
            ran = run(command, source, tmp_path / "out", "--dicom", "--like", other)
            assert ran.status == 3, ran.err
            assert "wrong patient" in ran.err
            assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--like", "a"], "like without dicom"),
            (["--dicom", "--like-series", "2"], "--like-series without --like"),
            (["--dicom", "--like", "a", "--patient-id", "b"], "knows its own"),
        ],
    )
    def test_options_that_mean_nothing_together(
        self, run: Run, scan: Path, tmp_path: Path, options: list[str], words: str
    ) -> None:
        ran = run("convert", scan, tmp_path / "out", *options)
        assert ran.status == 2
        assert words in ran.err

    def test_a_patient_for_a_series_that_has_one(self, run: Run, mr: Path, tmp_path: Path) -> None:
        ran = run("convert", mr, tmp_path / "out", "--dicom", "--patient-id", "X1")
        assert ran.status == 2
        assert "knows its patient" in ran.err

    def test_files_for_what_goes_into_the_folder(self, run: Run, mr: Path, tmp_path: Path) -> None:
        ran = run("enhance", mr, tmp_path / "out", "--dicom", "--segment", tmp_path / "a.nrrd")
        assert ran.status == 2
        assert "--segment" in ran.err
