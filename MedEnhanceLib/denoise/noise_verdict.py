"""Noise of a volume, and what an enhancement of it can be expected to remove, before it runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any, Final, Literal

from MedEnhanceLib.core.arrays import extremes
from MedEnhanceLib.core.findings import CLEAN, REMOVED, UNCERTAIN, level_of, noise_level
from MedEnhanceLib.core.quantity import quantity_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.decide import VolumeCache
from MedEnhanceLib.denoise.enhancer import measure
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.describe import LARGEST
from MedEnhanceLib.noise.even_region import (
    APART,
    EvenTissue,
    cube_around,
    even_tissue_of,
    measure_region,
)
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import Text, text

#: The verdict on a volume whose noise an enhancement would remove: the run has not been made.
NOISY: Final = "noisy"
#: Noise of a region over that of the volume from which the sentence asks to look, and over that of
#: even regions up to which it agrees with them. Chosen by hand; no table isolates it.
_MORE = 1.25


@dataclass(frozen=True, kw_only=True)
class NoiseVerdict:
    """The noise of a volume, or of a region of it.

    Attributes:
        sigma: standard deviation of the noise, in the volume's units.
        interval: ends of what it likely is; 0 and infinity where it cannot be measured.
        confidence: that the measurement holds, 0 to 1.
        units: "" where they are not known.
        reason: why the noise is uncertain, or stays; None for neither.
        verdict: "clean", "noisy" (enhancing removes noise) or "uncertain".
        snr: median of the tissue over `sigma`; None for CT.
        removable: expected share of the error (RMS) that an enhancement removes, 0 to 1; None where
            the noise is uncertain, and for a region.
        region: (start, stop) along K, J, I; None for the volume.
        frame: number of the frame that the region is of, from 0; None for a single volume.
        volume_sigma: of a region: that of the whole volume; None if it cannot be measured.
        places: up to three voxels (K, J, I, from 0) in even tissue, where the noise is uncertain.
        even_sigma: σ that the even tissue of an uncertain volume agrees on, and a region with it;
            None where they do not agree.
        odd_frames: of each frame of a sequence that is unlike the others, how; its `numbers` have
            the frame, from 0.
    """

    sigma: float
    interval: tuple[float, float]
    confidence: float
    units: str = ""
    reason: Text | None = None
    verdict: Literal["clean", "noisy", "uncertain"] = NOISY
    snr: float | None = None
    removable: float | None = None
    region: tuple[tuple[int, int], ...] | None = None
    frame: int | None = None
    volume_sigma: float | None = None
    places: tuple[tuple[int, ...], ...] = ()
    even_sigma: float | None = None
    odd_frames: tuple[Text, ...] = ()

    @property
    def is_measured(self) -> bool:
        """Whether the noise can be measured at all."""
        return math.isfinite(self.interval[1])

    @property
    def is_certain(self) -> bool:
        """Whether what is to be removed is known: the noise, or that there is hardly any."""
        return self.verdict != UNCERTAIN

    @property
    def text(self) -> Text:
        """The verdict in words."""
        if self.reason and not self.is_measured:
            return self.reason
        level = noise_level({"sigma": self.sigma, "interval": self.interval}, self.units)
        if self.region:
            key = "region" if self.frame is None else "region_of_frame"
            noise = text(key, level=level, frame=self.frame)
            if self.even_sigma:
                noise = text("as_even_regions", noise=noise, sigma=level_of(self.even_sigma))
            elif self.volume_sigma:
                is_less = not self.reason and self.interval[0] > _MORE * self.volume_sigma
                key = "look_at_region" if is_less else "in_whole"
                noise = text(key, noise=noise, sigma=level_of(self.volume_sigma))
            key = "uncertain_region"
        elif self.verdict == CLEAN:
            return text("clean_snr" if self.snr else "clean_noise", level=level, snr=self.snr)
        elif self.is_certain:
            percent = 5 * round(20 * (self.removable or 0))
            key = "noisy_snr" if self.snr else "noisy"
            noise = text(key, level=level, snr=self.snr, percent=percent)
            key = "noisy_because"
        else:
            noise, key = text("noise", level=level), "uncertain_noise"
        said = text(key, noise=noise, reason=self.reason) if self.reason else noise
        if self.even_sigma and not self.region:
            sigma = level_of(self.even_sigma, self.units)
            return text("even_regions_agree", noise=said, sigma=sigma)
        return said

    @property
    def sentence(self) -> str:
        """The verdict as a sentence, without full stop."""
        return str(self.text)

    def to_json(self) -> dict[str, Any]:
        """Return all fields that are known, with the sentence."""
        known = {name: value for name, value in vars(self).items() if value not in (None, "", ())}
        reason = {"reason": self.reason.to_json()} if self.reason else {}
        odd = (
            {"odd_frames": [each.to_json() for each in self.odd_frames]} if self.odd_frames else {}
        )
        return known | reason | odd | {"is_certain": self.is_certain} | self.text.to_json()


def measured_noise(
    volume: Volume,
    *,
    region: Sequence[slice | EllipsisType] | None = None,
    at: Sequence[int] | None = None,
    cache: VolumeCache | None = None,
    monitor: Monitor | None = None,
) -> NoiseVerdict:
    """Measure the noise of a volume, of a region of it, or in 12 mm around a voxel.

    Args:
        volume: as of `noise_verdict`.
        region: as of `region_verdict`; None or empty: the volume.
        at: K, J and I of the voxel.
        cache: as of `noise_verdict`.
        monitor: receives progress; may cancel.
    Raises:
        ConfigError: both a region and a voxel, or one outside the volume.
        InputError: the volume cannot be measured, or shows no even tissue there.
    """
    refuse_two_regions(region, at)
    if at is not None:
        region = _cube_of(volume, at)
    if region:
        return region_verdict(volume, region, cache=cache, monitor=monitor)
    return noise_verdict(volume, cache=cache, monitor=monitor) or _unmeasured(volume)


def _unmeasured(volume: Volume) -> NoiseVerdict:
    """Return the verdict on a volume of which `noise_verdict` gives none, with the reason."""
    key = "noise_not_measured" if volume.profile.is_known else "noise_of_unknown"
    said = text(key, name=Path(volume.source).name or "volume", modality=volume.modality)
    return NoiseVerdict(
        sigma=0.0, interval=(0.0, math.inf), confidence=0.0, verdict=UNCERTAIN, reason=said
    )


def refuse_two_regions(region: Sequence[object] | None, at: Sequence[int] | None) -> None:
    """Raise ConfigError where both are given; call it before a file is read."""
    if region is not None and at is not None:
        raise ConfigError("region and at name two regions", "Give one of them.")


def noise_verdict(
    volume: Volume, *, cache: VolumeCache | None = None, monitor: Monitor | None = None
) -> NoiseVerdict | None:
    """Measure the noise of a volume, and say what an enhancement can be expected to remove.

    Args:
        volume: a volume, or a sequence whose frames share their noise.
        cache: measurements of the volume, filled for later enhancements.
        monitor: receives progress; may cancel.
    Returns None for modalities other than CT and MR, for voxels that are not finite or too large,
    and for what is no image: phase, labels, maps.
    """
    low, high = extremes(volume.voxels)
    if not volume.profile.is_measured or not (low >= -LARGEST and high <= LARGEST):
        return None
    if low == high or quantity_of(volume)[0]:
        return None
    decision = measure(volume, cache=cache, monitor=monitor)
    facts = decision.facts["noise"]
    unfit = Text.from_json(facts["unfit"]) if "unfit" in facts else None
    even = EvenTissue()
    if facts["verdict"] == UNCERTAIN:
        even = even_tissue_of(volume, facts["interval"][1])
    return NoiseVerdict(
        sigma=facts["sigma"],
        interval=(facts["interval"][0], facts["interval"][1]),
        confidence=facts["confidence"],
        units=volume.units,
        reason=unfit or decision.noise.reason or decision.removal.reason,
        verdict=NOISY if facts["verdict"] == REMOVED else facts["verdict"],
        snr=facts.get("snr"),
        removable=facts.get("expected"),
        places=even.places,
        even_sigma=even.level,
        odd_frames=tuple(each.text for each in decision.odd),
    )


def region_verdict(
    volume: Volume,
    region: Sequence[slice | EllipsisType],
    *,
    cache: VolumeCache | None = None,
    monitor: Monitor | None = None,
) -> NoiseVerdict:
    """Measure the noise in a region of even tissue; of a sequence in its first frame.

    Args:
        volume: of any modality.
        region: slices along K, J and I; the last ones may be missing.
        cache: as of `noise_verdict`.
        monitor: receives progress; may cancel.
    Raises:
        ConfigError: the region is outside the volume.
        InputError: it is too small, or shows no tissue.
    """
    frame = volume.frame(0)
    given = [each if isinstance(each, slice) else slice(None) for each in region]
    where = [*given, *[slice(None)] * (3 - len(given))]
    ends = [each.indices(side)[:2] for each, side in zip(where, frame.shape, strict=True)]
    if any(start >= stop for start, stop in ends):
        raise ConfigError(
            f"the region {ends} is empty in a volume of shape {frame.shape}",
            "Give start and stop of slices, rows and columns.",
        )
    whole = noise_verdict(volume, cache=cache, monitor=monitor)
    highest = whole.interval[1] if whole else math.inf
    even_tissue = functools.cache(lambda: even_tissue_of(frame, highest))
    try:
        noise = measure_region(
            frame.voxels[tuple(slice(*each) for each in ends)], modality=volume.modality
        )
    except InputError as error:
        hint = error.hint
        if places := even_tissue().places:
            at = " or ".join(",".join(map(str, place)) for place in places)  # as --at takes them
            hint = f"{hint.removesuffix('.')}, such as around the voxels {at}."
        raise InputError(f"{volume.source or 'volume'}: {error.message}", hint) from error
    reason = noise.reason
    even_sigma = (whole and whole.even_sigma) or 0.0
    is_apart = noise.low > APART * highest
    if is_apart and whole and not whole.is_certain:
        is_apart = noise.low > even_tissue().highest
    if whole and not reason and is_apart:
        reason = text("noisier_region", times=noise.level / whole.sigma)
    agrees = noise.high > even_sigma / _MORE and noise.low < _MORE * even_sigma
    return NoiseVerdict(
        sigma=float(f"{noise.level:.4g}"),
        interval=(float(f"{noise.low:.4g}"), float(f"{noise.high:.4g}")),
        confidence=0.0 if reason else 1.0,
        verdict=UNCERTAIN if reason else NOISY,
        units=volume.units,
        reason=reason,
        region=tuple((int(start), int(stop)) for start, stop in ends),
        frame=0 if volume.is_sequence else None,
        volume_sigma=whole.sigma if whole else None,
        places=even_tissue().places if reason else (),
        even_sigma=even_sigma if not reason and agrees else None,
    )


def _cube_of(volume: Volume, voxel: Sequence[int]) -> tuple[slice, ...]:
    """Return a cube of 12 mm around a voxel (K, J, I); ConfigError for one outside the volume."""
    shape = volume.shape[-3:]
    is_inside = len(voxel) == 3 and all(
        0 <= at < side for at, side in zip(voxel, shape, strict=True)
    )
    if not is_inside:
        raise ConfigError(
            f"there is no voxel {tuple(voxel)} in a volume of shape {shape}",
            "Give slice, row and column, from 0.",
        )
    return cube_around(voxel, shape, volume.geometry.spacing[::-1])
