"""Methods that remove noise of known level from frames, and their registry.

Another method is a class with `prepared` and `denoise`, in a file of its own, and a line in
DENOISERS; it is chosen by its name (`denoiser` of `EnhanceConfig`). CONTRIBUTING.md shows one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from MedEnhanceLib.core.arrays import WHOLE, Array, Floats, Region, let_go, within
from MedEnhanceLib.core.options import Options, config_from_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.filters import block_matching
from MedEnhanceLib.filters.block_matching_run import Run, Slab
from MedEnhanceLib.filters.regions import Air, ConstantRegions
from MedEnhanceLib.noise.estimate import NoiseEstimate
from MedEnhanceLib.runtime.device import is_out_of_memory
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.registry import Registry

if TYPE_CHECKING:
    from MedEnhanceLib.bundles.store import Bundle

BLOCK_MATCHING, SET_NETWORK, PRINCIPAL_IMAGES = "block-matching", "set-network", "principal-images"
VIEW_NETWORK = "view-network"
#: Name → class.
DENOISERS = Registry(
    "medenhance.denoisers",
    {
        BLOCK_MATCHING: "MedEnhanceLib.denoise.denoisers:BlockMatching",
        SET_NETWORK: "MedEnhanceLib.denoise.network_stage:SetNetwork",
        VIEW_NETWORK: "MedEnhanceLib.denoise.view_stage:ViewNetwork",
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
        tops: intensity of bright tissue, by number of the frame.
        guides: images of other contrast on the grid, bright tissue at 1, NaN where they show
            nothing; for methods that take them.
        regions: finds the constant regions of a frame by its number; None: they are searched.
        matched: an image on the grid, [K, J, I], in which blocks are compared; None: in the frame.
        air: of all frames; None: searched in each.
        correct: makes slices of the result of filtered ones and of those before, on a device.
        scratch: folder for large arrays; None: they are in memory.
        share: of the progress of each frame, for the removal of noise.
        monitor: receives progress; may cancel.
    """

    volumes: Sequence[Volume]
    noise: NoiseEstimate
    numbers: Sequence[int]
    slices: slice
    usable: Sequence[int]
    tops: Mapping[int, float]
    region: Region = WHOLE
    guides: Sequence[Floats] = ()
    regions: Callable[[int], ConstantRegions] | None = None
    odd: Mapping[int, float] = field(default_factory=dict)
    matched: Array | None = None
    air: Air | None = None
    correct: Callable[[Any, Any], Any] | None = None
    scratch: Path | None = None
    share: float = 1.0
    monitor: Monitor = field(default_factory=Monitor)

    @classmethod
    def of(cls, volume: Volume, noise: NoiseEstimate, **others: Any) -> Frames:
        """Return a single volume as frames; `others` are attributes."""
        every: dict[str, Any] = {"slices": slice(0, len(volume.voxels)), "tops": {0: 1.0}} | others
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
        change: by guides, as `Slab.change`; None without.
        region: rows and columns that `voxels` are.
        is_corrected: whether they are of the result, by `Frames.correct`.
    """

    number: int
    slices: slice
    voxels: Floats
    change: Floats | None = None
    region: Region = WHOLE
    is_corrected: bool = False

    def cropped(self, region: Region) -> FramePart:
        """Return a region of the slices, which it contains."""
        if region == self.region:
            return self
        rows, columns = within(region, self.region)
        change = None if self.change is None else self.change[:, rows, columns]
        voxels = self.voxels[:, rows, columns]
        return replace(self, voxels=voxels, change=change, region=region)


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
        bundle: the model; None for a method that needs none.
        device: that networks run on.
        engine: of the block-matching filter.
        options: of the method, checked; an object of its `options`.
    """

    bundle: Bundle | None
    device: str
    engine: block_matching.Engine
    options: Any = field(default_factory=Options)


class Denoiser(Protocol):
    """A method that removes noise; the base of the classes in DENOISERS.

    Attributes:
        is_joint: whether it takes all frames of a sequence together.
        needs_model: whether it is made of a model; other methods take no model and no guide.
        options: declares the options that are of this method alone.
    """

    is_joint: ClassVar[bool] = False
    needs_model: ClassVar[bool] = False
    options: ClassVar[type[Options]] = Options

    @classmethod
    def prepared(cls, resources: Resources) -> Denoiser:
        """Make the method ready for use; raises ModelError where weights do not fit."""

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


def network_in(bundle: Bundle) -> str:
    """Name the method that the networks of a bundle are best used by."""
    return VIEW_NETWORK if "view" in bundle.metadata else SET_NETWORK


@dataclass(frozen=True, eq=False)
class BlockMatching(Denoiser):
    """The block-matching filter, which treats each frame alone.

    Attributes:
        engine: as in `BlockMatchingFilter`.
    """

    engine: block_matching.Engine | None = None
    margin: ClassVar[int] = 0  # filtered slices on each side that a slice depends on

    @property
    def device(self) -> str:
        """The device that computes, by its torch name."""
        return self.engine.device if self.engine else "cpu"

    @classmethod
    def prepared(cls, resources: Resources) -> BlockMatching:
        """Return the filter with its engine."""
        return cls(resources.engine)

    def denoise(self, frames: Frames) -> Denoised:
        """Filter each frame; as `Denoiser.denoise`."""
        return Denoised(self._parts(frames))

    def _parts(self, frames: Frames) -> Iterator[FramePart]:
        """Filter the requested slices.

        Where a device's memory runs out, the method goes on with less of it, or on the CPU, from
        the first slice that was not yielded.
        """
        method, requested = self, frames.slices
        for number in frames.numbers:
            start, monitor = requested.start, frames.monitors_of(number)[0]
            while start < requested.stop:
                share = (start - requested.start) / (requested.stop - requested.start)
                rest = replace(
                    frames, slices=slice(start, requested.stop), numbers=[number],
                    monitor=monitor.part(share, 1.0), share=1.0,
                )  # fmt: skip
                try:
                    for part in method._filtered(rest, number):
                        start = part.slices.stop
                        yield part
                except (MemoryError, RuntimeError) as cause:
                    method = method._with_less(cause, monitor)

    def _filtered(self, frames: Frames, number: int) -> Iterator[FramePart]:
        """Filter the requested slices of a frame."""
        filtered = self._filter(frames, number, frames.volumes[number])
        region = self._region(frames)
        # The bias of magnitudes is corrected before, on the CPU.
        correct = None if self.device == "cpu" or frames.noise.rician else frames.correct
        after = int(self.needs_model)  # the network continues from the filter, as one more stage
        with filtered.run(frames.slices, region, margin=self.margin, stages_after=after) as run:
            for slab in run.ahead(self._slabs(run, frames, number), correct):
                slices, result = run.finished(slab)
                if slices.stop > slices.start:
                    yield FramePart(
                        number, slices, result.voxels, result.change, region, correct is not None
                    )
                let_go(filtered.noisy)

    def _region(self, frames: Frames) -> Region:
        """Return the rows and columns that are computed; all, where regions would save nothing."""
        # A guide's agreement is added up over groups around each group; a device is fast.
        return WHOLE if frames.guides or self.device != "cpu" else frames.region

    def _with_less(self, cause: Exception, monitor: Monitor) -> BlockMatching:
        """Return the method that goes on after an error, with a warning; or raise the error."""
        if self.device == "cpu" or not is_out_of_memory(cause):
            raise cause
        less = self.engine.less() if self.engine else None
        means = f"{less.at_once} groups at once" if less else "the CPU, slower"
        monitor.warn(f"memory ran out on {self.device}; removing noise goes on with {means}")
        return self._with(less or block_matching.engine_for("cpu", monitor))

    def _with(self, engine: block_matching.Engine) -> BlockMatching:
        """Return the method with another engine."""
        return replace(self, engine=engine)

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
            engine=self.engine,
            monitor=frames.monitors_of(number)[0],
        )

    def _rounds(self, volume: Volume) -> tuple[block_matching.Round, ...]:
        return block_matching.ROUNDS[volume.profile.like]

    def _slabs(self, run: Run, _frames: Frames, _number: int) -> Iterator[Slab]:
        """Yield the slabs of a run of the filter."""
        return run.slabs()


class FirstRound(BlockMatching):
    """The filter up to its first round, for drafts (docs/decisions/0097-drafts-of-previews.md)."""

    def _rounds(self, volume: Volume) -> tuple[block_matching.Round, ...]:
        return super()._rounds(volume)[:1]
