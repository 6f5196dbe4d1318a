"""A tilted or uneven series becomes a rectangular, even volume whose error is bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.conftest import Make
from Library.dicom.reading import edited

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.io.dicom.load import load_dicom
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.stack import stack
from MedEnhanceLib.runtime.progress import Monitor

AXES = np.array([[0.8, 0.6, 0.0], [-0.36, 0.48, 0.8]])  # along a row, down a column: oblique
NORMAL = np.cross(*AXES)
PIXEL_MM = (0.8, 0.5)  # between rows, between columns
SIZE = (72, 64)


def slices_at(along: Any, tilt: tuple[float, float] = (0.0, 0.0), origin: Any = (5, -7, 30)) -> Any:
    """Slices at mm along the normal, slanted by degrees down the columns and along the rows."""
    slope = np.tan(np.radians(tilt))
    return [
        Slice(
            file=Path(f"{index:03d}.dcm"),
            rows=SIZE[0],
            columns=SIZE[1],
            position=tuple(
                (origin + mm * (NORMAL + slope[0] * AXES[1] + slope[1] * AXES[0])).tolist()
            ),
            orientation=tuple(AXES.ravel().tolist()),
            pixel_spacing=PIXEL_MM,
        )
        for index, mm in enumerate(along)
    ]


def imaged(slices: Any) -> np.ndarray:
    """What a scanner sees of `smooth` at every pixel."""
    j, i = np.mgrid[: SIZE[0], : SIZE[1]]
    inside = PIXEL_MM[0] * j[..., None] * AXES[1] + PIXEL_MM[1] * i[..., None] * AXES[0]
    return np.stack([smooth(inside + np.asarray(one.position)) for one in slices]).astype("f4")


def places(geometry: Geometry, shape: tuple[int, ...]) -> np.ndarray:
    k, j, i = np.mgrid[: shape[0], : shape[1], : shape[2]]
    return (np.stack([i, j, k, np.ones_like(i)], -1) @ geometry.affine_lps.T)[..., :3]


def smooth(points: np.ndarray) -> np.ndarray:
    """−50 to 1050, with waves of 9 mm and longer."""
    x, y, z = np.moveaxis(points, -1, 0)
    return 500 + 300 * np.sin(x * 2 * np.pi / 9) * np.cos(y / 4) + 250 * np.sin(z / 11 + y / 15)


def repaired(slices: Any, voxels: np.ndarray) -> Any:
    result = stack(slices, "series", Monitor(), resample=True)
    assert result.repair is not None
    fixed, geometry, notes = result.repair.apply(voxels, Monitor())
    assert geometry == result.geometry
    return fixed, geometry, notes


def covered(slices: Any, geometry: Geometry, shape: tuple[int, ...], margin: float) -> np.ndarray:
    """Where the result is at least `margin` pixels inside the slices that it is made from."""
    points = places(geometry, shape)
    along = np.array([NORMAL @ np.asarray(one.position) for one in slices])
    height = points[:, 0, 0] @ NORMAL
    inside = np.ones(shape, bool)
    for pick in (np.searchsorted(along, height + 1e-6, "right") - 1,
                 np.searchsorted(along, height - 1e-6, "left")):  # fmt: skip
        origins = np.array([slices[n].position for n in pick.clip(0, len(slices) - 1)])
        local = points - origins[:, None, None]
        for axis, mm, size in ((AXES[1], PIXEL_MM[0], SIZE[0]), (AXES[0], PIXEL_MM[1], SIZE[1])):
            at = local @ axis / mm
            inside &= (at >= margin) & (at <= size - 1 - margin)
    return inside


@pytest.mark.parametrize("tilt", [(20.0, 0.0), (-15.5, 0.0), (0.0, 7.3), (12.0, -25.0), (0.5, 0)])
def test_tilted_phantom_lies_where_it_was(tilt: tuple[float, float]) -> None:
    slices = slices_at(3.0 * np.arange(14), tilt)
    voxels = imaged(slices)
    fixed, geometry, notes = repaired(slices, voxels)
    truth = smooth(places(geometry, fixed.shape)).clip(voxels.min(), voxels.max())
    inside = covered(slices, geometry, fixed.shape, margin=6)
    assert inside.mean() > 0.2
    error = np.abs(fixed - truth)[inside]
    assert error.max() < 1.0  # of a range of 1100
    assert np.sqrt(np.mean(error**2)) < 0.2
    assert geometry.is_right_handed
    assert geometry.spacing == pytest.approx((0.5, 0.8, 3.0))
    assert "slant of" in notes[0]


def test_first_slice_and_whole_steps_pass_bit_for_bit(rng: np.random.Generator) -> None:
    slices = slices_at(2.0 * np.arange(5), (np.degrees(np.arctan(0.8)), 0.0))  # two rows a slice
    voxels = rng.integers(-1000, 3000, (5, *SIZE)).astype(np.int16)
    fixed, _, notes = repaired(slices, voxels)
    assert fixed.shape == (5, SIZE[0] + 8, SIZE[1])
    expected = np.full(fixed.shape, voxels.min())
    for k in range(5):
        expected[k, 2 * k : 2 * k + SIZE[0]] = voxels[k]
    assert np.array_equal(fixed, expected)
    assert any(f"lowest value, {voxels.min()}" in note for note in notes)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "f8"])
def test_type_stays_and_nothing_is_brighter_than_measured(
    rng: np.random.Generator, dtype: str
) -> None:
    slices = slices_at([0.0, 2.0, 4.0, 8.0, 10.0, 12.0], (11.0, 3.0))
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.iinfo("int16")
    voxels = rng.choice([info.min, info.max], (6, *SIZE)).astype(dtype)
    fixed, _, _ = repaired(slices, voxels)
    assert fixed.dtype == np.dtype(dtype)
    assert fixed.min() == voxels.min()
    assert fixed.max() == voxels.max()


def test_a_slant_that_no_gantry_has_stays_refused() -> None:
    steep, endless = (
        slices_at(3.0 * np.arange(5), (50.0, 0)),
        slices_at(1e3 * np.arange(50), (44.0, 0)),
    )
    for slices in (steep, endless):  # more pixels than any memory holds
        with pytest.raises(GeometryError, match="more than any gantry tilts"):
            stack(slices, "series", Monitor(), resample=True)


def test_missing_slice_is_made_from_its_neighbors(rng: np.random.Generator) -> None:
    slices = slices_at([0.0, 2.0, 4.0, 8.0, 10.0])
    voxels = rng.integers(0, 1000, (5, *SIZE)).astype(np.int16)
    fixed, geometry, notes = repaired(slices, voxels)
    assert fixed.shape == (6, *SIZE)
    assert geometry.spacing[2] == pytest.approx(2.0)
    assert np.array_equal(fixed[[0, 1, 2, 4, 5]], voxels)
    assert np.array_equal(fixed[3], np.rint((voxels[2] + voxels[3]) / 2.0).astype(np.int16))
    assert len(notes) == 1
    for part in ("32.88 mm (1 missing); the others", "even 2.000 mm", "2.00 of 10.00 mm"):
        assert part in notes[0]
    assert ".dcm" not in notes[0]  # the history goes into results: names may be those of patients


def test_what_is_no_number_is_not_resampled_away(make_series: Make) -> None:
    stored = np.zeros((4, 20, 20), np.int16)
    stored[2, 3, 4] = 1000
    positions = [(0.0, 0.0, height) for height in (0.0, 2.0, 6.0, 8.0)]
    folder = make_series(stored, positions=positions, RescaleSlope=1e37)
    with pytest.raises(InputError, match=rf"{folder.name}: 1 voxel is NaN or infinite.* slice 2"):
        load_dicom(folder, resample=True, monitor=Monitor())


DISK = np.hypot(*np.mgrid[-20:20, -20:20]) < 14.5
EVEN, GAP = range(6), (0, 1, 2, 4, 5, 6)


@pytest.mark.parametrize(("heights", "slope"), [(EVEN, 0.37), (GAP, 0.0), (GAP, 0.37)])
@pytest.mark.parametrize(
    ("padding", "stated"),
    [
        (-2000, {"PixelPaddingValue": -2000}),
        (-2000, {"PixelPaddingValue": 63536}),  # written as the bits of an unsigned number
        (3000, {"PixelPaddingValue": 3000}),
        (-1990, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1980}),
        (-1024, {}),
    ],
)
def test_padding_is_not_mixed_into_tissue(
    make_series: Make, heights: Any, slope: float, padding: int, stated: dict[str, int]
) -> None:
    """The tissue is the same along each column, so that only padding could change it."""
    tissue = 40 + np.arange(40)
    stored = np.stack([np.where(np.roll(DISK, k, 1), tissue, padding) for k in range(6)])
    positions = [(0.0, slope * k * 2.0, k * 2.0) for k in heights]
    rescale = {"RescaleSlope": 0.5, "RescaleIntercept": -7.25}
    folder = make_series(stored.astype(np.int16), positions=positions, **rescale)
    for dataset in edited(folder):
        for name, value in stated.items():
            dataset.add_new(name, "US" if value > 32767 else "SS", value)
    volume = load(folder, resample=True)
    empty = 0.5 * stated.get("PixelPaddingValue", padding) - 7.25
    empty = 0.5 * -2000 - 7.25 if stated.get("PixelPaddingValue") == 63536 else empty
    is_tissue = volume.voxels != empty
    expected = np.broadcast_to(0.5 * tissue - 7.25, volume.shape)
    assert np.allclose(volume.voxels[is_tissue], expected[is_tissue], atol=1e-4)
    assert np.array_equal(is_tissue[0, :40], DISK)
    if slope == 0:  # the slice in the gap: what the nearer one shows, here the one below
        assert np.array_equal(is_tissue[3], np.roll(DISK, 2, 1))
