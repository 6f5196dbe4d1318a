"""Synthetic volumes of random shapes and textures, with the statistics of tissue and no anatomy.

Ellipsoids, plates and tubes of power-law sizes cover each other ("dead leaves"): edges of every
size, contrast and direction, at every distance from each other. Textures of a power-law spectrum
differ from region to region. No number comes from a patient.

Source: images as objects of power-law sizes that occlude each other, Lee, Mumford & Huang, Int. J.
Comput. Vis. 41 (2001) 35. The shapes, textures and numbers are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Floats
from MedEnhanceLib.core.geometry import Geometry, Triple
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/distillation.py.
#: mm along slices, rows and columns: thick slices, and nearly cubic voxels.
_SPACINGS: dict[str, tuple[Triple, Triple]] = {
    "MR": ((3.27, 0.98, 0.98), (1.0, 1.0, 1.0)),
    "CT": ((3.27, 0.98, 0.98), (1.5, 0.9, 0.9)),
}
#: Share of its neighbors that a slice shows.
_CROSS_TALK = 0.15
#: Share of plates and tubes among the shapes; radius in mm from which walls may be wavy.
_THIN_SHARE, _WAVY_FROM = 0.35, 6.0
#: Largest radius in mm.
_LARGEST = 45.0
#: Weakest and strongest texture: as a share of the range in MR, in HU in CT.
_TEXTURE = {"MR": (0.01, 0.08), "CT": (4.0, 30.0)}


@dataclass(frozen=True)
class _Shapes:
    """Number and appearance of shapes.

    Attributes:
        smallest, largest: radii in mm.
        power: p of the radii's density r^−p.
        edge: width of an edge in pixels.
        thin: share of plates and tubes.
    """

    count: int
    smallest: float
    largest: float = _LARGEST
    power: float = 2.0
    edge: float = 0.6
    thin: float = _THIN_SHARE


def synthetic_volume(
    modality: Literal["MR", "CT"],
    seed: int,
    *,
    shape: tuple[int, int, int] = (32, 112, 112),
    spacing: Triple | None = None,
) -> Volume:
    """Draw a clean volume of random shapes and textures.

    Args:
        modality: "MR": 0 is air and bright tissue is 1. "CT": HU, a body in air.
        seed: random seed; an even one gives thick slices, an odd one nearly cubic voxels.
        shape: voxels along slices, rows and columns.
        spacing: mm along slices, rows and columns, instead of those of the seed.
    Returns a volume of float32, axes parallel to the patient's.
    """
    draw, stream = {"MR": (_mr, 77), "CT": (_ct, 78)}[modality]
    mm = spacing or _SPACINGS[modality][seed % 2]
    voxels = draw(shape, mm, np.random.default_rng([stream, seed]))
    spacing = (mm[2], mm[1], mm[0])
    units = profile_of(modality).units
    source = f"synthetic {modality} {seed}"
    return Volume(voxels, Geometry(spacing=spacing), modality=modality, units=units, source=source)


def _mr(shape: tuple[int, int, int], mm: Triple, rng: np.random.Generator) -> Floats:
    """Draw gray values of any contrast; half of the volumes have air around."""
    is_thick = mm[0] > 2 * mm[2]
    shapes = _Shapes(
        count=int(rng.integers(250, 1200)),
        smallest=2.0 if is_thick else 1.5,
        power=rng.uniform(1.5, 3.2),
        edge=rng.uniform(0.5, 1.1),
    )
    tissue = _covered(shape, mm, rng, shapes, lambda: rng.random())
    if is_thick:
        tissue = _with_cross_talk(tissue)
    strength = float(np.exp(rng.uniform(*np.log(_TEXTURE["MR"]))))
    tissue *= 1 + np.float32(0.1) * _grain(shape, mm, rng, 4.0)
    tissue += strength * _regions(shape, mm, rng) * _grain(shape, mm, rng, rng.uniform(1, 3))
    np.maximum(tissue, 0, out=tissue)
    tissue /= np.float32(np.quantile(tissue, 0.995))
    if rng.random() < 0.5:
        parts = _Shapes(count=6, smallest=25, largest=60, power=1.2, edge=0.8, thin=0)
        body = _covered(shape, mm, rng, parts, lambda: float(rng.random() < 0.7))
        tissue *= np.clip(np.float32(1.2) * body, 0, 1)
    return np.clip(tissue, 0, 1.3).astype(np.float32)


def _ct(shape: tuple[int, int, int], mm: Triple, rng: np.random.Generator) -> Floats:
    """Draw fat, muscle, bone and gas in a body, HU; slices show a little of their neighbors."""
    shapes = _Shapes(
        count=int(rng.integers(250, 900)),
        smallest=2.0,
        power=rng.uniform(1.5, 3.0),
        edge=rng.uniform(0.6, 1.2),
    )
    tissue = _with_cross_talk(_covered(shape, mm, rng, shapes, lambda: _hounsfield(rng)))
    strength = float(np.exp(rng.uniform(*np.log(_TEXTURE["CT"]))))
    tissue += strength * _regions(shape, mm, rng) * _grain(shape, mm, rng, rng.uniform(1.5, 3.5))
    rows, columns = (np.abs(np.linspace(-1, 1, side)) for side in shape[1:])
    widths = rng.uniform(0.8, 1.1, 2)
    distance = (rows / widths[0])[:, None] ** 2.5 + (columns / widths[1]) ** 2.5
    body = np.clip((1 - distance) * 20, 0, 1).astype(np.float32)
    tissue = tissue * body - 1000 * (1 - body)
    volume: Floats = np.clip(tissue, -1000, 1500).astype(np.float32)
    return volume


def _hounsfield(rng: np.random.Generator) -> float:
    """Draw the HU of a shape: muscle and organs, fat, bone, gas, or anything between."""
    kind = rng.random()
    if kind < 0.42:
        return rng.normal(50, 25)
    if kind < 0.78:
        return rng.normal(-95, 20)
    if kind < 0.88:
        return rng.uniform(150, 1200)
    if kind < 0.92:
        return rng.uniform(-950, -700)
    return rng.uniform(-250, 250)


def _with_cross_talk(tissue: Floats) -> Floats:
    """Mix a share of the neighboring slices into each slice."""
    around = np.roll(tissue, 1, 0) + np.roll(tissue, -1, 0)
    mixed = (tissue + _CROSS_TALK * around) / (1 + 2 * _CROSS_TALK)
    return mixed.astype(np.float32)


def _regions(shape: tuple[int, int, int], mm: Triple, rng: np.random.Generator) -> Floats:
    """Draw a factor of 0 to 1 for the texture of each region."""
    shapes = _Shapes(count=40, smallest=6, largest=50, power=1.5, thin=0.1)
    factor: Floats = np.abs(_covered(shape, mm, rng, shapes, lambda: rng.random()))
    return factor


def _covered(
    shape: tuple[int, int, int],
    mm: Triple,
    rng: np.random.Generator,
    shapes: _Shapes,
    level: Callable[[], float],
) -> Floats:
    """Cover a volume with shapes, large ones first, so that all sizes are visible.

    mm: along K, J, I. level: draws the gray value of a shape.
    """
    covered = np.full(shape, rng.uniform(0.2, 0.8), np.float32)
    ends = 1 - shapes.power
    low, high = shapes.smallest**ends, shapes.largest**ends
    radii = (low + rng.random(shapes.count) * (high - low)) ** (1 / ends)
    size = np.multiply(shape, mm)
    for radius in np.sort(radii)[::-1]:
        _cover(covered, mm, rng, shapes, float(radius), rng.uniform(-0.05, 1.05, 3) * size, level())
    return covered


def _cover(
    covered: Floats,
    mm: Triple,
    rng: np.random.Generator,
    shapes: _Shapes,
    radius: float,
    center: Doubles,
    level: float,
) -> None:
    """Put a shape in front of the others; `center` in mm from the corner."""
    stretch = np.exp(rng.uniform(-0.5, 0.5, 3))
    axes = radius * stretch / stretch.prod() ** (1 / 3)
    is_thin = rng.random() < shapes.thin
    if is_thin and rng.random() < 0.5:  # plates: fasciae, cortex, skin
        axes[0] = max(0.6, axes[0] * rng.uniform(0.06, 0.3))
        axes[1:] *= 1.6
    elif is_thin:  # tubes: vessels
        axes[1:] = np.maximum(0.7, axes[1:] * rng.uniform(0.1, 0.4))
        axes[0] *= 2.5
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    soft = shapes.edge * mm[2]
    reach = 1.3 * np.sqrt(turn**2 @ axes**2) + 3 * soft
    first = np.maximum(0, np.floor((center - reach) / mm)).astype(int)
    stop = np.minimum(covered.shape, np.ceil((center + reach) / mm) + 1).astype(int)
    if (stop <= first).any():
        return
    at = [
        ((np.arange(low, high) + 0.5) * side - middle).astype(np.float32)
        for low, high, side, middle in zip(first, stop, mm, center, strict=True)
    ]
    k, j, i = np.meshgrid(*at, indexing="ij", sparse=True)
    to_axes = (turn / axes).astype(np.float32)
    along = [to_axes[0, n] * k + to_axes[1, n] * j + to_axes[2, n] * i for n in range(3)]
    distance = np.sqrt(np.square(along[0]) + np.square(along[1]) + np.square(along[2]))
    if radius > _WAVY_FROM and rng.random() < 0.7:
        unit, frequency = _direction(rng), rng.uniform(0.5, 2.5) * 2 * np.pi / radius
        wave = np.sin(frequency * (unit[0] * k + unit[1] * j + unit[2] * i) + rng.uniform(0, 6.3))
        distance *= 1 + np.float32(rng.uniform(0.02, 0.2)) * wave
    inside = (1 - distance) * np.float32(axes.min() if is_thin else radius)  # mm, roughly
    share = np.clip(np.float32(0.5) + inside / np.float32(2 * soft), 0, 1)
    value: Floats | float = level
    if rng.random() < 0.5:  # a bias field within the shape
        slope = _direction(rng) * np.float32(rng.uniform(0, 0.25) / max(radius, 4))
        value = np.float32(level) * (1 + slope[0] * k + slope[1] * j + slope[2] * i)
    part = covered[first[0] : stop[0], first[1] : stop[1], first[2] : stop[2]]
    part += share * (value - part)


def _direction(rng: np.random.Generator) -> Floats:
    """Draw a unit vector."""
    vector = rng.standard_normal(3)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _grain(
    shape: tuple[int, int, int], mm: Triple, rng: np.random.Generator, power: float
) -> Floats:
    """Draw Gaussian texture of unit variance and of power f^−power, the same in all directions."""
    k, j = (np.fft.fftfreq(side, step) for side, step in zip(shape[:2], mm[:2], strict=True))
    i = np.fft.rfftfreq(shape[2], mm[2])
    frequency = np.sqrt(k[:, None, None] ** 2 + j[:, None] ** 2 + i**2)
    frequency[0, 0, 0] = 1
    # No frequencies above those that pixels can show.
    amplitude = frequency ** (-power / 2) * np.exp(-((frequency * 0.9 * mm[2]) ** 4))
    amplitude[0, 0, 0] = 0
    waves = np.fft.rfftn(rng.standard_normal(shape)) * amplitude
    texture = np.fft.irfftn(waves, shape, axes=(0, 1, 2))
    unit: Floats = (texture / texture.std()).astype(np.float32)
    return unit
