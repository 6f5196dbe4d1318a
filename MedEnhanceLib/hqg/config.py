"""What can be chosen in HQG-Net: its size, its losses, its training and its use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal

from MedEnhanceLib.core.options import Options, WithPresets, merged, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.device import DEVICES

#: Slices on each side that a result depends on.
DEFAULT_CONTEXT = 5
#: The stem and seven blocks can see the neighboring slices.
MOST_CONTEXT = 8


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Options):
    """The enhancer's and the guidance encoder's size."""

    context: int = option(
        DEFAULT_CONTEXT,
        help="slices on each side that the network sees: this many places of the enhancer exchange "
        "features of neighboring slices; 0 treats every slice alone",
        low=0,
        high=MOST_CONTEXT,
    )
    widths: tuple[int, int, int, int] = option(
        (48, 72, 96, 128), help="channels of the four stages, finest first"
    )
    guide_widths: tuple[int, int, int, int] = option(
        (16, 32, 48, 64), help="channels of the guidance encoder's four stages"
    )
    cue_size: int = option(64, help="length of v_z, the guide's cue")
    content_size: int = option(16, help="length of v_y, the input's own")
    window: int = option(
        64,
        help="side of the neighborhood over which AdaLIN takes its statistics; 0 takes them over "
        "the whole image as published (tiles then differ from whole slices)",
        unit="pixels",
        multiple=16,
    )
    guidance: bool = option(True, help="false makes every cue zero: guides are not used")
    variational: bool = option(
        True, help="false takes the guide's cue as it is, without a distribution to draw from"
    )
    restyling: bool = option(
        True, help="false leaves the variational normalization blocks out of the decoder"
    )
    shrinkage: bool = option(
        True,
        help="whether the network starts from a first removal of noise by the learned shrinkage of "
        "blocks (nets.shrinkage), not from its input",
    )
    rician: bool = option(
        True,
        help="whether the first estimate is corrected for the bias that noise has in magnitude "
        "images (nets.shrinkage); a training for CT leaves it out",
    )
    sharpening: bool = option(
        True,
        help="whether blur is undone by strengthening bands of detail (nets.blocks), not by "
        "the correction alone; a training whose degradations hold no blur leaves it out",
    )


@dataclass(frozen=True, kw_only=True)
class LossConfig(Options):
    """Weights of the loss terms (hqg-net parts 5 and 6); a term at 0 is off and costs nothing.

    Clean slabs z are degraded by a random T and guided by another slab z′; from the share
    `adversarial_start` of the steps on there are real low-quality slabs y as well.
    """

    cycle: float = option(1.0, help="L1(E(T(z), z′), z)", low=0)
    gradient: float = option(0.1, help="the same of finite differences", low=0)
    structure: float = option(0.1, help="1 − SSIM of the same", low=0)
    wavelet: float = option(0.05, help="content-aware loss of the same, of pixels", low=0)
    feature: float = option(0.0, help="content-aware loss of the same, of features", low=0)
    identity: float = option(0.0, help="L1(E(z, z′), z): a clean slab stays as it is", low=0)
    error: float = option(
        0.1,
        help="negative logarithm of the likelihood of the expected error (Laplace); it teaches the "
        "error's own layer and nothing else",
        low=0,
    )
    kl: float = option(1e-3, help="of the cue's distribution, above free_bits, warmed up", low=0)
    free_bits: float = option(0.05, help="that the cue may hold at no cost", low=0, unit="nats")
    low_band: float = option(
        0.5, help="L1 of the twice averaged y: keeps what the degradation leaves intact", low=0
    )
    adversarial: float = option(0.01, help="least squares, against a critic of y", low=0)
    adversarial_start: float = option(0.5, help="share of the steps before it", low=0, high=1)
    real_wavelet: float = option(
        0.0, help="the content-aware loss of pixels as published, between E(y, z) and y", low=0
    )
    real_wavelet_low: float = option(
        1.0, help="weight κ of its low band; 0 where brightness itself is wrong", low=0
    )
    real_wavelet_finest_hh: bool = option(
        True, help="whether its finest diagonal band counts, which is mostly noise"
    )
    real_feature: float = option(
        0.0,
        help="the content-aware loss of features as published: the guidance encoder sees E(y, z) "
        "as it sees z, stages 2 and 3 of the enhancer's encoder see it as they see y",
        low=0,
    )
    past_images: int = option(
        0, help="enhanced images of earlier steps that the critic is shown as well", low=0
    )
    r1: float = option(
        0.0, help="weight of the penalty on the critic's gradient at high-quality images", low=0
    )

    @classmethod
    def published(cls) -> LossConfig:
        """The terms of the publication alone, at the weights of hqg-net part 6 (reconstructed)."""
        return cls(**_PUBLISHED_LOSS)


#: The publication's terms alone, at the weights of hqg-net part 6 (reconstructed).
_PUBLISHED_LOSS: dict[str, Any] = {
    "cycle": 0.0,
    "gradient": 0.0,
    "structure": 0.0,
    "wavelet": 0.0,
    "error": 0.0,
    "low_band": 0.0,
    "free_bits": 0.0,
    "adversarial": 1.0,
    "adversarial_start": 0.0,
    "real_wavelet": 5.0,
    "real_feature": 1.0,
    "identity": 5.0,
    "past_images": 50,
}


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Options):
    """A task that takes part in the training: the bi-level scheme (hqg-net part 7)."""

    head: dict[str, Any] = option(
        factory=dict,
        help="fields of gradprom.TrainHeadConfig: images and labels (or atlas), structures, "
        "network, learning rate; what is labeled should also be in the high-quality pool",
    )
    start: float = option(
        0.5, help="share of the steps of the enhancer alone, before stage 2", low=0, high=1
    )
    head_start: float = option(
        0.1, help="share of stage 2 in which the head learns and does not teach yet", low=0, high=1
    )
    batch: int = option(
        1, help="labeled slabs per step, for the lower as for the upper one", low=1, high=4096
    )
    weight: float = option(0.1, help="λ_d, of the task loss in the upper step", low=0, high=1e6)
    second_order: bool = option(
        False,
        help="account for how the enhancer moves the head (hqg.bilevel); costs time and memory",
    )
    gate: str = option("binary", help="mode of gradprom.GradientGate")
    gate_ema: float = option(0.99, help="decay of the gate's averages", low=0, high=0.99999)
    gate_scope: str = option("global", help="scope of gradprom.GradientGate")
    gate_warm_up: int | None = option(
        None,
        help="teaching steps in which the gate is closed and only moves its averages; null: as "
        "many as they span, 1/(1 − gate_ema), but at most half of all",
        low=0,
        high=1e9,
    )

    def warm_up(self, steps: int) -> int:
        """Teaching steps of a training of `steps` in which the gate only moves its averages."""
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
class TrainConfig(WithPresets):
    """One training run, reproducible from this, the seed and the data.

    Presets: smoke: seconds, for tests; cpu: within an hour on two cores; full: for a GPU;
    published: the publication's losses and optimizer alone, for comparison, on a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "steps": 6,
            "patch": 32,
            "slab": 3,
            "unpaired_every": 2,
            "network": {
                "context": 1,
                "widths": (8, 8, 12, 16),
                "guide_widths": (4, 4, 8, 8),
                "window": 32,
            },
        },
        "cpu": {},
        "full": {
            "steps": 60_000,
            "batch": 32,
            "patch": 128,
            "network": {"widths": (64, 96, 128, 192)},
        },
        "published": {
            "steps": 30_000,
            "batch": 4,
            "patch": 256,
            "learning_rate": 1e-4,
            "beta1": 0.5,
            "ema": 0.999,
            "unpaired_every": 1,
            "denoise": False,
            "network": {"window": 0, "shrinkage": False, "sharpening": False},
            "loss": _PUBLISHED_LOSS,
        },
    }

    high_quality: tuple[str, ...] = option(
        ("hq/*",),
        help="patterns of files below the data folder; they are unpaired with those of low_quality "
        "and should show other subjects",
    )
    low_quality: tuple[str, ...] = option(
        ("lq/*",), help="patterns; empty: no step is made on real low-quality images"
    )
    data: tuple[dict[str, str], ...] = option(
        (), help="for the bundle's card: name, subjects, licence and source of each collection"
    )
    licence: str = option("", help="of the weights, for the card; empty: not stated")
    modality: Literal["MR", "CT"] = option(
        "MR", help="of the images; decides intensity scaling and degradations"
    )
    anatomy: str = option(
        "", help='what the images show, as in "images of the brain"; users are informed of it'
    )
    name: str = option("mr-brain", help="of the bundle that comes out", is_name=True)
    seed: int = option(0, help="of everything that is drawn")
    steps: int = option(5000, help="of the optimizer", low=1, high=10_000_000)
    batch: int = option(2, help="slabs per step", low=1, high=4096)
    patch: int = option(64, help="side of a slab", low=32, multiple=32, unit="pixels")
    slab: int = option(12, help="slices of a slab", low=1, high=256)
    learning_rate: float = option(6e-4, help="of the optimizer, Adam")
    beta1: float = option(0.9, help="decay of Adam's average of the gradients", low=0, high=0.999)
    ema: float = option(
        0.998,
        help="decay of the averaged weights that are shipped; 0 ships the last",
        low=0,
        high=1,
    )
    unpaired_every: int = option(
        8, help="steps from one real low-quality batch to the next", low=1, high=10_000_000
    )
    appearance: float = option(
        0.0,
        help="share of patches whose target and guide are changed in sharpness alike, so that "
        "only the guide says what to produce",
    )
    denoise: bool = option(
        True,
        help="whether the high-quality volumes' own noise is removed before they are learned from, "
        "by the shrinkage of blocks (nets.shrinkage); else the network learns to return it",
    )
    held_out: int = option(
        0,
        help="how many high-quality volumes, the last by name, are validated on and not learned "
        "from; 0 validates on slabs of what is learned from",
        low=0,
        high=10_000,
    )
    checkpoint_s: float = option(120.0, help="from one checkpoint to the next", unit="s")
    validation_s: float = option(120.0, help="from one validation to the next", unit="s")
    workers: int | None = option(
        None,
        help="processes that prepare batches beside the training; null takes up to 12 on Linux "
        "with a GPU, and none elsewhere; the result does not depend on it",
        low=0,
        high=256,
    )
    degradations: dict[str, float] = option(
        factory=lambda: {"rician": 0.4, "composite": 0.45, "blur": 0.08, "clean": 0.07},
        help="share of each kind in the mixture; they need not sum to 1",
    )
    network: NetworkConfig = option(factory=NetworkConfig, help="size of the networks")
    loss: LossConfig = option(factory=LossConfig, help="weights of the losses")
    task: TaskConfig | None = option(
        None, help="a head that learns along and teaches the enhancer; null: none"
    )
    device: str = option("auto", help=DEVICES)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "network", self._fitting_network())
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
            sharpening=network.sharpening and blurs,
        )

    @classmethod
    def preset(cls, name: str, /, modality: str = "MR", **fields: Any) -> TrainConfig:
        """One of PRESETS for a modality, with what the fields say otherwise."""
        return cls.from_json({"preset": name, "modality": modality, **fields})

    @classmethod
    def preset_fields(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """As `Options.preset_fields`, for the modality."""
        base = _CT if fields.get("modality") == "CT" else {}
        return merged(cls, base, super().preset_fields(fields))


#: What a training for CT has otherwise.
_CT: Mapping[str, Any] = {
    "name": "ct-lowdose",
    "degradations": {"low-dose": 0.93, "clean": 0.07},
    "loss": {"adversarial": 0.005},
}


@dataclass(frozen=True)
class EnhanceConfig(Options):
    """How a volume is enhanced."""

    model: str = option(
        "auto", help="a model's name or folder; auto: the one for the modality", metavar="NAME"
    )
    uncertainty: bool = option(
        False, help="make a map of the uncertainty too: the standard deviation of the error"
    )
    device: str = option("auto", help=DEVICES, metavar="D")
    _: KW_ONLY
    strength: float | Literal["auto", "full"] = option(
        "auto",
        help="how much is corrected; auto: as much as the measured noise calls for, which is "
        "little where a volume is clean; a number from 0 to 1 scales that; full: all of it, "
        "whatever the noise",
        low=0,
        high=1,
        ranged=False,
        metavar="S",
    )
    bias_correction: Literal["auto", "none", "n4"] = option(
        "auto",
        help="n4 removes the shading of MR; auto: where it is measured to be strong, and never in "
        "previews",
    )
    task: Literal["auto", "noise", "sharpness", "slices", "artifacts"] = option(
        "auto",
        help="what is improved: noise alone; sharpness: noise and blur; slices: thick slices "
        "become thin ones, on a new grid; artifacts: MR with missing lines of k-space or motion; "
        "auto: noise, and blur and shading where they are measured",
    )
    slice_spacing: float | Literal["isotropic", "half"] = option(
        "isotropic",
        help="with the task slices, what the slices are apart afterwards: isotropic (as the "
        "pixels), half (of what it was), or mm",
        low=0.01,
        high=100,
        metavar="T",
    )
    tile: int = option(
        1024,
        help="side of the inference window; smaller slices go in whole",
        low=256,
        multiple=128,
        unit="pixels",
        flag=None,
    )
    overlap: float = option(
        0.25, help="of neighboring windows, as a share of them", low=0, high=0.9, flag=None
    )
    batch: int | None = option(
        None,
        help="slices at once; null takes what suits the device and the size of a slice",
        low=1,
        high=256,
        flag=None,
    )

    @property
    def share(self) -> float:
        """What the correction of `auto`, or all of it, is scaled by."""
        return 1.0 if isinstance(self.strength, str) else float(self.strength)
