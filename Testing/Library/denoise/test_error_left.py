"""The error that is left, by a second measurement: known errors are found, and mistakes said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.labels import Label, Segmentation
from MedEnhanceLib.core.volume import Volume

_SIGMA = 20.0
_FRAMES = np.arange(6)[:, None, None, None]


def _truth() -> np.ndarray:
    k, j, i = np.mgrid[-1:1:10j, -1:1:48j, -1:1:44j]
    level = 600 + 200 * np.sin(4 * i) * np.cos(3 * j)
    return gaussian_blur((k**2 / 4 + j**2 + i**2 < 0.8) * level, 1.0)


def _noise(seed: int, *frames: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, _SIGMA, (*frames, 10, 48, 44))


def _volume(voxels: np.ndarray) -> Volume:
    return Volume(voxels.astype(np.float32), Geometry((1.0, 1.0, 3.0)), modality="MR")


def _measured(frames: tuple[int, ...] = (), again: tuple[int, ...] = ()) -> tuple[Volume, ...]:
    """A volume, a result that leaves .4 of its noise, and a second measurement."""
    truth, noise = _truth(), _noise(1, *frames)
    second = _volume(truth + _noise(2, *(again or frames)))
    return _volume(truth + noise), _volume(truth + 0.4 * noise), second


@pytest.mark.parametrize(("frames", "again"), [((), ()), ((), (4,)), ((6,), ())])
def test_a_known_error_is_found_in_every_part(
    frames: tuple[int, ...], again: tuple[int, ...]
) -> None:
    found = me.compare(*_measured(frames, again))
    names = [row["part"] for row in found.table]
    assert names[:2] == ["tissue", "background"] and len(names) == 5
    for row in found.table:
        assert row["before"] == pytest.approx(_SIGMA, rel=0.05)
        assert row["left"] == pytest.approx(0.4, abs=0.06)
    assert found.left == found.table[0]["left"]
    assert f"{100 * found.left:.0f} % of it is left" in found.findings[0]
    assert not found.warnings and len(found.findings) == 2
    assert "second measurement" in found.picture().alt


def test_the_labels_of_a_result_are_its_parts() -> None:
    before, after, second = _measured()
    voxels = np.where(before.voxels > 500, 7, 0).astype(np.uint8)
    volume = replace(before.with_voxels(voxels), modality="SEG")
    labels = Segmentation(volume, (Label(value=7, name="core", color="#ff0000"),), [], {}, "", 0.0)
    result = replace(me.enhance(before, device="cpu"), segmentation=labels)
    table = me.compare(before, replace(result, volume=after), second).table
    assert [row["part"] for row in table] == ["tissue", "background", "core"]
    assert table[2]["voxels"] == np.count_nonzero(voxels)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda voxels: np.roll(voxels, 1, -1), "about 1.1 mm beside the first"),
        (lambda voxels: voxels * 1.1, "differs by +5"),
        (lambda voxels: voxels + 3 * _noise(3) * (_FRAMES == 4), "in frame no. 4 (counted from 0)"),
    ],
)
def test_what_differs_by_more_than_noise_is_said(
    change: Callable[[np.ndarray], np.ndarray], says: str
) -> None:
    before, after, second = _measured((6,))
    (warning,) = me.compare(before, after, _volume(change(second.voxels))).findings[2:]
    assert says in warning


def test_what_is_no_second_measurement_is_refused() -> None:
    before, after, second = _measured()
    enhanced = second.with_voxels(second.voxels, did="DERIVED: enhanced with mr")
    for wrong, says in (
        (before, "the same voxels"),
        (enhanced, "was enhanced"),
        (second.crop(j=slice(1, None)), r"44 × 47 × 10 and 44 × 48 × 10 columns × rows × slices"),
        (replace(second, geometry=Geometry((1.0, 1.0, 3.1))), "its grid"),
    ):
        with pytest.raises(me.InputError, match=says) as refused:
            me.compare(before, after, wrong)
        assert refused.value.hint
    with pytest.raises(me.InputError, match="the voxels of the result"):
        me.compare(before, after, after.with_voxels(after.voxels.copy()))
    frames = _measured((6,))
    with pytest.raises(me.InputError, match="3 frames, and the volume has 6"):
        me.compare(frames[0], frames[1], _volume(frames[2].voxels[:3]))
    with pytest.raises(me.InputError, match="the result has the shape"):
        me.compare(before, after.crop(k=slice(3)), second)


def test_arrays_of_nibabel_are_compared_in_their_axes() -> None:
    before, after, second = (volume.voxels.T for volume in _measured())
    found = me.compare(before, after, second, spacing=(1, 1, 3), axes="IJK", modality="MR")
    assert found.table == me.compare(*_measured()).table
    tensors = before, after, torch.as_tensor(second.copy())
    assert me.compare(*tensors, spacing=(1, 1, 3), axes="IJK", modality="MR").left == found.left


def test_arrays_whose_axes_are_not_stated_are_not_taken_for_the_scan_itself() -> None:
    border = ((3, 3), (0, 0), (0, 0), (0, 0))
    series = [np.pad(volume.voxels.T, border) for volume in _measured((6,))]
    # The columns are taken as frames, which is warned of; the first ones are empty.
    assert me.compare(*series, affine=np.eye(4), modality="MR").table
    with pytest.raises(me.InputError, match="without spacing") as refused:
        me.compare(*series, modality="MR")
    assert 'axes="IJK"' in refused.value.hint
    image, _after, second = (nibabel.Nifti1Image(array, np.eye(4)) for array in series)
    with pytest.raises(me.InputError, match=r"shape \(50, 48, 10, 6\), and the volume") as refused:
        me.compare(image, series[1], second)
    assert 'axes="IJK"' in refused.value.hint


def test_a_second_measurement_unlike_the_first_is_said_by_the_measured_noise() -> None:
    before, _after, second = _measured()
    result, texture = me.enhance(before, device="cpu", noise=_SIGMA), 4 * _noise(3)
    assert len(me.compare(before, result, second).findings) == 2
    said = me.compare(before, result, _volume(second.voxels + texture)).findings[2]
    assert "differ by 3" in said and "times the noise" in said


def test_the_command_states_it_in_text_json_manifest_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], coarse_pictures: None
) -> None:
    from MedEnhanceLib.cli.main import main

    before, _after, second = _measured()
    paths = [str(tmp_path / name) for name in ("scan.nii.gz", "second.nii.gz", "out.nii.gz")]
    for volume, path in zip((before, second), paths[:2], strict=True):
        io.save(volume, path)
    page = tmp_path / "page"
    words = ["enhance", paths[0], paths[2], "--modality", "MR", "--device", "cpu"]
    against = ["--against", paths[1]]
    assert main([*words, *against, "--report", str(page)]) == 0
    printed = capsys.readouterr().out
    result = io.load(paths[2], modality="MR")
    expected = me.compare(before, result, second)
    for sentence in expected.findings:
        assert sentence in printed
    assert not any("second measurement" in step for step in result.history)
    manifest: dict[str, Any] = json.loads(Path(f"{paths[2]}.json").read_text(encoding="utf-8"))
    assert manifest["results"]["measured"]["against"]["table"] == expected.table
    html = (page / "index.html").read_text(encoding="utf-8")
    assert "Against the second measurement" in html and "no reference image" not in html
    assert html.partition("Provenance")[0].lower().count("compared with the second") == 1
    assert f"<td>{100 * expected.left:.0f} %</td>" in html
    assert (page / "reference.png").exists()
    for more, says in (
        (["--correct-bias-field", *against], "against measures noise"),
        (["--against", paths[0]], "the same voxels"),
    ):
        assert main([*words, "--force", "--json", *more]) != 0
        assert says in json.loads(capsys.readouterr().out)["error"]["message"]
