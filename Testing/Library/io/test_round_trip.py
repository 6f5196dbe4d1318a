"""What is saved comes back: voxels always, geometry to the last bit, meaning and history."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.quaternions import quat2mat

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import WRITABLE, load, save
from MedEnhanceLib.runtime.text import printable

LOSSY = (Lossy("ISO_10918_1", 12.5), Lossy("MEDENHANCE_UCV", 3))
KEPT_TYPES = [
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
]  # fmt: skip

few = settings(max_examples=20, suppress_health_check=[*HealthCheck])


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Any rotation, either handedness, spacing from 1 nm to 10 cm, anisotropic."""
    rotation = quat2mat([draw(st.floats(-1, 1)) for _ in range(3)] + [1e-3])
    rotation[:, 2] *= draw(st.sampled_from([1.0, -1.0]))
    scale = 10.0 ** draw(st.integers(-6, 2))
    spacing = [scale * draw(st.floats(0.1, 1)) for _ in range(3)]
    origin = [scale * draw(st.floats(-1e3, 1e3)) for _ in range(3)]
    return Geometry(tuple(spacing), tuple(origin), rotation.tolist())


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    """3D and 4D, every type that files keep, with its smallest and largest value."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=3, max_size=4)))
    dtype = np.dtype(draw(st.sampled_from(KEPT_TYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    if dtype.kind == "f":
        voxels = rng.normal(0, 10.0 ** draw(st.integers(-30, 30)), shape).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        voxels = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        voxels.flat[0], voxels.flat[-1] = limits.min, limits.max
    return Volume(
        voxels,
        draw(geometries()),
        modality=draw(st.sampled_from(["CT", "MR", "PT", "EM", "SEG", "OT"])),
        units=draw(st.sampled_from(["HU", "", "Bq/ml"])),
        history=tuple(draw(st.lists(st.text(max_size=20), max_size=3))),
        frame_interval_s=draw(st.sampled_from([None, 0.1, 1.0])) if len(shape) == 4 else None,
        lossy=draw(st.sampled_from([(), LOSSY])),
    )


@pytest.mark.slow
@pytest.mark.parametrize("ending", WRITABLE)
@few
@given(volume=volumes())
def test_everything_comes_back_bit_for_bit_and_others_see_the_same(
    tmp_path: Path, ending: str, volume: Volume
) -> None:
    path = tmp_path / f"volume{ending}"
    if ending.startswith(".nii") and volume.dtype in (np.int64, np.uint64):
        volume = volume.with_voxels(volume.voxels.astype(np.float64))  # other programs read none
    save(volume, path, overwrite=True)
    back = load(path)
    assert back.is_equal(volume)
    assert back.shape == volume.shape
    for field in ("modality", "units", "frame_interval_s", "lossy"):
        assert getattr(back, field) == getattr(volume, field), field
    # A file may be a stranger's: what commands a terminal is read as escapes.
    assert back.history == tuple(map(printable, volume.history))
    if sitk.ImageFileReader.GetImageIOFromFileName(str(path)):
        _check_with_itk(path, volume)
    if ending.startswith(".nii"):
        _check_with_nibabel(path, volume)


def _check_with_itk(path: Path, volume: Volume) -> None:
    image = sitk.ReadImage(str(path))
    axes = image.GetDimension()
    seen = sitk.GetArrayFromImage(image).reshape(volume.shape)  # ITK drops axes of size 1
    assert seen.dtype == volume.dtype
    assert np.array_equal(seen, volume.voxels)
    assert axes >= 3 or volume.shape[-3] == 1
    if axes >= 3:
        geometry = Geometry(
            image.GetSpacing()[:3],
            image.GetOrigin()[:3],
            np.reshape(image.GetDirection(), (axes, axes))[:3, :3].tolist(),
        )
        reach = np.abs(volume.geometry.origin).max() / min(volume.geometry.spacing) + 10
        assert geometry.is_close(volume.geometry, tolerance=1e-6 * reach)


def _check_with_nibabel(path: Path, volume: Volume) -> None:
    image = nibabel.load(path)
    assert np.array_equal(np.asarray(image.dataobj).T, volume.voxels)
    exact = volume.geometry.affine_ras
    assert np.array_equal(image.header.get_sform(), exact.astype(np.float32))
    # A unit quaternion in float32 loses half its digits near half a turn: the sform is what counts.
    qform, scale = image.header.get_qform(), min(volume.geometry.spacing)
    assert np.allclose(qform[:3, :3], exact[:3, :3], atol=1e-3 * scale, rtol=1e-3)
    assert image.header.get_xyzt_units() == ("mm", "sec")


@few
@given(volume=volumes())
def test_geometry_of_another_programs_nifti_stays_the_same_bits(
    tmp_path: Path, volume: Volume
) -> None:
    """Read, saved and read again: float32 is rounded once, by whoever wrote first."""
    foreign, ours = tmp_path / "foreign.nii", tmp_path / "ours.nii"
    voxels = volume.voxels.astype(np.float32)
    image = nibabel.Nifti1Image(voxels.T, volume.geometry.affine_ras)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, foreign)
    if not np.isfinite(voxels).all():
        return
    first = load(foreign, modality="OT")
    assert np.array_equal(
        first.geometry.affine_ras.astype(np.float32), image.affine.astype(np.float32)
    )
    save(first, ours, overwrite=True)
    header = nibabel.load(ours).header
    assert np.array_equal(header.get_sform(), nibabel.load(foreign).header.get_sform())
    assert load(ours).geometry == first.geometry
