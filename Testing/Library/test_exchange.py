"""Volumes from and to what others hold: each place and value stays, nothing is shared by chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume, as_volume

nibabel = pytest.importorskip("nibabel")
sitk = pytest.importorskip("SimpleITK")

_KINDS = ("sitk", "nibabel", "metatensor")


def _sequence(volume: Volume) -> Volume:
    both = np.stack([volume.voxels, volume.voxels + 7])
    return replace(volume, voxels=both, frame_interval_s=2.5)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("kind", _KINDS)
def test_what_goes_out_comes_back_as_copies(kind: str, frames: int, head: Volume) -> None:
    volume = head if frames == 1 else _sequence(head)
    if frames == 2 and kind != "nibabel":
        with pytest.raises(me.InputError, match="frames"):
            getattr(volume, f"to_{kind}")()
        return
    before = volume.voxels.copy()
    there = getattr(volume, f"to_{kind}")()
    back: Volume = getattr(Volume, f"from_{kind}")(there, modality="MR")
    if kind == "sitk":
        there[(0,) * there.GetDimension()] = 77
    else:
        (there.dataobj if kind == "nibabel" else there)[...] = 77
    assert np.array_equal(volume.voxels, before)
    assert np.array_equal(back.voxels, before)
    assert back.dtype == head.dtype
    assert back.geometry.is_close(head.geometry, shape=head.shape)
    assert (back.modality, back.modality_is_guess) == ("MR", False)
    if kind == "nibabel":
        assert back.frame_interval_s == volume.frame_interval_s


def test_scale_factors_and_units_of_nifti_count(head: Volume) -> None:
    image = nibabel.Nifti1Image(head.voxels.T, head.geometry.affine_ras)
    image.header.set_slope_inter(2, -1000)
    image.header.set_xyzt_units("micron", "msec")
    again = nibabel.Nifti1Image.from_bytes(image.to_bytes())
    found = Volume.from_nibabel(again)
    assert np.array_equal(found.voxels, head.voxels * 2.0 - 1000)
    assert np.allclose(found.geometry.spacing, np.array(head.geometry.spacing) / 1000)


def test_a_metatensor_may_have_a_channel_or_none_and_lps(head: Volume) -> None:
    tensor = head.to_metatensor()
    assert tensor.shape == (1, *head.shape[::-1])
    assert Volume.from_metatensor(tensor[0]).shape == head.shape
    tensor.meta["space"] = "LPS"
    tensor.affine = torch.as_tensor(head.geometry.affine_lps)
    assert Volume.from_metatensor(tensor).geometry.is_close(head.geometry, shape=head.shape)
    two = torch.cat([tensor, tensor])
    with pytest.raises(me.InputError, match="shape \\(2,") as caught:
        Volume.from_metatensor(two)
    assert "tensor[:1]" in caught.value.hint


@pytest.mark.parametrize("dtype", ["bool", "u1", "u2", "u4", "u8", "i2", "f2", "f4", "f8", ">i2"])
def test_a_tensor_holds_every_value(dtype: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    tensor = Volume(values).to_metatensor()
    assert np.array_equal(tensor[0].numpy().astype(float), values.T.astype(float))


def test_numpy_sees_the_voxels(head: Volume) -> None:
    assert np.array_equal(np.asarray(head), head.voxels)
    assert np.asarray(head, np.float32).dtype == np.float32
    assert np.shares_memory(np.asarray(head, head.dtype), head.voxels)
    np.array(head)[...] = 0
    assert head.voxels.any()
    array = head.voxels.copy()
    taken = Volume.from_array(array, spacing=(1, 1, 1))
    array[...] = 77
    assert np.array_equal(taken.voxels, head.voxels)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(head, np.float32, copy=False)


def test_a_part_stays_where_it_is(head: Volume) -> None:
    part = head.crop(slice(2, 5), slice(None, -3), slice(4, None))
    assert part.shape == (3, head.shape[1] - 3, head.shape[2] - 4)
    assert np.array_equal(part.voxels, head.voxels[2:5, :-3, 4:])
    corner = head.affine @ (4, 0, 2, 1)
    assert np.allclose(part.affine[:3, 3], corner[:3])
    assert _sequence(head).crop(slice(1, 2)).shape == (2, 1, *head.shape[1:])
    for wrong in (slice(5, 5), slice(0, 6, 2), slice(99, None)):
        with pytest.raises(me.InputError, match="region k="):
            head.crop(wrong)


@pytest.mark.parametrize("kind", ["volume", "path", "array", *_KINDS])
def test_a_call_takes_each_of_them(kind: str, head: Volume, tmp_path: Path) -> None:
    given: dict[str, Any] = {"volume": head}
    if kind == "path":
        me.save(head, tmp_path / "in.nrrd")
        given = {"volume": tmp_path / "in.nrrd", "modality": "MR"}
    elif kind == "array":
        given = {"volume": head.voxels, "affine": head.affine, "modality": "MR"}
    elif kind in _KINDS:
        given = {"volume": getattr(head, f"to_{kind}")(), "modality": "MR"}
    me.compress(**given, path=tmp_path / "a.ucv", lossless=True)
    assert np.array_equal(me.decompress(tmp_path / "a.ucv").voxels, head.voxels)


def test_a_bare_array_is_refused_before_anything_else() -> None:
    for call in (me.enhance, me.segment):
        with pytest.raises(me.InputError, match="an array without spacing") as caught:
            call(np.zeros((4, 5, 6)))
        assert "spacing=(1, 1, 3)" in caught.value.hint


def test_arrays_of_other_packages_are_read_as_those_of_numpy(head: Volume, tmp_path: Path) -> None:
    arrays = [pytest.importorskip("dask.array").from_array(head.voxels, chunks=5)]
    with pytest.importorskip("h5py").File(tmp_path / "a.h5", "w") as file:
        arrays.append(file.create_dataset("voxels", data=head.voxels))
        for array in arrays:
            volume = as_volume(array, spacing=(1, 2, 3), modality="MR")
            assert np.array_equal(volume.voxels, head.voxels)
            assert volume.geometry.spacing == (1, 2, 3)
            with pytest.raises(me.InputError, match="without spacing"):
                as_volume(array)
        with pytest.raises(me.InputError, match="type File is not a volume"):
            as_volume(file, spacing=(1, 2, 3))


def test_what_is_no_volume_is_named(head: Volume, tmp_path: Path) -> None:
    with pytest.raises(me.InputError, match="type dict is not a volume"):
        me.enhance({})
    with pytest.raises(me.InputError, match="is not a volume") as caught:
        me.save(me.enhance(head), tmp_path / "a.nii")  # type: ignore[arg-type]
    assert caught.value.hint == "Give its .volume."
    with pytest.raises(me.ConfigError, match="for a Volume"):
        me.enhance(head, spacing=(1, 1, 1))
    with pytest.raises(me.ConfigError, match="for a file"):
        me.enhance(tmp_path / "a.nii", spacing=(1, 1, 1))
    with pytest.raises(me.ConfigError, match="which has its own"):
        me.enhance(head.to_sitk(), spacing=(1, 1, 1))


@pytest.mark.parametrize(
    ("data", "spacing", "message"),
    [
        (sitk.Image([4, 5, 6], sitk.sitkLabelUInt8), None, "image of label"),
        (nibabel.Nifti1Image(np.ones((4, 5, 6)), None), None, "without an affine"),
        (nibabel.Nifti1Header(), None, "without an affine"),
        (MetaTensor(torch.ones(1, 5, 6)), None, "shape \\(1, 5, 6\\)"),
        (np.ma.masked_less(np.ones((4, 5, 6)), 3), (1, 1, 1), "masked"),
        (torch.ones(4, 5, 6, dtype=torch.bfloat16), (1, 1, 1), "bfloat16"),
        (torch.ones(4, 5, 6).to_sparse(), (1, 1, 1), "sparse"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_a_sentence(
    data: Any, spacing: Any, message: str
) -> None:
    with pytest.raises(me.InputError, match=message):
        me.enhance(data, spacing=spacing)


def test_a_modality_that_is_said_is_no_guess_any_more(head: Volume) -> None:
    guessed = Volume.from_array(head.voxels, spacing=(1, 1, 1))
    said = as_volume(guessed, modality="CT")
    assert (said.modality, said.units, said.modality_is_guess) == ("CT", "HU", False)
    assert Volume.from_metatensor(guessed.to_metatensor()).modality_is_guess


def test_what_may_be_wrong_with_an_array_is_said(
    head: Volume,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("MedEnhanceLib.api._logged_once", set())
    array = np.array(head.voxels)
    me.compress(array, tmp_path / "a.ucv", lossless=True, spacing=(1, 1, 5000))
    said = [record.getMessage() for record in caplog.records]
    assert "ndarray: no known modality is stated" in said[1]
    assert "5000 mm apart" in said[2]
    caplog.clear()
    me.compress(array, tmp_path / "b.ucv", lossless=True, spacing=(1, 1, 5), modality="MR")
    assert not caplog.records


def test_an_array_of_nibabel_is_taken_and_returned_in_its_axes(
    head: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    image, options = head.to_nibabel(), {"modality": "MR", "device": "cpu"}
    array = image.get_fdata(dtype=np.float32)  # [column, row, slice], in Fortran order
    result = me.enhance(array, affine=image.affine, axes="IJK", uncertainty=True, **options)
    assert not caplog.records
    expected = me.enhance(image, **options).volume
    assert result.volume.geometry == expected.geometry
    assert result.uncertainty is not None and result.noise is not None
    for volume in (result.volume, result.at_strength(0.5).volume, result.uncertainty, result.noise):
        assert np.array_equal(volume.numpy(), volume.voxels.T)
        assert volume.numpy().shape == array.shape != volume.shape
    frames = me.Volume.from_array(np.stack([array] * 2, -1), affine=image.affine, axes="IJK")
    assert np.array_equal(frames.voxels, np.stack([head.voxels] * 2))
    with pytest.raises(me.ConfigError, match="Nifti1Image, which has its own"):
        me.enhance(image, axes="IJK")
    with pytest.raises(me.InputError, match="axes is 'KIJ'") as refused:
        me.Volume.from_array(array, affine=image.affine, axes="KIJ")  # type: ignore[arg-type]
    assert "IJK" in refused.value.hint


def test_b_values_of_an_array_make_its_frames_diffusion(head: Volume) -> None:
    rng, b_values = np.random.default_rng(0), [0, 0, *[1000] * 6]
    decays = np.exp(-0.001 * np.array(b_values))[:, None, None, None]
    clean = head.voxels[None, 4:8].astype(np.float32) * decays
    array = clean + rng.normal(0, 0.05 * clean.max(), clean.shape).astype(np.float32)
    given = {"affine": head.to_nibabel().affine, "modality": "MR", "device": "cpu"}
    results = {
        "bvals": me.enhance(array, bvals=b_values, **given),
        "alone": me.enhance(array, **given),
    }
    errors = {name: np.std(result.volume.voxels - clean) for name, result in results.items()}
    assert errors["bvals"] < 0.8 * errors["alone"]
    assert [each.b_value for each in results["bvals"].volume.gradients] == b_values
    for wrong in (b_values[1:], [-1, *b_values[1:]], ["b0"] * 8):
        with pytest.raises(me.ConfigError, match="not 8 b-values of at least 0"):
            me.enhance(array, bvals=wrong, **given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"affine": np.eye(4)}, "in Fortran order"),
        ({"affine": np.eye(4), "axes": "KJI"}, ""),
        ({"affine": np.eye(4), "axes": "IJK"}, ""),
        ({"spacing": (60, 60, 60)}, "spans 2.4 m"),
        ({"spacing": (5, 0.5, 0.5)}, "voxels of 5 × 0.5 × 0.5 mm"),
        ({"spacing": (1, 1, 0.05)}, "voxels of 1 × 1 × 0.05 mm"),
        ({"spacing": (0.5, 0.5, 5)}, ""),
        ({"affine": np.diag([3, 1, 1, 1]), "array": (40, 25, 10)}, ""),  # sagittal, turned to RAS
        ({"affine": np.diag([3, 1, 1, 1])}, "far longer than wide"),  # [I, J, K], and no Fortran
    ],
)
def test_an_order_that_is_probably_another_is_warned_of(
    given: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    array = np.arange(10_000, dtype=np.float32).reshape(given.get("array", (10, 25, 40)))
    given = {name: value for name, value in given.items() if name != "array"}
    array = np.asfortranarray(array) if np.array_equal(given.get("affine"), np.eye(4)) else array
    events: list[Any] = []
    options = {"lossless": True, "modality": "MR", "progress": events.append}
    me.compress(array, tmp_path / "a.ucv", **options, **given)
    warned = [event.fields["message"] for event in events if event.kind == "warning"]
    me.Volume.from_array(array, modality="MR", **given)
    logged = [record.getMessage() for record in caplog.records]
    for messages in (warned, logged):
        assert len(messages) == bool(says)
        assert not says or (says in messages[0] and 'axes="IJK"' in messages[0])


@pytest.mark.parametrize("job", [me.enhance, me.segment])
def test_values_that_single_precision_does_not_keep_apart_are_refused(
    job: Callable[..., Any], head: Volume
) -> None:
    """Before, they came back equal: the noise was gone, and the anatomy too."""
    far = head.voxels.astype(np.int64) + 2**40
    with pytest.raises(me.InputError, match="single precision"):
        job(far, spacing=(1, 1, 1), modality="MR")
    with pytest.raises(me.InputError, match="boolean"):
        job(head.voxels > 50, spacing=(1, 1, 1), modality="MR")


def test_a_notebook_in_double_precision_is_refused(head: Volume) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(me.ConfigError, match=r"float64") as caught:
            me.enhance(head)
    finally:
        torch.set_default_dtype(torch.float32)
    assert "set_default_dtype(torch.float32)" in caught.value.hint


def test_the_names_of_simpleitk_nibabel_and_monai_mean_the_same(
    oblique_geometry: Geometry,
) -> None:
    """Three spacings, so that an exchanged axis is seen."""
    volume = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), oblique_geometry)
    assert len(set(volume.spacing)) == 3
    image = volume.to_sitk()
    assert volume.spacing == image.GetSpacing()
    assert volume.origin == image.GetOrigin()
    assert tuple(np.ravel(volume.direction)) == image.GetDirection()
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(image))
    stored = volume.to_nibabel()
    assert np.array_equal(volume.affine, stored.affine)
    assert np.allclose(volume.spacing, stored.header.get_zooms())
    assert np.array_equal(volume.numpy(), stored.get_fdata().T)
    tensor = volume.to_metatensor()
    assert np.allclose(volume.affine, tensor.affine)
    assert np.allclose(volume.spacing, tensor.pixdim)
    assert np.array_equal(volume.array, tensor.array[0].T)
