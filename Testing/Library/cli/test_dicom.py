"""DICOM through the command line: series listed and chosen, derived objects out, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.conftest import MR
from Library.dicom.reading import edited
from pydicom import dcmread

import MedEnhanceLib as me  # noqa: N813 - as everybody calls it
from MedEnhanceLib import io

Run = Callable[..., Any]


def objects(folder: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.iterdir()):
        dataset = dcmread(path)
        found.setdefault(dataset.Modality, []).append(dataset)
    return found


class TestTimePoints:
    """A series of 4 time points of 5 slices, whose voxels are 100 × time + place."""

    @pytest.fixture
    def series(self, make_series: Callable[..., Path]) -> Path:
        return make_series(
            np.array([np.full((3, 4), 100 * t + k, np.uint16) for t in range(4) for k in range(5)]),
            positions=[(0.0, 0.0, 2.0 * k) for _ in range(4) for k in range(5)],
            slice_elements=lambda n: {"TemporalPositionIdentifier": n // 5 + 1},
            **MR,
        )

    @pytest.mark.parametrize("source", ["series", "scan.nii.gz"])
    @pytest.mark.parametrize(
        ("region", "times", "places"),
        [
            ("2:3,:,:,:", (2, 3), (0, 5)),
            ("1:3", (1, 3), (0, 5)),
            ("-1:", (3, 4), (0, 5)),
            ("2:4,1:3", (2, 4), (1, 3)),
            ("0:1,4:", (0, 1), (4, 5)),
            (":,1:4,:,:", (0, 4), (1, 4)),
        ],
    )
    def test_a_part_of_a_container_is_written_beside_its_own_images(
        self, run: Run, series: Path, tmp_path: Path, source: str, region: str,
        times: tuple[int, int], places: tuple[int, int],
    ) -> None:  # fmt: skip
        if source != "series":
            assert run("convert", series, tmp_path / source).status == 0
        assert run("compress", tmp_path / source, tmp_path / "a.ucv", "--lossless").status == 0
        options = ("--dicom", "--dicom-source", series, f"--region={region}")
        ran = run("decompress", tmp_path / "a.ucv", tmp_path / "out", *options)
        assert ran.status == 0, ran.err
        images = objects(tmp_path / "out")["MR"]
        expected = [(t, k) for t in range(*times) for k in range(*places)]
        assert [image.pixel_array[0, 0] for image in images] == [100 * t + k for t, k in expected]
        assert [image.TemporalPositionIdentifier for image in images] == [
            t + 1 for t, _ in expected
        ]
        uids = {path.SOPInstanceUID: path for path in map(dcmread, series.iterdir())}
        for image, (t, k) in zip(images, expected, strict=True):
            (reference,) = image.SourceImageSequence
            behind = uids[reference.ReferencedSOPInstanceUID]
            assert behind.TemporalPositionIdentifier == t + 1
            assert behind.ImagePositionPatient == image.ImagePositionPatient == [0, 0, 2 * k]

    def test_a_frame_that_python_took_knows_its_time(self, series: Path, tmp_path: Path) -> None:
        me.compress(me.load(series), tmp_path / "a.ucv", lossless=True)
        part = me.decompress(tmp_path / "a.ucv", region=(slice(1, 4),)).frame(1)
        me.save_dicom(part, tmp_path / "out", dicom_source=series)
        (one, *_) = objects(tmp_path / "out")["MR"]
        assert one.TemporalPositionIdentifier == 3


class TestSeveralSeries:
    def test_inspect_shows_them_in_a_table(self, run: Run, two: Path) -> None:
        ran = run("inspect", two)
        assert ran.status == 0
        lines = ran.out.splitlines()
        assert "modality" in lines[0]
        assert lines[0].split()[:3] == ["series", "modality", "number"]
        assert lines[2].split()[:5] == ["1", "MR", "1", "T1", "24×20×4"]
        assert lines[3].split()[:5] == ["2", "CT", "2", "axial", "12×10×3"]
        assert f"medenhance inspect {two} --series 1" in ran.out

    def test_a_derived_series_with_a_long_name_is_not_listed_as_its_source(
        self, run: Run, mr: Path, tmp_path: Path
    ) -> None:
        for path in mr.iterdir():
            header = dcmread(path)
            header.SeriesDescription = f"a_long_word{'_' * 53}"
            header.save_as(path)
        ran = run("convert", mr, tmp_path / "derived", "--dicom")
        assert ran.status == 0
        assert f"manifest: {tmp_path / 'derived.json'}" in ran.out
        (tmp_path / "derived").rename(mr / "derived")
        lines = run("inspect", mr).out.splitlines()
        assert "a_long_word…____________ " in lines[2]
        assert "a_long_word…ce converted " in lines[3]

    def test_other_commands_list_them_and_say_how_to_choose(
        self, run: Run, two: Path, tmp_path: Path
    ) -> None:
        ran = run("convert", two, tmp_path / "out.nrrd")
        assert ran.status == 3
        assert "  1: MR" in ran.err
        assert "--series" in ran.err
        assert run("convert", two, tmp_path / "out.nrrd", "--series", "9").status == 3
        assert not (tmp_path / "out.nrrd").exists()
        assert run("convert", two, tmp_path / "out.nrrd", "--series", "1.2.3.2").status == 0
        assert io.load(tmp_path / "out.nrrd").shape == (3, 10, 12)


class TestOut:
    @pytest.mark.slow
    def test_all_of_an_enhancement_goes_into_one_study(
        self, run: Run, mr: Path, tmp_path: Path, networks: list
    ) -> None:
        out = tmp_path / "out"
        ran = run(
            "enhance", mr, out, "--dicom", "--uncertainty", "--segment", "--json",
            "--report", tmp_path / "page",
        )  # fmt: skip
        assert ran.status == 0, ran.err
        found = objects(out)
        assert sorted(found) == ["MR", "OT", "SEG"]
        everything = [dataset for some in found.values() for dataset in some]
        assert {one.StudyInstanceUID for one in everything} == {"1.2.3"}
        assert {str(one.PatientName) for one in everything} == {"Doe^Jane"}
        assert {tuple(one.ImageType[:2]) for one in found["MR"]} == {("DERIVED", "SECONDARY")}
        assert len({one.SeriesInstanceUID for one in everything} | {"1.2.3.1"}) == 4
        images = {one.SOPInstanceUID for one in found["MR"]}
        of_labels = found["SEG"][0].ReferencedSeriesSequence[0]
        assert of_labels.SeriesInstanceUID == found["MR"][0].SeriesInstanceUID
        referred = of_labels.ReferencedInstanceSequence
        assert {one.ReferencedSOPInstanceUID for one in referred} <= images
        assert (tmp_path / "page" / "index.html").is_file()
        reported = ran.json
        assert reported["study_uid"] == "1.2.3"
        assert reported["series_uid"] == found["MR"][0].SeriesInstanceUID
        assert sorted(reported["files"]) == sorted(map(str, out.iterdir()))
        assert [row["role"] for row in reported["objects"]] == [
            "volume", "uncertainty", "segmentation",
        ]  # fmt: skip
        back = io.load(out)
        assert back.history[0].startswith("DERIVED: enhanced")

    def test_the_manifest_names_the_series_and_nobody(
        self, run: Run, mr: Path, tmp_path: Path, networks: list
    ) -> None:
        for dataset in edited(mr):
            dataset.SeriesDescription = "Doe T1"
        ran = run(
            "enhance", mr, tmp_path / "out", "--dicom", "--report", tmp_path / "page", "--json"
        )
        assert ran.json["objects"][0]["description"] == "Doe T1 MedEnhance enhanced"
        assert "Doe" not in (tmp_path / "page" / "index.html").read_text()
        text = (tmp_path / "out.json").read_text()
        assert json.loads(text)["results"]["objects"][0]["role"] == "volume"
        assert json.loads(text)["dicom"] == {"study": "1.2.3", "series": "1.2.3.1", "files": 4}
        assert "Doe" not in text
        assert "P-17" not in text

    @pytest.mark.parametrize("options", [["."], ["{}", "--dicom", "--dicom-source", "."]])
    def test_the_name_of_the_present_folder_stays_out_of_manifests(
        self,
        run: Run,
        mr: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        options: list[str],
    ) -> None:
        folder = mr.rename(tmp_path / "Jane")
        for dataset in edited(folder):
            dataset.BurnedInAnnotation = "YES"
        scan = tmp_path / "scan.nii.gz"
        assert run("convert", folder, scan).status == 0
        monkeypatch.chdir(folder)
        source, *more = [option.format(scan) for option in options]
        out = tmp_path / ("out" if more else "out.nrrd")
        assert run("convert", source, out, *more).status == 0
        text = Path(f"{out}.json").read_text()
        assert "BurnedInAnnotation is YES" in text
        assert "Jane" not in text

    def test_what_was_compressed_says_so_and_lies_beside_its_source(
        self, run: Run, mr: Path, tmp_path: Path
    ) -> None:
        small = tmp_path / "small.ucv"
        assert run("compress", mr, small, "--max-error", "20").status == 0
        assert run("decompress", small, tmp_path / "out", "--dicom").status == 3
        ran = run("decompress", small, tmp_path / "out", "--dicom", "--dicom-source", mr)
        assert ran.status == 0, ran.err
        known = json.loads((tmp_path / "out.json").read_text())["dicom"]
        assert known == {"study": "1.2.3", "series": "1.2.3.1"}  # not how many files it had
        images = objects(tmp_path / "out")["MR"]
        assert {one.LossyImageCompression for one in images} == {"01"}
        assert images[0].LossyImageCompressionMethod == "MEDENHANCE_UCV"
        sources = {one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in images}
        assert sources == {f"1.2.3.1.{k + 1}" for k in range(4)}

    def test_another_format_goes_back_to_its_series(
        self, run: Run, two: Path, tmp_path: Path
    ) -> None:
        assert run("convert", two, tmp_path / "scan.nii.gz", "--series", "1").status == 0
        back = ("convert", tmp_path / "scan.nii.gz", tmp_path / "out", "--dicom")
        ran = run(*back, "--dicom-source", two)
        assert ran.status == 3
        assert "--dicom-source-series" in ran.err
        ran = run(*back, "--dicom-source", two, "--dicom-source-series", "1")
        assert ran.status == 0, ran.err
        assert io.load(tmp_path / "out").is_equal(io.load(two, series="1"))

    def test_another_series_than_the_manifest_names_is_a_warning(
        self, run: Run, two: Path, tmp_path: Path
    ) -> None:
        scan, sidecar = tmp_path / "ct.nii.gz", tmp_path / "ct.nii.gz.json"
        assert run("convert", two, scan, "--series", "2").status == 0

        def back(name: str, series: str) -> Any:
            beside = ("--dicom-source", two, "--dicom-source-series", series, "--modality", "CT")
            return run("convert", scan, tmp_path / name, "--dicom", *beside)

        ran = back("out", "1")
        assert ran.status == 0, ran.err
        assert "was made from the series 1.2.3.2" in ran.err
        assert "ct.nii.gz is CT" in ran.err
        assert "written beside is MR" in ran.err
        manifest = json.loads(sidecar.read_text())
        manifest["dicom"]["study"] = "1.2.99"
        sidecar.write_text(json.dumps(manifest))
        ran = back("out1", "2")
        assert ran.status == 3
        assert "the wrong patient" in ran.err
        assert not (tmp_path / "out1").exists()
        sidecar.write_text("[")  # no matter what lies there
        ran = back("out2", "2")
        assert ran.status == 0, ran.err
        assert "warning" not in ran.err

    def test_what_never_was_dicom_needs_a_patient(
        self, run: Run, scan: Path, tmp_path: Path
    ) -> None:
        ran = run("convert", scan, tmp_path / "out", "--dicom")
        assert ran.status == 3
        assert "--dicom-source" in ran.err
        assert "--patient-id" in ran.err
        ran = run(
            "convert", scan, tmp_path / "out", "--dicom", "--patient-id", "X1",
            "--patient-name", "Roe^Ann", "--series-description", "my brain",
        )  # fmt: skip
        assert ran.status == 0, ran.err
        (first, *_) = objects(tmp_path / "out")["MR"]
        assert (first.PatientID, str(first.PatientName)) == ("X1", "Roe^Ann")
        assert first.SeriesDescription == "my brain"
        assert np.array_equal(io.load(tmp_path / "out").voxels, io.load(scan).voxels)


class TestResampled:
    """A tilted, uneven series: all that is made of it says that it was resampled."""

    @staticmethod
    def _refuse_silence(folder: Path) -> None:
        for image in (one for some in objects(folder).values() for one in some):
            assert "DERIVED: resampled" in image.DerivationDescription, image.Modality
            assert "113085" in [code.CodeValue for code in image.DerivationCodeSequence]
            assert "Jane" not in str(image)

    def test_its_copy_and_what_is_made_of_that(
        self, run: Run, make_series: Callable, tmp_path: Path
    ) -> None:
        places = [(0.0, 0.4 * mm, mm) for mm in (0.0, 2.0, 4.0, 7.0, 8.0, 10.0)]
        named = {"prefix": "Doe_Jane_", "FrameOfReferenceUID": "1.2.3.99"}
        uneven = make_series((6, 20, 24), positions=places, **named, **MR)
        ran = run("convert", uneven, tmp_path / "out", "--dicom", "--resample")
        assert ran.status == 0, ran.err
        self._refuse_silence(tmp_path / "out")
        assert run("convert", tmp_path / "out", tmp_path / "next", "--dicom").status == 0
        self._refuse_silence(tmp_path / "next")
        assert run("convert", tmp_path / "next", tmp_path / "last", "--dicom").status == 0
        history = io.load(tmp_path / "last").history
        assert [step.startswith("DERIVED: resampled") for step in history] == [True, *[False] * 3]


class TestRefused:
    @pytest.mark.parametrize(
        ("command", "output", "options", "status", "words"),
        [
            ("convert", "out.nii.gz", (), 1, "DICOM goes into a folder"),
            ("convert", "out", ("--patient-id", "X1"), 2, "states its patient"),
            ("enhance", "out", ("--segment", "a.nrrd"), 2, "--segment"),
            ("enhance", "out", ("--patient-id", "X1"), 2, "states its patient"),
            ("enhance", "out", ("--patient-id", "X" * 65), 3, "which DICOM cannot hold"),
            ("enhance scan.nii.gz", "out", (), 3, "scan.nii.gz: no patient information"),
            ("decompress scan.ucv", "out", (), 3, "scan.ucv: no patient information"),
            *(
                (command, "out", ("--dicom-source", "no"), 3, "no does not exist")
                for command in ("segment scan.nii.gz", "convert scan.nii.gz", "decompress scan.ucv")
            ),
        ],
    )
    def test_what_cannot_be_of_a_series_is_refused_before_it_is_read(
        self,
        run: Run,
        monkeypatch: pytest.MonkeyPatch,
        mr: Path,
        tmp_path: Path,
        command: str,
        output: str,
        options: tuple[str, ...],
        status: int,
        words: str,
    ) -> None:
        monkeypatch.setattr("MedEnhanceLib.io.volume_files.load", None)
        command, _, name = command.partition(" ")
        (tmp_path / (name or "scan.nii")).write_bytes(b"never read")
        given = tmp_path / name if name else mr
        ran = run(command, given, tmp_path / output, "--dicom", *options)
        assert (ran.status, words in ran.err) == (status, True)

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

    def test_a_sequence_with_its_uncertainty_before_it_is_enhanced(
        self, run: Run, scan: Path, tmp_path: Path, networks: list
    ) -> None:
        volume = io.load(scan, modality="MR")
        io.save(volume.with_voxels(np.stack([volume.voxels] * 2)), tmp_path / "cine.nrrd")
        options = ("--dicom", "--patient-id", "X1", "--uncertainty")
        ran = run("enhance", tmp_path / "cine.nrrd", tmp_path / "out", *options)
        assert (ran.status, "a sequence of 2 frames" in ran.err) == (3, True), ran.err
        assert not networks and not (tmp_path / "out").exists()

    def test_another_patients_series_for_one_that_is_known(
        self,
        run: Run,
        mr: Path,
        make_series: Callable,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        patient = {"uid": "1.2.9.1", "StudyInstanceUID": "1.2.9", "PatientName": "Roe^Ann"}
        other = make_series((4, 20, 24), folder=tmp_path / "other", **patient)
        small = tmp_path / "small.ucv"
        assert run("compress", mr, small, "--lossless").status == 0
        monkeypatch.setattr("MedEnhanceLib.unicompress.decode.sound_blocks", None)
        for command, source in (("convert", mr), ("decompress", small)):
            ran = run(command, source, tmp_path / "out", "--dicom", "--dicom-source", other)
            assert ran.status == 3, ran.err
            assert "wrong patient" in ran.err
            assert not (tmp_path / "out").exists()
