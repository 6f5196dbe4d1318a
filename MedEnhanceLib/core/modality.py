"""Modalities: what decides how their volumes are computed, and which one values fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from MedEnhanceLib.core.arrays import Array, Voxels, extremes, sample_of

#: mm; a smaller spacing is that of a microscope.
MICROSCOPY_MM = 1e-3
#: mm; a smaller spacing may be that of a light microscope, of micro-CT or of MR microscopy.
_MICRO_MM = 0.03
#: Air is -1000 HU; -4096 is the lowest padding in use; metal saturates at 12 or 16 bits.
_HU_AIR, _HU_LOWEST, _HU_HIGHEST = -500, -4096, 32767
#: How to set the modality, for hints.
SET_MODALITY = "--modality (modality= in Python)"
#: Least share of dark voxels in MR (measured: .07 or more); least spread over mean of ultrasound in
#: the smoothest tenth of squares of 8 voxels (measured in MR of 8 bits: .074 or less).
_LEAST_DARK, _LEAST_SPECKLE = 0.002, 0.08


#: Modalities that the library distinguishes; OT is DICOM's term for "other".
ModalityName = Literal["CT", "MR", "PT", "EM", "SEG", "OT"]
#: Those that have filters, calibrations, networks and simulations of their own.
Like = Literal["CT", "MR"]
#: HU of the soft-tissue window, which the compression tables use as well.
SOFT_TISSUE = (-160.0, 240.0)


@dataclass(frozen=True, kw_only=True)
class Modality:
    """Properties of a modality that decide how its volumes are computed.

    Attributes:
        name: of DICOM; OT is its term for "other".
        like: the modality whose filter, calibrations, networks and simulations it takes.
        units: of intensities whose file states none; "" where they are arbitrary.
        window: lowest and highest intensity shown where tissue is within; None: by the values.
        is_absolute: the scale is fixed (HU), so that air and tissue have known values; otherwise
            values are relative to bright tissue.
        is_magnitude: values are magnitudes, whose noise is Rician where none is below 0.
        is_projected: noise comes from projections and a kernel, which give it a spectrum and a
            map; otherwise it is white and even where nothing else is measured.
        is_measured: noise can be measured in it.
        has_bias_field: it can be measured, and corrected on request.
        is_known: what its volumes are is known, so that a model can be chosen for them.
        is_labels: values are labels of structures, without an order, noise or time.
        is_specimen: of a specimen, to which the directions of a patient do not apply.
    """

    name: ModalityName
    like: Like = "MR"
    units: str = ""
    window: tuple[float, float] | None = None
    is_absolute: bool = False
    is_magnitude: bool = False
    is_projected: bool = False
    is_measured: bool = False
    has_bias_field: bool = True
    is_known: bool = True
    is_labels: bool = False
    is_specimen: bool = False

    @property
    def scale(self) -> str:
        """The intensities that networks see, in words."""
        return "HU / 1000" if self.is_absolute else "value / robust maximum"

    def takes(self, trained_on: str) -> bool:
        """Return whether a model may be used: of its own modality, or any where it is unknown."""
        return self.name == trained_on or not self.is_known


#: By name; another modality is an entry here.
PROFILES: dict[str, Modality] = {
    each.name: each
    for each in (
        Modality(
            name="CT",
            like="CT",
            units="HU",
            window=SOFT_TISSUE,
            is_absolute=True,
            is_projected=True,
            is_measured=True,
            has_bias_field=False,
        ),
        Modality(name="MR", is_magnitude=True, is_measured=True),
        Modality(name="PT"),
        Modality(name="EM", is_specimen=True),
        Modality(name="SEG", is_labels=True),
        Modality(name="OT", is_known=False),
    )
}
MODALITIES = tuple(PROFILES)


def profile_of(modality: str) -> Modality:
    """Return the properties of a modality; those of OT for an unknown one."""
    return PROFILES.get(modality, PROFILES["OT"])


def likely_modalities(voxels: Voxels, spacing: Sequence[float]) -> tuple[str, ...]:
    """Return the modalities that voxels and spacing fit, the likeliest first; at least one.

    EM is known by its spacing, CT by values like HU, MR by many levels from a dark background.
    Several are returned where values do not decide: for CT stored from 0, parts of a body without
    air, microscopes, ultrasound. Everything else is OT: label maps and small ranges (SUV) among
    them.

    Args:
        voxels: [K, J, I] or [T, K, J, I].
        spacing: mm along i, j, k.
    """
    if min(spacing) < MICROSCOPY_MM:
        return ("EM",)
    low, high = (float(end) for end in extremes(voxels))
    sample = sample_of(voxels)
    # Interpolation leaves few low values in MR, where bright tissue is far above them.
    has_air = low < -0.25 * high or np.mean(sample < _HU_AIR) > 1e-3
    if _HU_LOWEST <= low <= _HU_AIR and 100 <= high <= _HU_HIGHEST and has_air:
        ends = np.percentile(sample, ((2, 10), (98, 90)))
        # Real parts of MR spread alike on both sides of 0.
        is_mirrored = (np.abs(ends.sum(axis=0)) < 0.2 * (ends[1] - ends[0])).all()
        return ("MR", "CT") if is_mirrored else ("CT",)
    if not (low >= -0.25 * high and high >= 64 and np.unique(sample).size > 32):
        return ("OT",)
    darkest, top = np.percentile(sample, (1, 99.8))
    if darkest < -0.05 * top or _is_ct_from_0(sample, darkest, top):
        return ("CT", "MR")
    is_bright = np.mean(sample < 0.1 * top) < _LEAST_DARK
    if is_bright or min(spacing) < _MICRO_MM or _is_speckle(voxels, top):
        return ("OT", "MR")
    return ("MR",)


def guess_modality(voxels: Voxels, spacing: Sequence[float]) -> str:
    """Return the only modality of `likely_modalities`; OT where there are several."""
    likely = likely_modalities(voxels, spacing)
    return likely[0] if len(likely) == 1 else "OT"


def _is_ct_from_0(sample: Array, air: float, top: float) -> bool:
    """Return whether a histogram is that of CT without its offset of -1024 HU.

    Soft tissue or fat is about 1000 above air, with little between them, and bone above; in MR
    tissue of many levels lies between air and the brightest one.
    """
    counts, edges = np.histogram(sample, 128, (air, top))
    peak = edges[20 + int(np.argmax(np.convolve(counts, (1, 1, 1), "same")[20:]))] - air
    shares = (sample[sample > air + 0.25 * peak] - air) / max(peak, 1e-9)
    between = np.mean((shares > 0.4) & (shares < 0.82))
    near = np.mean(np.abs(shares - 1) < 0.18)
    is_narrow = near > 0.75 or (near > 0.5 and top - air > 1.5 * peak)
    return bool(850 < peak < 1150 and between < 0.22 and is_narrow)


def _is_speckle(voxels: Voxels, top: float) -> bool:
    """Return whether 8-bit voxels are black around a field without any smooth part."""
    if voxels.dtype != np.uint8 or np.mean(sample_of(voxels) == 0) < 0.1:
        return False
    rows, columns = (side // 8 for side in voxels.shape[-2:])
    if not (rows and columns):
        return False
    planes = voxels.reshape(-1, *voxels.shape[-2:])[..., : rows * 8, : columns * 8]
    squares = planes[:: max(1, len(planes) // 16)].reshape(-1, rows, 8, columns, 8).astype(float)
    mean, spread = squares.mean(axis=(2, 4)), squares.std(axis=(2, 4))
    shown = mean > 0.25 * top
    return bool(shown.any() and np.percentile(spread[shown] / mean[shown], 10) > _LEAST_SPECKLE)
