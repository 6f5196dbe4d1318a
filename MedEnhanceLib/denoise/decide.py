"""Decision on the correction of a volume, by its measured noise.

`decide` measures the whole volume, and the frames of a sequence together, so that a part is treated
like the whole, and all frames alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from MedEnhanceLib.bundles.suitability import ModelWarning
from MedEnhanceLib.core.arrays import Floats, extremes
from MedEnhanceLib.core.findings import UNCERTAIN, level_of
from MedEnhanceLib.core.geometry import AS_STORED, AxisTurn
from MedEnhanceLib.core.sequence_kind import FUNCTIONAL, REPEATS, is_filtered_together
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.removal import Removal, expected, removal_of, trust_in
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.filters.regions import ConstantRegions
from MedEnhanceLib.io import load
from MedEnhanceLib.noise.contrasts import measure_contrasts
from MedEnhanceLib.noise.estimate import NoiseEstimate, noise_of, noise_to_contrast
from MedEnhanceLib.noise.even_region import even_tissue_of
from MedEnhanceLib.noise.movement import STILL, typical_movement
from MedEnhanceLib.noise.odd_frames import OddFrame, odd_frames, ranges_of
from MedEnhanceLib.noise.rician import bias_of
from MedEnhanceLib.noise.sequence import (
    FrameKinds,
    least_of_tissue,
    measure_frames,
    sample_of_frame,
    sort_frames,
)
from MedEnhanceLib.noise.tissue_blocks import structure_of
from MedEnhanceLib.runtime.machine import blas_on_one_thread
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.runtime.text import grid_text
from MedEnhanceLib.runtime.texts import text

#: Most frames of a sequence that are measured for its decision, spread evenly.
_FRAMES_MEASURED = 9
# Chosen on the scans that the lines name, or by hand; no script repeats these counts.
#: How far beyond the interval of a certain measurement stated noise is unlikely: a factor. That of
#: an uncertain one has all that is likely.
_FAR = 2
#: Correlation of the means of blocks two apart below which a volume is only noise. Noise of usual
#: texture gives 0 ± 1 / √(2n), CT and MR .3 and more, a PET of 34 × 31 pixels .18.
_LEAST_STRUCTURE = 0.1
#: σ over contrast from which noise is strong, and trust (.5 is a confidence of .25) below which it
#: may be structure. Of 77 undamaged scans 2 are beyond both, with simulated noise none.
_STRONG, _UNSURE = 0.3, 0.5
#: Share of neighboring frames that are alike below which frames differ in contrast.
_MOST_ALIKE = 0.5
#: Rician bias in tissue, in σ, from which it is stated: an SNR of 5.
_LEAST_BIAS = 0.1
#: Noise of MR with less power than this share of white noise at the highest frequency of both axes
#: comes from enlarging: scans have .49 and more, images enlarged 1.5 or 2 times .18 and less. In CT
#: a smooth kernel does the same. The spectrum is known to be that of noise from this confidence.
_ENLARGED, _SURE_SPECTRUM = 0.25, 0.3


@dataclass
class VolumeCache:
    """Measurements of one volume, filled by the first run over it.

    Kept beside the volume in memory; valid as long as the voxels do not change.

    Attributes:
        lowest: value of a result, below which is undershoot, by number of the frame.
        noises: measured in each frame alone, by number of the frame.
        kinds: which frames show tissue, and which of them measure the noise; None before.
        frames_noise: the noise that all frames of a sequence show together; None where they show
            none; by whether they are filtered together.
        movement: of the frames, in voxels; None before it is measured.
        odd: frames that the others do not explain; None before.
        signals: medians of the tissue of each frame, 0 without; None before.
        regions: constant ones with the σ that they were searched for, by number of the frame.
        turn: to the order of the voxels that were measured.
    """

    lowest: dict[int, float] = field(default_factory=dict)
    noises: dict[int, NoiseEstimate] = field(default_factory=dict)
    kinds: FrameKinds | None = None
    frames_noise: dict[bool, NoiseEstimate | None] = field(default_factory=dict)
    movement: float | None = None
    odd: tuple[OddFrame, ...] | None = None
    signals: Floats | None = None
    regions: dict[int, tuple[float, ConstantRegions]] = field(default_factory=dict)
    turn: AxisTurn = AS_STORED

    def kinds_of(self, frames: Sequence[Volume]) -> FrameKinds:
        """Return the kinds of all frames, found only once."""
        self.kinds = self.kinds or sort_frames(frames)
        return self.kinds

    def noise(self, number: int, frame: Volume, monitor: Monitor) -> NoiseEstimate:
        """Return the noise of a frame, measured only once.

        Args:
            number: of the frame.
            frame: to measure.
            monitor: may cancel.
        """
        monitor.check()
        if number not in self.noises:
            monitor.progress(0.0, "measuring the noise")
            self.noises[number] = attend(partial(noise_of, frame), monitor)
        return self.noises[number]

    def regions_of(self, number: int, frame: Volume, sigma: float) -> ConstantRegions:
        """Return the constant regions of a frame; those for the last σ of the noise are kept.

        Args:
            number: of the frame.
            frame: to search.
            sigma: of the noise, in the units of the volume.
        """
        known = self.regions.get(number)
        if known is None or known[0] != sigma:
            self.regions[number] = known = sigma, ConstantRegions(frame.voxels, sigma)
        return known[1]

    def movement_of(self, frames: Sequence[Volume], monitor: Monitor) -> float:
        """Return the movement of the frames with tissue in voxels, measured only once."""
        if self.movement is None:
            monitor.check()
            empty = self.kinds_of(frames).empty
            shown = [frame.voxels for n, frame in enumerate(frames) if n not in empty]
            self.movement = typical_movement(shown)
        return self.movement

    def odd_of(self, frames: Sequence[Volume], kind: str, monitor: Monitor) -> tuple[OddFrame, ...]:
        """Return the odd frames among those with tissue, found only once; in MR alone.

        Args:
            frames: all of a sequence.
            kind: what they differ in.
            monitor: may cancel.
        """
        if self.odd is None:
            monitor.check()
            empty = self.kinds_of(frames).empty
            numbers = [n for n in range(len(frames)) if n not in empty]
            is_measured = frames[0].profile.is_magnitude
            levels: list[float] | None = None
            if all(frames[n].gradients for n in numbers):  # scanners state b a little apart
                levels = [round(frames[n].gradients[0].b_value, -2) for n in numbers]
            elif kind in (FUNCTIONAL, REPEATS):
                levels = [0.0] * len(numbers)
            # As stored: what goes wrong within a slice is in one of these.
            voxels = [self.turn.undo(frames[n].voxels) for n in numbers if is_measured]
            found = odd_frames(voxels, levels)
            self.odd = tuple(replace(each, number=numbers[each.number]) for each in found)
        return self.odd

    def signals_of(self, frames: Sequence[Volume]) -> Floats:
        """Return the median of the tissue of each frame of MR, measured only once."""
        if self.signals is None:
            sample = np.stack([sample_of_frame(frame.voxels) for frame in frames])
            mean = sample.mean(axis=0)
            tissue = mean > least_of_tissue(mean, frames[0].modality)
            self.signals = np.median(sample[:, tissue], axis=1) if tissue.any() else 0 * mean[:0]
        return self.signals

    def noise_of_frames(
        self,
        frames: Sequence[Volume],
        typical: NoiseEstimate,
        monitor: Monitor,
        *,
        is_joint: bool,
    ) -> NoiseEstimate | None:
        """Return the noise that frames show together, measured only once; None if they show none.

        Frames that move show more than noise. Where they are filtered together, they may differ in
        contrast. It only increases what is measured: the lower of two measurements is right.

        Args:
            frames: all of a sequence.
            typical: noise measured in one of them.
            monitor: may cancel.
            is_joint: whether they are filtered together.
        """
        if is_joint not in self.frames_noise:
            kinds, odd = self.kinds_of(frames), {each.number for each in self.odd or ()}
            measured = []
            if self.movement_of(frames, monitor) <= STILL:
                numbers = [n for n in kinds.usable if n not in odd]
                measured.append(measure_frames([frames[n] for n in numbers], typical, monitor))
            if is_joint:
                numbers = [n for n in sorted(kinds.usable + kinds.quiet) if n not in odd]
                measured.append(measure_contrasts([frames[n] for n in numbers], typical, monitor))
            by_level = sorted(filter(None, measured), key=lambda noise: noise.level)
            self.frames_noise[is_joint] = by_level[0] if by_level else None
        return self.frames_noise[is_joint]


@dataclass(frozen=True)
class Decision:
    """Treatment of a volume, or of every frame of a sequence.

    Attributes:
        noise: as measured; the same for all frames of a sequence.
        warnings: that the measurement of the noise may not suit the volume.
        facts: what was measured and decided, as manifests record it.
        odd: frames that the others do not explain.
    """

    noise: NoiseEstimate
    removal: Removal
    warnings: tuple[ModelWarning, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    odd: tuple[OddFrame, ...] = ()


@blas_on_one_thread
def decide(
    frames: Sequence[Volume],
    cache: VolumeCache,
    config: EnhanceConfig,
    monitor: Monitor,
    *,
    is_joint: bool = False,
    kind: str = "",
) -> Decision:
    """Measure a volume and decide on its correction, the same for all frames of a sequence.

    Up to nine frames with tissue, spread evenly, are measured. The noise is that of the differences
    of frames or, if these show no common noise, that of the median frame.

    Args:
        frames: [K, J, I] each, all of a sequence.
        cache: measurements of earlier runs over them, filled by this one.
        config: strength, stated noise and whether the bias field is corrected.
        monitor: receives progress; may cancel.
        is_joint: whether the frames of a sequence are filtered together.
        kind: what the frames differ in, as `Volume.sequence_kind`.
    """
    numbers = _spread([n for n in range(len(frames)) if n not in cache.kinds_of(frames).empty])
    measured = [frames[number] for number in numbers]
    noises = [cache.noise(number, frames[number], monitor) for number in numbers]
    kinds, is_full = cache.kinds_of(frames), config.strength == "full"
    odd = cache.odd_of(frames, kind, monitor) if len(frames) > 1 else ()
    middle = _median([*map(noise_to_contrast, noises)])
    typical, own = measured[middle], noises[middle]
    noise, shared = own, None
    warnings: list[ModelWarning | None] = [*frames_warning("no-tissue", kinds.empty)]
    if config.noise is not None:
        noise = _stated_noise(config.noise, typical, own)
        warnings.append(_statement_warning(noise, own, typical))
    elif len(frames) > 1:
        shared = cache.noise_of_frames(frames, own, monitor, is_joint=is_joint)
        noise = shared or own
        noise = replace(noise, sigma=noise[:], cell=(1.0, 1.0, 1.0))  # which every frame reads
        if shared and not is_joint:  # otherwise frames may be weak by their contrast
            warnings += frames_warning("unlike-frames", kinds.quiet)
        differ = shared is None or shared.alike < _MOST_ALIKE or typical.profile.is_magnitude
        warnings.insert(0, _sequence_warning(config, kind, differ=differ, is_joint=is_joint))
    if config.rician:
        noise = replace(noise, rician=_checked_magnitudes(typical))
    takes_all = is_full or config.noise is not None or shared is not None
    removal = removal_of(noise, typical.modality, takes_all=takes_all)
    if removal.reason and len(frames) > 1 and shared is None and config.noise is None:
        removal = replace(removal, reason=text("not_shared", reason=removal.reason))
    if typical.profile.is_projected and not config.for_viewing:
        removal = removal.keeping_lesions()
    elif config.for_viewing and not typical.profile.is_projected:
        warnings.append(ModelWarning("for-viewing", {"modality": typical.modality}))
    unfit = noise_warning(typical, noise, is_full=is_full)
    facts = _facts_of(noise, removal, typical.units)
    prospect = expected(measured, noise, removal, is_unfit=unfit is not None)
    reason = unfit.message if unfit else None
    if prospect["verdict"] == UNCERTAIN and removal.share == 0:  # that it is weak is uncertain too
        reason = reason or noise.reason
    facts |= prospect | {"unfit": reason and reason.to_json()}
    facts = {name: value for name, value in facts.items() if value is not None}
    if shared:
        facts["frames"] = len(kinds.usable + (kinds.quiet if is_joint else ()))
    elif config.noise is not None:
        facts |= {"is_stated": True, "measured": float(f"{own.level:.4g}")}
    if len(frames) > 1 and typical.profile.is_magnitude:
        shown = [n for n in range(len(frames)) if n not in kinds.empty]
        signals = cache.signals_of(frames)
        facts |= _bias_facts(signals, shown, noise, is_requested=config.rician)
    decided = {"noise": facts}
    if odd:
        decided["odd_frames"] = {"texts": [each.text.to_json() for each in odd]}
        warnings.append(ModelWarning("odd-frames", {"odd": "; ".join(str(e.text) for e in odd)}))
    if config.correct_bias_field:
        decided["bias_field"] = {"corrected": True}
    return Decision(noise, removal, tuple(filter(None, [*warnings, unfit])), decided, odd)


def _sequence_warning(
    config: EnhanceConfig, kind: str, *, differ: bool, is_joint: bool
) -> ModelWarning | None:
    """Return a warning where the way in which frames are filtered may not suit them.

    differ: whether frames of unknown kind may differ in contrast: in MR always, as those of
    diffusion are alike but for the first.
    """
    if is_joint and kind and not is_filtered_together(kind):
        return ModelWarning("joint-filter", {"kind": kind})
    if not is_joint and not kind and config.sequence == "auto" and differ:
        return ModelWarning("sequence-kind")
    return None


def _checked_magnitudes(volume: Volume) -> bool:
    """Return True; raises InputError for a volume whose values are no magnitudes."""
    if not volume.profile.is_magnitude or extremes(volume.voxels)[0] < 0:
        raise InputError(
            f"{volume.source or 'volume'}: only magnitudes have a Rician bias: MR without values "
            "below 0",
            "Leave rician out.",
        )
    return True


def _bias_facts(
    signals: Floats, numbers: Sequence[int], noise: NoiseEstimate, *, is_requested: bool
) -> dict[str, Any]:
    """State the Rician bias of the frame that has most of it, in σ, where it is of any size.

    signals: medians of the tissue of all frames; numbers: of those with tissue.
    """
    if not (signals.size and numbers and signals.min() >= 0 and noise.level > 0):
        return {}
    weakest = min(numbers, key=lambda number: float(signals[number]))
    share = float(bias_of(signals[[weakest]] / np.float32(noise.level))[0])
    if share < _LEAST_BIAS and not is_requested:
        return {}
    way = "requested" if is_requested else "corrected" if noise.rician else "stays"
    return {"bias": {"way": way, "frame": weakest, "share": round(share, 2)}}


def _facts_of(noise: NoiseEstimate, removal: Removal, units: str) -> dict[str, Any]:
    """State noise and removal as manifests record them."""
    facts = {
        "sigma": float(f"{noise.level:.4g}"),
        "interval": [float(f"{end:.4g}") for end in (noise.low, noise.high)],
        "sigma_used": float(f"{removal.noise.level:.4g}"),
        "units": units,
        "confidence": round(noise.confidence, 2),
        "share_removed": removal.share,
    }
    if removal.ct_share < 1 and removal.share > 0:
        facts["ct_share"] = removal.ct_share
    return facts | ({"reason": removal.reason.to_json()} if removal.reason else {})


def _statement_warning(
    noise: NoiseEstimate, measured: NoiseEstimate, volume: Volume
) -> ModelWarning | None:
    """Return a warning where stated noise is far from all that the measurement allows.

    Where that is uncertain, what is measured in the even tissue that is proposed is not far.
    """
    far = 1 if measured.reason else _FAR
    if measured.low / far <= noise.level <= measured.high * far:
        return None
    is_above = measured.reason is not None and noise.level > measured.high
    if is_above and noise.level <= even_tissue_of(volume, measured.high).highest:
        return None
    low, high = level_of(measured.low), level_of(measured.high, volume.units)
    return ModelWarning("stated-noise", {"stated": noise.level, "low": low, "high": high})


def noise_warning(volume: Volume, noise: NoiseEstimate, *, is_full: bool) -> ModelWarning | None:
    """Return a warning where noise is not as the filter assumes: of known level, without anatomy.

    Args:
        volume: that was measured.
        noise: as measured.
        is_full: whether the whole correction is applied, whatever the confidence.
    """
    if structure_of(volume.voxels) < _LEAST_STRUCTURE:
        return ModelWarning("no-structure")
    if noise.confidence == 0 and noise.contrast == 0 and not is_full:
        return ModelWarning("noise-without-tissue")
    trust = trust_in(noise)
    if noise.contrast and noise.apparent / noise.contrast >= _STRONG and trust < _UNSURE:
        return ModelWarning("noise-like-structure")
    if is_full and trust < 1:
        return ModelWarning("noise-uncertain")
    if _is_enlarged(volume, noise):
        return ModelWarning("noise-enlarged")
    return None


def _is_enlarged(volume: Volume, noise: NoiseEstimate) -> bool:
    if volume.profile.is_projected or noise.confidence < _SURE_SPECTRUM:
        return False
    finest = noise.spectrum[:, -1].mean(), noise.spectrum[:, :, -1].mean()
    return bool(max(finest) < _ENLARGED)


def frames_warning(code: str, numbers: Sequence[int]) -> tuple[ModelWarning, ...]:
    """Make a warning that names frames, consecutive ones as a range; none for no frames.

    Args:
        code: as in `ModelWarning`.
        numbers: of the frames, ascending.
    """
    return (ModelWarning(code, {"frames": ranges_of(numbers)}),) if numbers else ()


def _stated_noise(stated: float | str, volume: Volume, measured: NoiseEstimate) -> NoiseEstimate:
    """Return the noise that a user states: σ in the units of the volume, or a file with its map.

    Raises as `checked_noise`.
    """
    sigma = checked_noise(stated, volume)
    if isinstance(sigma, Volume):
        voxels = sigma.voxels.astype(np.float32, order="C")
        level = float(np.median(voxels[voxels > 0]))
        noise = replace(measured, level=level, sigma=voxels, cell=(1.0, 1.0, 1.0))
    else:
        level = sigma
        noise = measured.at_level(level)
        if not volume.profile.is_projected:  # else the map keeps the shape that these give it
            noise = replace(noise, sigma=np.full_like(noise.sigma, level))
    if not volume.profile.is_projected:
        noise = replace(noise, spectrum=np.ones_like(noise.spectrum))
    return replace(noise, confidence=1.0, low=level, high=level, reason=None)


def checked_noise(stated: float | str, volume: Volume) -> float | Volume:
    """Return σ or the map of the noise that a user states for a frame.

    stated: σ in the units of the volume, or the map's file.
    Raises InputError for a map that does not fit the volume, ConfigError for an impossible σ.
    """
    if not isinstance(stated, str):
        low, high = map(float, extremes(volume.voxels))
        if stated > high - low:
            raise ConfigError(
                f"noise is {stated:.6g}, but all values of the volume are between {low:g} and "
                f"{high:g}",
                "Use the standard deviation of the noise, in the units of the volume.",
            )
        return stated
    sigma = load(stated, modality="OT")
    # On the grid of the volume, and in its order where that is canonical.
    sigma = sigma.canonical() if volume.geometry.turn == AS_STORED else sigma
    if sigma.shape != volume.shape or not sigma.geometry.is_close(
        volume.geometry, 1e-3, shape=volume.shape
    ):
        raise InputError(
            f"{stated}: the map of the noise is not on the grid of the volume",
            f"Give one of {grid_text(volume.shape)} voxels at the same place.",
        )
    if not (sigma.voxels.min() >= 0 and 0 < sigma.voxels.max() < np.inf):
        raise InputError(
            f"{stated}: the map of the noise has values below 0, or none above 0",
            "Give standard deviations in the units of the volume.",
        )
    return sigma


def _spread(numbers: Sequence[int]) -> list[int]:
    """Select frames to measure, spread evenly."""
    last = len(numbers) - 1
    places = np.linspace(0, last, min(len(numbers), _FRAMES_MEASURED)).round().astype(int)
    return [numbers[place] for place in places]


def _median(values: Sequence[float]) -> int:
    """Return the index of the median; of an even number of values, of the lower middle one."""
    return sorted(range(len(values)), key=values.__getitem__)[(len(values) - 1) // 2]
