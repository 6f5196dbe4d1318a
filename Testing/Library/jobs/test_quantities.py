"""Phase, maps and labels that are given as images, and modalities that values do not decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from Library.conftest import MR, Make
from Library.denoise.conftest import brain
from Library.dicom.images import enhanced_mr
from Library.dicom.reading import loaded
from Library.scanner_model import write_scanner_model

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.modality import likely_modalities
from MedEnhanceLib.core.quantity import quantity_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError, ModelError
from MedEnhanceLib.io.dicomout.derivation import with_elements
from MedEnhanceLib.jobs import JobSpec, run_job

_SHAPE = (8, 40, 48)
_NOISE = np.random.default_rng(7)


def _image() -> Voxels:
    """Show tissue of many levels in air, as int16."""
    return brain().voxels[:8, :40, :48].astype(np.int16) * 4


def _phase(turns: float = 3, noise: float = 0.8) -> Voxels:
    """Wrap a ramp with noise at ±π."""
    angle = np.linspace(0, 2 * np.pi * turns, _SHAPE[1])[None, :, None]
    return np.angle(np.exp(1j * (angle + _NOISE.normal(0, noise, _SHAPE)))).astype(np.float32)


def _nifti(path: Path, voxels: Voxels, *, intent: int = 0, **sidecar: Any) -> Path:
    image = nib.Nifti1Image(voxels.T, np.eye(4))
    image.header["intent_code"] = intent
    nib.save(image, path)
    if sidecar:
        (path.parent / f"{path.name.partition('.')[0]}.json").write_text(json.dumps(sidecar))
    return path


def _enhance(data: Any, **options: Any) -> Any:
    return me.enhance(data, device="cpu", progress=False, **options)


@pytest.mark.parametrize(
    "voxels",
    [
        _phase(),
        _phase(6, 0.3) + np.float32(np.pi),
        np.degrees(_phase()),
        np.round(_phase() / np.pi * 4096).clip(-4096, 4095).astype(np.int16),
        (_phase() / np.pi * 2048 + 2048).clip(0, 4095).astype(np.uint16),
    ],
)
def test_what_looks_like_wrapped_phase_is_left_alone_with_the_remedy(voxels: Voxels) -> None:
    result = _enhance(voxels, spacing=(1, 1, 2), modality="MR", strength="full")
    assert np.array_equal(result.volume.voxels, voxels)
    assert result.findings[0] == "it looks like phase: nothing was changed"
    (warning,) = (text for text in result.report["warnings"] if "looks like phase" in text)
    assert "the real and the imaginary part" in warning
    with pytest.raises(InputError, match="looks like phase"):
        me.segment(voxels, spacing=(1, 1, 2), modality="MR", progress=False)
    with pytest.raises(InputError, match="looks like phase"):
        _enhance(voxels, spacing=(1, 1, 2), modality="MR", task="slices")


def test_phase_is_named_before_its_modality_is_asked_for() -> None:
    voxels = np.mod(_phase(6, 0.3), 2 * np.pi).astype(np.float32)
    with pytest.raises(InputError, match="looks like phase"):
        _enhance(voxels, spacing=(1, 1, 2))


def test_real_and_imaginary_parts_are_enhanced_instead_and_phase_gains() -> None:
    angle = np.linspace(0, 6 * np.pi, _SHAPE[1])[None, :, None] + np.zeros(_SHAPE)
    noise = _NOISE.normal(0, 40, (2, *_SHAPE))
    parts = [100 * np.cos(angle) + noise[0], 100 * np.sin(angle) + noise[1]]
    real, imaginary = (
        _enhance(part, spacing=(1, 1, 1), modality="MR", strength="full").volume.voxels
        for part in parts
    )

    def error(real: Voxels, imaginary: Voxels) -> float:
        return float(np.abs(np.angle((real + 1j * imaginary) * np.exp(-1j * angle))).mean())

    assert error(real, imaginary) < 0.7 * error(*parts)


@pytest.mark.parametrize(
    ("name", "quantity"),
    [
        ("sub-01_phasediff.nii.gz", "phase"),
        ("sub-01_part-phase_bold.nii.gz", "phase"),
        ("sub-01_fieldmap.nii.gz", "a field map"),
        ("sub-01_T1map.nii.gz", "a derived map (T1map)"),
        ("scan_ADC.nii", "a derived map (ADC)"),
        ("sub-01_cbf.nrrd", "a derived map (cbf)"),
        ("adc.nii.gz", "a derived map (adc)"),
        ("sub-01_part-mag_bold.nii.gz", ""),
        ("sub-01_T1w.nii.gz", ""),
        ("portal_phase.nii.gz", ""),
        ("Smith_FA.nii.gz", ""),
        ("brain_mask.nii.gz", ""),
    ],
)
def test_the_name_of_a_file_states_the_quantity(name: str, quantity: str, tmp_path: Path) -> None:
    me.save(Volume(_image(), Geometry()), tmp_path / name, progress=False)
    assert me.inspect(tmp_path / name)["quantity"] == quantity
    if not quantity:
        assert _enhance(tmp_path / name, modality="MR").findings
        return
    with pytest.raises(InputError, match=quantity.partition(" (")[0]):
        _enhance(tmp_path / name, modality="MR")


@pytest.mark.parametrize(
    ("sidecar", "quantity"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "T1", "NONE", "PHASE"]}, "phase"),
        ({"Units": "rad"}, "phase"),
        ({"Units": "Hz"}, "a field map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "FA"]}, "a derived map (FA)"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "Units": "arbitrary"}, ""),
        ({"ImageType": 5}, ""),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "VELOCITY", "M"]}, ""),
    ],
)
def test_the_json_beside_a_file_states_the_quantity(
    sidecar: dict[str, Any], quantity: str, tmp_path: Path
) -> None:
    path = _nifti(tmp_path / "scan.nii.gz", _image(), **sidecar)
    assert me.load(path, progress=False).quantity == quantity


@pytest.mark.parametrize(
    ("intent", "quantity"), [(1002, "a label map"), (5, "a derived map"), (0, "")]
)
def test_the_intent_of_a_nifti_states_the_quantity(
    intent: int, quantity: str, tmp_path: Path
) -> None:
    path = _nifti(tmp_path / "scan.nii", _image(), intent=intent)
    assert me.load(path, progress=False).quantity == quantity


@pytest.mark.parametrize(
    ("elements", "quantity"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]}, "phase"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "B0 MAP", "B0", "FFE"]}, "a field map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "a derived map (ADC)"),
        ({"ImageType": ["DERIVED", "PRIMARY", "T1 MAP"]}, "a derived map (T1 MAP)"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]}, "a derived map (TRACEW)"),
        ({"ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "ADC (10^-6 mm2/s)"},
         "a derived map (ADC)"),
        ({"ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "arterial phase"}, ""),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]}, ""),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R", "FFE"]}, ""),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "P"], "Modality": "CT",
          "RescaleType": "Z_EFF", "RescaleSlope": 1, "RescaleIntercept": 0},
         "a derived map ([Z_EFF])"),
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0,
          "ImageType": ["ORIGINAL", "PRIMARY", "P"]}, ""),
    ],
)  # fmt: skip
def test_the_header_of_a_dicom_series_states_the_quantity(
    elements: dict[str, Any], quantity: str, make_series: Make
) -> None:
    folder = make_series(_image().astype(np.uint16), **MR | elements)
    assert me.load(folder, progress=False).quantity == quantity


def test_the_unit_of_real_world_values_states_the_quantity(make_series: Make) -> None:
    unit = with_elements(CodeValue="rad", CodingSchemeDesignator="UCUM", CodeMeaning="radian")
    mapping = [with_elements(MeasurementUnitsCodeSequence=[unit])]
    series = MR | {"RealWorldValueMappingSequence": mapping}
    folder = make_series(_image().astype(np.uint16), **series)
    assert me.load(folder, progress=False).quantity == "phase"


def test_frames_of_enhanced_mr_state_the_quantity(tmp_path: Path) -> None:
    dataset = enhanced_mr(_image().astype(np.uint16), [2.0 * k for k in range(8)])
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        groups.MRImageFrameTypeSequence = [with_elements(ComplexImageComponent="PHASE")]
    assert loaded(tmp_path, dataset).quantity == "phase"
    unit = with_elements(CodeValue="um2/s", CodingSchemeDesignator="UCUM", CodeMeaning="um2/s")
    mapping = with_elements(MeasurementUnitsCodeSequence=[unit])
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        del groups.MRImageFrameTypeSequence
        groups.RealWorldValueMappingSequence = [mapping]
    assert loaded(tmp_path, dataset).quantity == "a derived map ([um2/s])"


def test_phase_of_ge_is_known_by_its_private_element(make_series: Make, tmp_path: Path) -> None:
    import pydicom

    folder = make_series(_image().astype(np.uint16), **MR)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
        block.add_new(0x2F, "SS", 1)
        dataset.save_as(file)
    assert me.load(folder, progress=False).quantity == "phase"


def test_the_quantity_stays_with_a_converted_and_a_compressed_volume(
    make_series: Make, tmp_path: Path
) -> None:
    elements = MR | {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}
    phase = me.load(make_series(_image().astype(np.uint16), **elements), progress=False)
    for name in ("a.nii.gz", "a.nrrd", "a.mha"):
        me.save(phase, tmp_path / name, progress=False)
        assert me.load(tmp_path / name, progress=False).quantity == "phase"
    me.compress(phase, tmp_path / "a.ucv", lossless=True, progress=False)
    assert me.decompress(tmp_path / "a.ucv").quantity == "phase"
    with pytest.raises(InputError, match=r"a\.ucv: it is phase"):
        _enhance(tmp_path / "a.ucv", as_intensity=True)


def test_derived_maps_are_enhanced_on_request_alone_and_the_result_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = str(_nifti(tmp_path / "sub-01_ADC.nii.gz", _image())), str(tmp_path / "out.nii.gz")
    assert main(["enhance", path, out, "--modality", "MR", "--device", "cpu"]) == 3
    assert "--as-intensity" in capsys.readouterr().err
    command = ["enhance", path, out, "--modality", "MR", "--device", "cpu", "--as-intensity"]
    assert main(command) == 0
    assert "a derived map (ADC), taken as intensities on request" in capsys.readouterr().out
    manifest = json.loads(Path(f"{out}.json").read_text("utf-8"))
    assert manifest["results"]["measured"]["taken_as"]["quantity"] == "a derived map (ADC)"
    assert any("a derived map" in text for text in manifest["warnings"])


def test_a_phase_of_one_column_is_known_as_such() -> None:
    column = np.ascontiguousarray(_phase()[..., :1])
    assert (
        "no image, but phase" in me.inspect(Volume(column, Geometry(), modality="MR"))["warnings"]
    )


def test_what_only_looks_like_phase_is_enhanced_on_request() -> None:
    result = _enhance(_phase(), spacing=(1, 1, 2), modality="MR", as_intensity=True)
    assert result.findings[1] == "phase, taken as intensities on request"


def test_values_that_just_reach_pi_are_warned_of() -> None:
    voxels = (_image() / 120 - 3).clip(-3.1, 3.1).astype(np.float32)
    warnings = _enhance(voxels, spacing=(1, 1, 1), modality="MR").report["warnings"]
    assert any("if they are phase" in text for text in warnings)


def test_the_noise_of_a_phase_is_not_measured() -> None:
    image = Volume(_image(), Geometry(), modality="MR")
    phase = Volume(_image() + np.int16(3), Geometry(), modality="MR", quantity="phase")
    assert me.inspect(image)["noise"] is not None
    assert me.inspect(phase)["noise"] is None
    assert "no image, but phase" in me.inspect(phase)["warnings"]


@pytest.mark.training
def test_cohorts_and_trainings_refuse_phase_by_name(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"p{number}").mkdir()
        _nifti(tmp_path / f"p{number}/sub-{number}_phasediff.nii.gz", _image() + np.int16(number))
    cohort = me.Cohort.from_folder(tmp_path, modality="MR")
    with pytest.raises(InputError, match=r"sub-0_phasediff.*phase, not an image"):
        list(cohort.volumes())
    config = {"preset": "smoke", "modality": "MR", "high_quality": ["p0/*.nii.gz"]}
    config |= {"low_quality": "p1"}
    with pytest.raises(InputError, match=r"sub-0_phasediff.*it is phase"):
        me.train("hqg", config, tmp_path, tmp_path / "run", progress=False)


# ---------------------------------------------------------------------------------------- labels


def _labels(count: int) -> Voxels:
    """Label blocks of 5 × 5 × 5 voxels, with a background around them."""
    blocks = np.random.default_rng(0).integers(1, count + 1, (2, 5, 6))
    return np.pad(np.kron(blocks, np.ones((5, 5, 5))), 2).astype(np.int16)


def _grays(levels: int) -> Voxels:
    voxels = brain().voxels[4:8].astype(np.float32)
    return np.floor(voxels / (voxels.max() + 1) * levels).astype(np.uint8)


@pytest.mark.parametrize(
    ("voxels", "is_label_map"),
    [
        (_labels(1), True),
        (_labels(3), True),
        (_labels(200), True),
        (_labels(7).astype(np.float32), True),
        (_grays(8), False),
        (_grays(32), False),
        (_grays(256), False),
        (_labels(7) + np.float32(0.5), False),
    ],
)
def test_label_maps_are_refused_and_images_of_few_grays_are_not(
    voxels: Voxels, is_label_map: bool
) -> None:
    volume = Volume(voxels, Geometry(), modality="MR")
    if not is_label_map:
        assert "noise found" in me.enhance(volume, device="cpu").findings[1]
        return
    with pytest.raises(InputError, match="looks like a label map") as caught:
        me.enhance(volume, device="cpu")
    assert "the image that it was drawn on" in caught.value.hint
    with pytest.raises(InputError, match="looks like a label map"):
        me.segment(volume)


def test_a_job_refuses_them_or_records_the_request(
    tmp_path: Path,
) -> None:
    me.save(Volume(_labels(3), Geometry()), tmp_path / "in.nii")
    params = {"input": str(tmp_path / "in.nii"), "output": str(tmp_path / "out.nii")}
    with pytest.raises(InputError, match="looks like a label map"):
        run_job(JobSpec("enhance", params))
    params |= {"config": {"as_intensity": True}}
    with pytest.raises(InputError, match="the modality is unknown") as caught:
        run_job(JobSpec("enhance", params))
    assert caught.value.hint == "State it: --modality MR or CT (modality= in Python)."
    result = run_job(JobSpec("enhance", params | {"modality": "MR"}))
    assert "looks like a label map; it is taken" in Path(result["manifest"]).read_text("utf-8")


# ---------------------------------------------------------------------------------- the modality


def _ct(offset: int, noise: float, dtype: Any = np.uint16) -> Voxels:
    """Show fat, muscle and bone in air, in HU + offset; of an unsigned type from 0."""
    j, i = np.mgrid[-1:1:72j, -1:1:72j]
    radius = np.hypot(j, i)
    plane = np.select([radius < 0.25, radius < 0.6, radius < 0.75], [700, 50, -100], -1000)
    voxels = np.repeat(plane[None], 8, 0) + offset + _NOISE.normal(0, noise, (8, 72, 72))
    return voxels.clip(0 if np.dtype(dtype).kind == "u" else None, None).astype(dtype)


def _ultrasound() -> Voxels:
    """Show speckle in a sector, compressed to 8 bits by the logarithm."""
    speckle = np.hypot(*_NOISE.normal(size=(2, 8, 96, 96)))
    j, i = np.mgrid[:96, :96]
    is_sector = np.abs(i - 48) < 0.6 * (j + 10)
    return (is_sector * (20 * np.log10(speckle + 1e-3) + 45) * 3.2).clip(0, 255).astype(np.uint8)


_CASES = [
    (_ct(1024, 20), 1.0, ("CT", "MR")),
    (_ct(1024, 100), 1.0, ("CT", "MR")),  # cone beam
    (_ct(1024, 20, np.float32), 1.0, ("CT", "MR")),
    (_ct(1000, 20, np.int16)[:, 24:48, 24:48], 1.0, ("OT", "MR")),
    (_ct(0, 20, np.int16), 1.0, ("CT",)),
    (_ct(0, 20, np.float32), 1.0, ("CT",)),
    (_ultrasound(), 0.3, ("OT", "MR")),
    (_image(), 0.005, ("OT", "MR")),  # a light microscope
    (255 - brain().voxels // 2, 1.0, ("OT", "MR")),  # a bright field
    ((_image() * np.cos(_phase(9))).astype(np.int16) * 3, 1.0, ("MR", "CT")),
    (brain().voxels, 1.0, ("MR",)),
    (brain().voxels * np.float32(0.5), 1.0, ("MR",)),
    (brain().voxels.astype(np.uint16) * 6, 1.0, ("MR",)),
    (_image(), 1e-5, ("EM",)),
]


@pytest.mark.parametrize(("voxels", "spacing", "modalities"), _CASES)
def test_likely_modalities_are_named_and_several_are_for_the_user(
    voxels: Voxels, spacing: float, modalities: tuple[str, ...]
) -> None:
    assert likely_modalities(voxels, (spacing,) * 3) == modalities
    volume = Volume.from_array(voxels, spacing=(spacing,) * 3)
    assert volume.modality == (modalities[0] if len(modalities) == 1 else "OT")
    if len(modalities) == 1:
        return
    for door in (_enhance, lambda data: me.segment(data, progress=False)):
        with pytest.raises(InputError, match=f"fit {modalities[0]} and {modalities[1]}") as caught:
            door(volume)
        assert "--modality" in caught.value.hint


@pytest.mark.parametrize(("modality", "units"), [("MR", ""), ("CT", "HU")])
def test_a_model_that_is_named_decides_the_modality(
    modality: str, units: str, tmp_path: Path
) -> None:
    model = write_scanner_model(tmp_path / "model", modality)
    result = _enhance(_ct(1024, 20), spacing=(1, 1, 1), model=model)
    assert (result.volume.modality, result.volume.units) == (modality, units)


def test_a_guessed_modality_is_stated_after_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "taken as MR (guessed from values; state it with --modality, modality= in Python)"
    guessed = _enhance(_image(), spacing=(1, 1, 1)).findings[1]
    assert guessed == line
    assert guessed not in _enhance(_image(), spacing=(1, 1, 1), modality="MR").findings
    path, out = _nifti(tmp_path / "scan.nii", _image()), str(tmp_path / "out.nii")
    report = str(tmp_path / "report")
    command = ["enhance", str(path), out, "--device", "cpu", "--report", report]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert line in lines[3]  # after the verdict, what to do about it, and the file
    assert line[1:] in (tmp_path / "report/index.html").read_text("utf-8")  # it begins a sentence
    assert main([*command[:2], f"{tmp_path}/b.nii", "--device", "cpu", "--json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["measured"]["taken_as"]["guessed_modality"] == "MR"


@pytest.mark.shared
def test_scans_keep_their_modality_without_a_header(shared_data: Path) -> None:
    for name, modality in (
        ("ct/abdomen/CT.nii.gz", "CT"),
        ("ct/sts/STS_018/CT.nii.gz", "CT"),
        ("mr/sts/STS_002/MR_T1.nii.gz", "MR"),
        ("mr/sts/STS_008/MR_T1.nii.gz", "MR"),
        ("mr/open_ms/L03/study1_FLAIR.nii.gz", "MR"),
        ("repeated/dti_thirteen_frames.nii.gz", "MR"),
    ):
        volume = me.load(shared_data / name, progress=False)
        assert likely_modalities(volume.voxels, volume.geometry.spacing) == (modality,), name
        assert quantity_of(volume)[0] == ""


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.ucv"])
def test_a_guessed_modality_stays_a_guess_in_written_files(name: str, tmp_path: Path) -> None:
    for volume in (Volume.from_array(_image(), spacing=(1, 1, 1)), Volume(_image(), modality="MR")):
        path = tmp_path / f"{volume.modality_is_guess}-{name}"
        if name.endswith(".ucv"):
            me.compress(volume, path, lossless=True, progress=False)
        else:
            me.save(volume, path, progress=False)
        again = me.load(path, progress=False)
        assert (again.modality, again.modality_is_guess) == ("MR", volume.modality_is_guess)
