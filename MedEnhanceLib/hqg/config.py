"""What can be chosen in HQG-Net: its size, its losses, its training and its use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from MedEnhanceLib.config import check_range, config_from_json, config_to_json
from MedEnhanceLib.errors import ConfigError

#: Slices on each side that a result depends on (docs/decisions/0016).
DEFAULT_CONTEXT = 5
#: The stem and seven blocks can see the neighbouring slices.
MOST_CONTEXT = 8


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The enhancer's and the guidance encoder's size.

    context: slices on each side that a result depends on: in so many places of the enhancer
        neighbouring slices exchange features. 0 treats every slice alone.
    widths: channels of the four stages, finest first.
    guide_widths: channels of the guidance encoder's four stages.
    cue_size, content_size: length of v_z (the guide's cue) and of v_y (the input's own).
    window: side, in input pixels, of the neighbourhood over which AdaLIN takes its statistics;
        0 takes them over the whole image as published (then tiles differ from whole slices).
    """

    context: int = DEFAULT_CONTEXT
    widths: tuple[int, ...] = (48, 72, 96, 128)
    guide_widths: tuple[int, ...] = (16, 32, 48, 64)
    cue_size: int = 64
    content_size: int = 16
    window: int = 64

    def __post_init__(self) -> None:
        check_range("context", self.context, 0, MOST_CONTEXT)
        if len(self.widths) != 4 or len(self.guide_widths) != 4:
            raise ConfigError("widths and guide_widths need four numbers", "One for each stage.")
        if self.window % 16:
            raise ConfigError(f"window is {self.window}", "Use a multiple of 16, or 0.")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the loss terms; 0 switches a term off (hqg-net parts 5 and 6, trial point 2).

    cycle: L1(E(T(z), z'), z), T drawn at random; gradient and structure belong to it.
    wavelet, feature: the content-aware loss, between E(T(z)) and z. feature is off by default: it
        runs the encoder twice more and gained nothing in a trial.
    identity: L1(E(z, z′), z): a clean slab stays as it is.
    error: negative logarithm of the likelihood of the expected error (Laplace); it teaches the
        error's own layer and nothing else.
    low_band: L1 of the twice averaged images, on real low-quality input: keeps what the
        degradation leaves intact.
    adversarial: least squares, on real low-quality input, from `adversarial_start` on.
    kl: of the cue's distribution, above `free_bits` nats per dimension, warmed up.
    """

    cycle: float = 1.0
    gradient: float = 0.2
    structure: float = 0.1
    wavelet: float = 0.05
    feature: float = 0.0
    identity: float = 0.0
    error: float = 0.1
    low_band: float = 0.5
    adversarial: float = 0.01
    adversarial_start: float = 0.5
    kl: float = 1e-3
    free_bits: float = 0.05


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, reproducible from this, the seed and the data.

    high_quality, low_quality: patterns of files below the data folder; the two pools are
        unpaired, their subjects should be different ones. low_quality may be empty: then no step
        is made on real low-quality images.
    data: what the bundle's card says of the data: name, subjects, licence, source of each.
    modality: "MR" or "CT"; decides intensity scaling and the degradations.
    anatomy: what of the body the data show, as in "images of the brain"; users are told that the
        model learned from nothing else.
    name: of the bundle that comes out.
    patch: side in pixels; slab: slices of a patch; batch: slabs per step; steps: optimiser steps.
    degradations: share of each kind in the mixture (they need not sum to 1).
    unpaired_every: a step on the real low-quality pool after this many cycle steps.
    appearance: share of patches whose target and guide are changed in sharpness alike, so that
        only the guide tells what to produce.
    """

    high_quality: tuple[str, ...] = ("hq/*",)
    low_quality: tuple[str, ...] = ("lq/*",)
    data: tuple[dict[str, str], ...] = ()
    modality: str = "MR"
    anatomy: str = ""
    name: str = "mr-brain"
    seed: int = 0
    steps: int = 7000
    batch: int = 3
    patch: int = 96
    slab: int = 8
    learning_rate: float = 6e-4
    ema: float = 0.998
    unpaired_every: int = 4
    appearance: float = 0.3
    checkpoint_s: float = 120.0
    degradations: dict[str, float] = field(
        default_factory=lambda: {"rician": 0.4, "composite": 0.45, "blur": 0.08, "clean": 0.07}
    )
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.modality not in ("MR", "CT"):
            raise ConfigError(f"modality is {self.modality!r}", "Train for MR or CT.")
        if self.patch % 32 or self.patch < 32:
            raise ConfigError(f"patch is {self.patch}", "Use a multiple of 32, 64 or more.")
        check_range("steps", self.steps, 1, 10_000_000)
        check_range("batch", self.batch, 1, 4096)
        check_range("slab", self.slab, 1, 256)
        check_range("ema", self.ema, 0, 1)
        unknown = set(self.degradations) - {"rician", "composite", "blur", "clean", "low-dose"}
        if unknown or not sum(self.degradations.values()) > 0:
            raise ConfigError(
                f"degradations are {self.degradations}",
                "Give shares of rician, composite, blur, low-dose and clean.",
            )

    @classmethod
    def preset(cls, name: str, modality: str = "MR") -> TrainConfig:
        """smoke: seconds, for tests; cpu: within an hour on two cores; full: one GPU."""
        base = cls(modality=modality) if modality == "MR" else _ct()
        tiny = NetworkConfig(context=1, widths=(8, 8, 12, 16), guide_widths=(4, 4, 8, 8), window=32)
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
        }
        if name not in presets:
            raise ConfigError(f"unknown preset {name!r}", f"Use one of {', '.join(presets)}.")
        return presets[name]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> TrainConfig:
        """A whole or partial configuration; `preset` names what the rest is taken from."""
        fields = dict(fields)
        base = cls.preset(fields.pop("preset", "cpu"), fields.get("modality", "MR"))
        return config_from_json(cls, config_to_json(base) | fields)


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
    uncertainty: number of sampled cues; 0 makes no uncertainty map.
    bias_correction: "n4" removes shading first (MR), as a step of its own; "none" does not.
    tile: side of the inference window in pixels; slices up to this size go in whole.
    batch: slices at once; None takes one on a CPU and four on a GPU.
    """

    model: str = "auto"
    strength: float = 1.0
    uncertainty: int = 0
    bias_correction: str = "none"
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
        if self.uncertainty == 1:
            raise ConfigError("one sample has no spread", "Use 0, or 2 and more (8 is usual).")
        if self.bias_correction not in ("none", "n4"):
            raise ConfigError(
                f"bias_correction is {self.bias_correction!r}", "Use none or n4 (MR only)."
            )
        if self.tile % 128 or self.tile < 256:
            raise ConfigError(f"tile is {self.tile}", "Use a multiple of 128, 256 or more.")
