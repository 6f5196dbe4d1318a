"""What can be chosen in HQG-Net: its size, its losses, its training and its use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from MedEnhanceLib.core.options import check_range, config_from_json, config_to_json
from MedEnhanceLib.errors import ConfigError

#: Slices on each side that a result depends on (docs/decisions/0016).
DEFAULT_CONTEXT = 5
#: The stem and seven blocks can see the neighbouring slices.
MOST_CONTEXT = 8


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The enhancer's and the guidance encoder's size.

    context: slices on each side that the network sees: in so many places of the enhancer
        neighbouring slices exchange features. 0 treats every slice alone.
    widths: channels of the four stages, finest first.
    guide_widths: channels of the guidance encoder's four stages.
    cue_size, content_size: length of v_z (the guide's cue) and of v_y (the input's own).
    window: side, in input pixels, of the neighbourhood over which AdaLIN takes its statistics;
        0 takes them over the whole image as published (then tiles differ from whole slices).
    guidance: False makes every cue zero: nothing is learned from guides.
    variational: False takes the guide's cue as it is, without a distribution to draw from.
    restyling: False leaves the variational normalisation blocks out of the decoder.
    shrinkage: False lets the network start from its input, not from a first removal of noise by
        the learned shrinkage of blocks (nets.shrinkage).
    rician: whether what the shrinkage finds is freed of the bias that noise has in magnitude images
        (nets.rician). A training for CT leaves it out.
    deblurring: whether blur is undone on request alone, which comes with the cue; False teaches to
        undo it unasked. A training leaves it out whose degradations hold no blur, or whose decoder
        is not restyled: there is nothing to ask for, or nothing that hears it.
    sharpening: whether blur is undone by strengthening bands of detail (nets.sharpening); without,
        by the correction alone. A training whose degradations hold no blur leaves it out.
    """

    context: int = DEFAULT_CONTEXT
    widths: tuple[int, ...] = (48, 72, 96, 128)
    guide_widths: tuple[int, ...] = (16, 32, 48, 64)
    cue_size: int = 64
    content_size: int = 16
    window: int = 64
    guidance: bool = True
    variational: bool = True
    restyling: bool = True
    shrinkage: bool = True
    rician: bool = True
    deblurring: bool = True
    sharpening: bool = True

    def __post_init__(self) -> None:
        check_range("context", self.context, 0, MOST_CONTEXT)
        if len(self.widths) != 4 or len(self.guide_widths) != 4:
            raise ConfigError("widths and guide_widths need four numbers", "One for each stage.")
        if self.window % 16:
            raise ConfigError(f"window is {self.window}", "Use a multiple of 16, or 0.")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the loss terms (hqg-net parts 5 and 6); a term at 0 is off and costs nothing.

    On clean slabs z that are degraded by a random T and guided by another slab z′:
    cycle: L1(E(T(z), z′), z); gradient: the same of finite differences; structure: 1 − SSIM.
    wavelet, feature: the content-aware loss between E(T(z), z′) and z.
    identity: L1(E(z, z′), z): a clean slab stays as it is.
    error: negative logarithm of the likelihood of the expected error (Laplace); it teaches the
        error's own layer and nothing else.
    kl: of the cue's distribution, above `free_bits` nats per dimension, warmed up.

    On real low-quality slabs y, from the share `adversarial_start` of the steps on:
    low_band: L1 of the twice averaged images: keeps what the degradation leaves intact.
    adversarial: least squares, against a critic that learns along.
    real_wavelet: the content-aware loss at pixel level as published, between E(y, z) and y.
        real_wavelet_low: weight κ of the twice transformed low band in it, 0 where brightness
        itself is wrong. real_wavelet_finest_hh: whether the finest diagonal band counts, which
        holds more noise than anything.
    real_feature: the content-aware loss at feature level as published: the guidance encoder sees
        E(y, z) as it sees z, stages 2 and 3 of the enhancer's encoder see it as they see y.

    Of the critic: past_images: how many enhanced images of earlier steps it is shown as well.
    r1: weight of the penalty on its gradient at high-quality images.
    """

    cycle: float = 1.0
    gradient: float = 0.1
    structure: float = 0.1
    wavelet: float = 0.05
    feature: float = 0.0
    identity: float = 0.0
    error: float = 0.1
    kl: float = 1e-3
    free_bits: float = 0.05
    low_band: float = 0.5
    adversarial: float = 0.01
    adversarial_start: float = 0.5
    real_wavelet: float = 0.0
    real_wavelet_low: float = 1.0
    real_wavelet_finest_hh: bool = True
    real_feature: float = 0.0
    past_images: int = 0
    r1: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_range(name, value, 0.0, 1e6)
        check_range("adversarial_start", self.adversarial_start, 0.0, 1.0)

    @classmethod
    def published(cls) -> LossConfig:
        """The terms of the publication alone, at the weights of hqg-net part 6 (reconstructed)."""
        return cls(
            cycle=0.0,
            gradient=0.0,
            structure=0.0,
            wavelet=0.0,
            error=0.0,
            low_band=0.0,
            free_bits=0.0,
            adversarial=1.0,
            adversarial_start=0.0,
            real_wavelet=5.0,
            real_feature=1.0,
            identity=5.0,
            past_images=50,
        )


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """A task that takes part in the training: the bi-level scheme (hqg-net part 7).

    head: fields of the head's own configuration, gradprom.TrainHeadConfig: its images and labels
        (or atlas), structures, network, learning rate. What is labelled should also be in the
        high-quality pool.
    start: share of the steps after which stage 2 begins; before it the enhancer learns alone.
    head_start: share of stage 2 in which the head learns and does not teach yet.
    batch: labelled slabs per step, for the lower as for the upper one.
    weight: λ_d, of the task loss in the upper step.
    second_order: account for how the enhancer moves the head (hqg.bilevel); costs time and memory.
    gate, gate_ema, gate_scope: mode, ema and scope of gradprom.GradientGate.
    gate_warm_up: teaching steps in which the gate is closed and only moves its averages; None:
        as many as they span, 1/(1 − gate_ema), but at most half of all.
    """

    head: dict[str, Any] = field(default_factory=dict)
    start: float = 0.5
    head_start: float = 0.1
    batch: int = 1
    weight: float = 0.1
    second_order: bool = False
    gate: str = "binary"
    gate_ema: float = 0.99
    gate_scope: str = "global"
    gate_warm_up: int | None = None

    def __post_init__(self) -> None:
        check_range("start", self.start, 0.0, 1.0)
        check_range("head_start", self.head_start, 0.0, 1.0)
        check_range("batch", self.batch, 1, 4096)
        check_range("weight", self.weight, 0.0, 1e6)
        check_range("gate_ema", self.gate_ema, 0.0, 0.99999)
        if self.gate_warm_up is not None:
            check_range("gate_warm_up", self.gate_warm_up, 0, 1e9)

    def warm_up(self, steps: int) -> int:
        """Teaching steps of a training of `steps` in which the gate only listens."""
        if self.gate_warm_up is not None:
            return self.gate_warm_up
        teaching = sum(self.head_teaches(number, steps) for number in range(steps))
        spanned = round(1 / (1 - self.gate_ema)) if self.gate_ema else 0
        return min(spanned, teaching // 2)

    def head_learns(self, number: int, steps: int) -> bool:
        """Whether step `number` of `steps` has a lower step."""
        return number >= self.start * steps

    def head_teaches(self, number: int, steps: int) -> bool:
        """Whether step `number` of `steps` has an upper step with the task's gradient."""
        begin = self.start + self.head_start * (1 - self.start)
        return self.head_learns(number, steps) and number >= begin * steps


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, reproducible from this, the seed and the data.

    high_quality, low_quality: patterns of files below the data folder; the two pools are
        unpaired, their subjects should be different ones. low_quality may be empty: then no step
        is made on real low-quality images.
    data: what the bundle's card says of the data: name, subjects, licence, source of each.
    licence: of the weights, as their card tells it; empty: not stated.
    modality: "MR" or "CT"; decides intensity scaling and the degradations.
    anatomy: what of the body the data show, as in "images of the brain"; users are told that the
        model learned from nothing else.
    name: of the bundle that comes out.
    patch: side in pixels; slab: slices of a patch; batch: slabs per step; steps: optimiser steps.
    degradations: share of each kind in the mixture (they need not sum to 1).
    unpaired_every: every so many steps real low-quality slabs are looked at too.
    appearance: share of patches whose target and guide are changed in sharpness alike, so that
        only the guide tells what to produce.
    beta1: decay of Adam's average of the gradients. ema: decay of the averaged weights, which are
        what is shipped; 0 ships the last ones.
    denoise: whether the high-quality volumes' own noise is removed before they are learned from,
        by the shrinkage of blocks (nets.shrinkage); else the network learns to give it back.
    held_out: so many of the high-quality volumes, the last ones by name, are not learned from:
        validation is on them. 0 validates on slabs of what is learned from.
    checkpoint_s, validation_s: seconds between checkpoints and between validations.
    workers: processes that prepare batches beside the training; None takes up to 12 on Linux
        with a GPU, and none elsewhere. What is learned does not depend on it.
    task: a head that learns along and teaches the enhancer; None trains enhancement alone.
    """

    high_quality: tuple[str, ...] = ("hq/*",)
    low_quality: tuple[str, ...] = ("lq/*",)
    data: tuple[dict[str, str], ...] = ()
    licence: str = ""
    modality: str = "MR"
    anatomy: str = ""
    name: str = "mr-brain"
    seed: int = 0
    steps: int = 5000
    batch: int = 2
    patch: int = 64
    slab: int = 12
    learning_rate: float = 6e-4
    beta1: float = 0.9
    ema: float = 0.998
    unpaired_every: int = 8
    appearance: float = 0.0
    denoise: bool = True
    held_out: int = 0
    checkpoint_s: float = 120.0
    validation_s: float = 120.0
    workers: int | None = None
    degradations: dict[str, float] = field(
        default_factory=lambda: {"rician": 0.4, "composite": 0.45, "blur": 0.08, "clean": 0.07}
    )
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    task: TaskConfig | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        task: object = self.task
        if isinstance(task, dict):
            object.__setattr__(self, "task", config_from_json(TaskConfig, task))
        object.__setattr__(self, "network", self._fitting_network())
        if self.modality not in ("MR", "CT"):
            raise ConfigError(f"modality is {self.modality!r}", "Train for MR or CT.")
        if self.patch % 32 or self.patch < 32:
            raise ConfigError(f"patch is {self.patch}", "Use a multiple of 32, 64 or more.")
        check_range("steps", self.steps, 1, 10_000_000)
        check_range("batch", self.batch, 1, 4096)
        check_range("slab", self.slab, 1, 256)
        check_range("ema", self.ema, 0, 1)
        check_range("beta1", self.beta1, 0, 0.999)
        check_range("held_out", self.held_out, 0, 10_000)
        check_range("unpaired_every", self.unpaired_every, 1, 10_000_000)
        check_range("workers", self.workers or 0, 0, 256)
        unknown = set(self.degradations) - {"rician", "composite", "blur", "clean", "low-dose"}
        if unknown or not sum(self.degradations.values()) > 0:
            raise ConfigError(
                f"degradations are {self.degradations}",
                "Give shares of rician, composite, blur, low-dose and clean.",
            )

    def _fitting_network(self) -> NetworkConfig:
        """Without what this training has no use for."""
        network = self.network
        blurs = self.degradations.get("blur", 0) + self.degradations.get("composite", 0) > 0
        return replace(
            network,
            rician=network.rician and self.modality == "MR",
            deblurring=network.deblurring and network.restyling and blurs,
            sharpening=network.sharpening and blurs,
        )

    @classmethod
    def preset(cls, name: str, modality: str = "MR") -> TrainConfig:
        """The configuration of a name.

        smoke: seconds, for tests; cpu: within an hour on two cores; full: hours on one GPU;
        published: the publication's losses and optimiser alone, for comparison, on a GPU.
        """
        base = cls(modality=modality) if modality == "MR" else _ct()
        tiny = replace(
            base.network,
            context=1,
            widths=(8, 8, 12, 16),
            guide_widths=(4, 4, 8, 8),
            window=32,
        )
        presets = {
            "smoke": replace(
                base, steps=6, batch=2, patch=32, slab=3, unpaired_every=2, network=tiny
            ),
            "cpu": base,
            "full": replace(
                base,
                steps=60_000,
                batch=32,
                patch=128,
                network=replace(base.network, widths=(64, 96, 128, 192)),
            ),
            "published": replace(
                base,
                steps=30_000,
                batch=4,
                patch=256,
                learning_rate=1e-4,
                beta1=0.5,
                ema=0.999,
                unpaired_every=1,
                appearance=0.0,
                denoise=False,
                network=replace(
                    base.network, window=0, shrinkage=False, deblurring=False, sharpening=False
                ),
                loss=LossConfig.published(),
            ),
        }
        if name not in presets:
            raise ConfigError(f"unknown preset {name!r}", f"Use one of {', '.join(presets)}.")
        return presets[name]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> TrainConfig:
        """A whole or partial configuration; `preset` names what the rest is taken from.

        `network` and `loss` may be partial as well.
        """
        fields = dict(fields)
        base = config_to_json(cls.preset(fields.pop("preset", "cpu"), fields.get("modality", "MR")))
        for part in ("network", "loss"):
            if isinstance(fields.get(part), dict):
                fields[part] = base[part] | fields[part]
        return config_from_json(cls, base | fields)


def _ct() -> TrainConfig:
    return TrainConfig(
        modality="CT",
        name="ct-lowdose",
        degradations={"low-dose": 0.93, "clean": 0.07},
        loss=LossConfig(adversarial=0.005),
    )


@dataclass(frozen=True, kw_only=True)
class EnhanceConfig:
    """How a volume is enhanced.

    model: a bundle's name or folder; "auto" takes the one for the volume's modality.
    strength: share of the correction that is applied, 0 to 1; beyond 1 exaggerates.
    deblur: undo blur besides noise, with a model that has learned to; else the volume stays as
        sharp as it is.
    uncertainty: 0 makes no map of the standard deviation; 1 makes it of the expected error alone,
        which costs no further run; 2 to 64 add the spread over so many sampled cues and
        mirrorings, a run each.
    bias_correction: "n4" removes shading first (MR), as a step of its own; "none" does not.
    orientations: 1 goes along the slices; 3 along each axis and averages, in about twice the time,
        for a model that learned from all axes (MR) and voxels about as thick as wide.
    tile: side of the inference window in pixels; slices up to this size go in whole.
    batch: slices at once; None takes what suits the device and the size of a slice.
    """

    model: str = "auto"
    strength: float = 1.0
    deblur: bool = False
    uncertainty: int = 0
    bias_correction: str = "none"
    orientations: int = 1
    device: str = "auto"
    tile: int = 1024
    overlap: float = 0.25
    batch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0.0, 1.5)
        check_range("uncertainty", self.uncertainty, 0, 64)
        check_range("overlap", self.overlap, 0.0, 0.9)
        if self.batch is not None:
            check_range("batch", self.batch, 1, 256)
        if self.bias_correction not in ("none", "n4"):
            raise ConfigError(
                f"bias_correction is {self.bias_correction!r}", "Use none or n4 (MR only)."
            )
        if self.orientations not in (1, 3):
            raise ConfigError(f"orientations is {self.orientations}", "Use 1 or 3.")
        if self.tile % 128 or self.tile < 256:
            raise ConfigError(f"tile is {self.tile}", "Use a multiple of 128, 256 or more.")

    @property
    def samples(self) -> int:
        """Cues that are sampled for the uncertainty; one alone has no spread."""
        return self.uncertainty if self.uncertainty > 1 else 0

    @property
    def runs_share_start(self) -> bool:
        """Whether the network runs more than once, and always from the same first estimate."""
        return self.orientations > 1 or self.samples > 0
