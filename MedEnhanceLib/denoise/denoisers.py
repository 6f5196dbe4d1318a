"""Methods that remove noise of known level from frames, and their registry.

Another method is a class with `prepared` and `denoise`, in a file of its own, and a line in
DENOISERS; it is chosen by its name (`denoiser` of `EnhanceConfig`). CONTRIBUTING.md shows one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from MedEnhanceLib.core.arrays import WHOLE, Array, Floats, Region, let_go, within
from MedEnhanceLib.core.options import Options, config_from_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.filters import block_matching
from MedEnhanceLib.filters.regions import Air, ConstantRegions
from MedEnhanceLib.noise.estimate import NoiseEstimate
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.registry import Registry

BLOCK_MATCHING, PRINCIPAL_IMAGES = "block-matching", "principal-images"
#: Name → class.
DENOISERS = Registry(
    "medenhance.denoisers",
    {
        BLOCK_MATCHING: "MedEnhanceLib.denoise.denoisers:BlockMatching",
        PRINCIPAL_IMAGES: "MedEnhanceLib.denoise.principal_images:PrincipalImages",
    },
)
#: Rounds for principal images, whose blocks are compared in another image, so that the noise does
#: not lead them: less smoothing is needed. With more, simulated tensors lose anisotropy.
_IMAGE_ROUNDS = (
    block_matching.Round(step=4, damp=0.7),
    block_matching.Round(step=3, damp=0.8),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Frames on one grid, their noise, and the part of the result that is requested.

    Attributes:
        volumes: [K, J, I] each, of all frames, finite.
        noise: of every frame; its `level` is σ in the units of the volume.
        numbers: of the frames to denoise.
        slices: of each of them, along K.
        region: rows and columns that are needed of these slices. A method may yield more.
        usable: numbers of all frames that show tissue.
        odd: factors on the noise of frames that the others do not explain, by their numbers; a
            joint method filters these alone.
        regions: finds the constant regions of a frame by its number; None: they are searched.
        matched: an image on the grid, [K, J, I], in which blocks are compared; None: in the frame.
        air: of all frames; None: searched in each.
        scratch: folder for large arrays; None: they are in memory.
        share: of the progress of each frame, for the removal of noise.
        monitor: receives progress; may cancel.
    """

    volumes: Sequence[Volume]
    noise: NoiseEstimate
    numbers: Sequence[int]
    slices: slice
    usable: Sequence[int]
    region: Region = WHOLE
    regions: Callable[[int], ConstantRegions] | None = None
    odd: Mapping[int, float] = field(default_factory=dict)
    matched: Array | None = None
    air: Air | None = None
    scratch: Path | None = None
    share: float = 1.0
    monitor: Monitor = field(default_factory=Monitor)

    @classmethod
    def of(cls, volume: Volume, noise: NoiseEstimate, **others: Any) -> Frames:
        """Return a single volume as frames; `others` are attributes."""
        every: dict[str, Any] = {"slices": slice(0, len(volume.voxels))} | others
        return cls(volumes=[volume], noise=noise, numbers=[0], usable=[0], **every)

    def monitors_of(self, number: int) -> tuple[Monitor, Monitor]:
        """Return the monitors of a requested frame: for the removal of noise, and for the rest."""
        place, count = self.numbers.index(number), len(self.numbers)
        ends = [(place + end) / count for end in (0.0, self.share, 1.0)]
        return self.monitor.part(ends[0], ends[1]), self.monitor.part(ends[1], ends[2])

    def noise_of(self, number: int) -> NoiseEstimate:
        """Return the noise of a frame."""
        gain = self.odd.get(number, 1.0)
        return self.noise if gain == 1 else self.noise.at_level(gain * self.noise.level)

    def regions_of(self, number: int) -> ConstantRegions:
        """Return the constant regions of a frame."""
        if self.regions is not None:
            return self.regions(number)
        return ConstantRegions(self.volumes[number].voxels, self.noise.level)


@dataclass(frozen=True, eq=False)
class FramePart:
    """Denoised slices of a frame.

    Attributes:
        number: of the frame.
        slices: along K; the parts of a frame come in order.
        voxels: float32 [n, J, I], or rows and columns of them.
        region: rows and columns that `voxels` are.
    """

    number: int
    slices: slice
    voxels: Floats
    region: Region = WHOLE

    def cropped(self, region: Region) -> FramePart:
        """Return a region of the slices, which it contains."""
        if region == self.region:
            return self
        rows, columns = within(region, self.region)
        return replace(self, voxels=self.voxels[:, rows, columns], region=region)


@dataclass(frozen=True, eq=False)
class Denoised:
    """Result of a method.

    Attributes:
        parts: of all requested slices of all requested frames, made as they are read.
        facts: what the method did, for the manifest.
    """

    parts: Iterator[FramePart]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Resources:
    """What methods are made of.

    Attributes:
        device: as requested, for methods that run a network (`runtime.device.choose_device`).
        options: of the method, checked; an object of its `options`.
    """

    device: str = "auto"
    options: Any = field(default_factory=Options)


class Denoiser(Protocol):
    """A method that removes noise; the base of the classes in DENOISERS.

    Attributes:
        is_joint: whether it takes all frames of a sequence together.
        device: that it computes on, by its torch name.
        options: declares the options that are of this method alone, such as a file of weights.
    """

    is_joint: ClassVar[bool] = False
    device: str = "cpu"
    options: ClassVar[type[Options]] = Options

    @classmethod
    def prepared(cls, resources: Resources) -> Denoiser:
        """Make the method ready for use.

        Raises ModelError where weights do not fit, DependencyError where a package is missing.
        """

    def denoise(self, frames: Frames) -> Denoised:
        """Remove the noise of frames, but for the Rician bias, which is corrected afterwards.

        Raises MedEnhanceError where a value is not finite; Cancelled by the monitor.
        """


def denoiser_class(name: str) -> type[Denoiser]:
    """Import the class of a method of the registry."""
    return _imported(name, DENOISERS.get(name))


@cache
def _imported(name: str, _place: str | None) -> type[Denoiser]:
    """Import a class once, as a run asks for it several times; another place is another class."""
    return cast("type[Denoiser]", DENOISERS.member(name))


def options_for(name: str, given: Mapping[str, Any]) -> Options:
    """Return the options of a method; ConfigError for a value, or an option, that it lacks."""
    return config_from_json(denoiser_class(name).options, given, f"the denoiser {name}")


@dataclass(frozen=True, eq=False)
class BlockMatching(Denoiser):
    """The block-matching filter, which treats each frame alone."""

    @classmethod
    def prepared(cls, resources: Resources) -> BlockMatching:
        """Return the filter; raises DependencyError where the compiled library is missing."""
        block_matching.engine()
        return cls()

    def denoise(self, frames: Frames) -> Denoised:
        """Filter each frame; as `Denoiser.denoise`."""
        return Denoised(self._parts(frames))

    def _parts(self, frames: Frames) -> Iterator[FramePart]:
        """Filter the requested slices."""
        for number in frames.numbers:
            filtered = self._filter(frames, number, frames.volumes[number])
            with filtered.run(frames.slices, frames.region) as run:
                for slab in run.slabs():
                    slices, voxels = run.finished(slab)
                    if slices.stop > slices.start:
                        yield FramePart(number, slices, voxels, frames.region)
                    let_go(filtered.noisy)

    def _filter(
        self, frames: Frames, number: int, volume: Volume
    ) -> block_matching.BlockMatchingFilter:
        """Make the filter for a frame."""
        noise, regions = frames.noise_of(number), frames.regions_of(number)
        air = frames.air or Air.of(volume, noise, regions.neutral)
        return block_matching.BlockMatchingFilter(
            regions.neutral,
            regions.level(noise),
            noise.spectrum.reshape(-1),
            rounds=self._rounds(volume) if frames.matched is None else _IMAGE_ROUNDS,
            matched=frames.matched,
            spacing=volume.geometry.spacing,
            air=air,
            monitor=frames.monitors_of(number)[0],
        )

    def _rounds(self, volume: Volume) -> tuple[block_matching.Round, ...]:
        return block_matching.ROUNDS[volume.profile.like]


class FirstRound(BlockMatching):
    """The filter up to its first round, for drafts (docs/decisions/0097-drafts-of-previews.md)."""

    def _rounds(self, volume: Volume) -> tuple[block_matching.Round, ...]:
        return super()._rounds(volume)[:1]
