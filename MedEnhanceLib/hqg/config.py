"""Options of HQG-Net: its training and its use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from MedEnhanceLib.core.options import (
    About,
    Options,
    did_you_mean,
    in_their_case,
    merged,
    option,
    options_of,
)
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.hqg.denoisers import DENOISERS, options_for
from MedEnhanceLib.learning.config import NetworkTrainingConfig
from MedEnhanceLib.runtime.device import DEVICES

#: Options of both trainings.
_NOISELESS: Any = option(
    (),
    help="patterns of volumes without noise, such as those of a distilled set; noise is not "
    "measured in them, as texture could be taken for noise",
)
_SYNTHETIC: Any = option(
    0.0,
    help="share of the crops without a guide that show synthetic volumes: random shapes and "
    "textures",
    low=0,
    high=1,
)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Options):
    """Size of the set network and of its correction by a guide."""

    # Chosen in trials (decision 0047). Measured as a whole by Benchmarks/denoising.py.
    width: int = option(96, help="features of a block", low=8, high=1024)
    hidden: int = option(128, help="features inside a layer", low=8, high=4096)
    layers: int = option(3, help="layers of mixing", low=1, high=24)
    guide_layers: int = option(2, help="layers of the correction by a guide", low=1, high=24)
    blocks: int = option(16, help="blocks in a group", low=2, high=64)
    # In CT 2.5, tuned on faint lesions and on wide bodies (decision 0047).
    least_order: float = option(
        0.0,
        help="coefficients with a lower sum of their orders along the three axes are not changed, "
        "as they contain faint lesions in CT; 2.5 halves the correction of order 2",
        low=0,
        high=9,
    )
    #: The only way; bundles state it.
    modulation: Literal["addition"] = option(
        "addition", help="how the guide's cue changes features: it is added to them"
    )


@dataclass(frozen=True, kw_only=True)
class ViewConfig(Options):
    """Size of the network that sees whole slices."""

    # Chosen in trials (decision 0066). Measured as a whole by Benchmarks/real_ct.py.
    widths: tuple[int, ...] = option(
        (32, 64, 96, 128), help="channels of each level", low=1, high=4096, items=(1, 6)
    )
    depth: int = option(1, help="residual blocks of each level on the way down", low=1, high=16)


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Options):
    """Last steps, in which a frozen segmentation head teaches the enhancer through a gate.

    The taught weights are accepted only if the head gains on persons held out at the same fidelity.
    """

    MINUTES: ClassVar[float] = 10  # about, on two cores

    segmenter: Annotated[str, About(help="name or folder of the head")]
    gate: Literal["ema", "binary"] = option(
        "ema",
        help="when the task's gradient counts: ema by averaged gradients, binary as published",
    )
    # Tuned with persons left out (decision 0017). Measured again by Benchmarks/gradprom.py.
    weight: float = option(
        3.0,
        help="weight of the task's gradient, in units of the mean norms of both; 0: without it",
        low=0,
        high=1e6,
    )
    steps: int = option(100, help="number of steps", low=1, high=10_000_000)
    held_out_share: float = option(
        0.2,
        help="share of the patients held out, drawn by the seed, for a head from label maps if "
        "held_out names nobody; at least one is",
        above=0,
        high=0.9,
    )
    learning_rate: float = option(5e-4, help="learning rate of AdamW", low=1e-9, high=1)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(NetworkTrainingConfig):
    """One training of the enhancer, reproducible from this, the seed and the data.

    Three stages follow one another: without a guide, with guides, and with planted lesions. Without
    examinations there is the first alone. Presets: smoke: for tests; quick: some further steps of a
    trained enhancer (`start`); cpu; full: for a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "steps": 4,
            "guide_steps": 2,
            "lesion_steps": 2,
            "crops": 2,
            "validated": 1,
            "network": {"width": 16, "hidden": 16, "layers": 1, "guide_layers": 1, "blocks": 8},
        },
        "quick": {
            "steps": 800,
            "guide_steps": 300,
            "lesion_steps": 200,
            "crops": 60,
            "validated": 12,
            "learning_rate": 5e-4,
        },
        "cpu": {},
        "full": {
            "steps": 60_000,
            "guide_steps": 30_000,
            "lesion_steps": 20_000,
            "network": {"width": 192, "hidden": 384, "layers": 4, "guide_layers": 3, "blocks": 32},
        },
    }

    #: Without guides.
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.5, "quick": 5, "cpu": 60, "full": 4000}

    high_quality: tuple[str, ...] = option(
        ("hq/*",), help="patterns of clean volumes below the data folder"
    )
    noiseless: tuple[str, ...] = _NOISELESS
    synthetic: float = _SYNTHETIC
    examinations: tuple[str, ...] = option(
        (),
        help="patterns of series, one pattern for each examination, for the stages with guides; "
        "empty: the enhancer takes no guide",
    )
    leave_out: tuple[str, ...] = option(
        (), help="patterns of files or folders to exclude from training"
    )
    name: str = "mr"
    start: str = option(
        "", help="name or folder of an enhancer of the same size that training starts from"
    )
    # Chosen in trials (decision 0047). Measured as a whole by Benchmarks/denoising.py.
    steps: int = option(9400, help="steps without a guide", low=0, high=10_000_000)
    guide_steps: int = option(4700, help="steps with guides", low=0, high=10_000_000)
    lesion_steps: int = option(3500, help="steps with planted lesions", low=0, high=10_000_000)
    crops: int = option(300, help="crops to draw from at a time", low=1, high=100_000)
    renewed_every: int = option(
        10, help="steps after which a crop is replaced", low=1, high=10_000_000
    )
    learning_rate: float = option(2e-3, help="learning rate of AdamW", low=1e-9, high=1)
    validated: int = option(8, help="number of validation crops", low=1, high=1000)
    network: NetworkConfig = option(factory=NetworkConfig, help="size of the network")
    view: ViewConfig | None = option(
        None,
        help="size of a network that sees whole slices, for CT, whose noise reaches beyond blocks: "
        "it is trained, and the bundle keeps the set network of start",
    )
    task: TaskConfig | None = option(
        None, help="segmentation task whose gradient passes a gate in the last steps; null: none"
    )

    @classmethod
    def preset_fields(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields of a preset for the modality, as `Options.preset_fields` does."""
        base = {"name": "ct"} if fields.get("modality") == "CT" else {}
        return merged(cls, base, super().preset_fields(fields))


@dataclass(frozen=True, kw_only=True)
class SliceNetConfig(Options):
    """Size of the network."""

    # Chosen by hand; no table isolates it. Measured as a whole by Benchmarks/slices.py.
    widths: tuple[int, ...] = option(
        (32, 64, 96), help="channels of each level", low=1, high=4096, items=(1, 6)
    )
    depth: int = option(1, help="residual blocks of each level on the way down", low=1, high=16)


@dataclass(frozen=True, kw_only=True)
class TrainSlicesConfig(NetworkTrainingConfig):
    """One training run, reproducible from this, the seed and the data.

    Presets: smoke: for tests; quick: some further steps of a trained network (`start`); cpu; full:
    for a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "steps": 4,
            "batch": 2,
            "rows": 32,
            "columns": 16,
            "network": {"widths": (8, 8)},
        },
        "quick": {"steps": 400, "learning_rate": 1e-4},
        "cpu": {},
        "full": {"steps": 60_000, "batch": 64},
    }
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.5, "quick": 6, "cpu": 90, "full": 6900}

    files: tuple[str, ...] = option(
        ("**/*.nii.gz",),
        help="patterns of volumes below the data folder; their slices are used, of nearly "
        "isotropic volumes all three sets of planes",
    )
    noiseless: tuple[str, ...] = _NOISELESS
    synthetic: float = _SYNTHETIC
    name: str = "mr-slices"
    start: str = option(
        "", help="name or folder of a model of the same size that training starts from"
    )
    # Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/slices.py.
    steps: int = option(6000, help="steps of the optimizer", low=1, high=10_000_000)
    batch: int = option(8, help="patches per step", low=1, high=4096)
    rows: int = option(96, help="thin slices of a patch", low=32, high=1024, multiple=8)
    columns: int = option(64, help="pixels of a patch within the slices", low=16, high=1024)
    learning_rate: float = option(1e-3, help="learning rate of AdamW", low=1e-9, high=1)
    network: SliceNetConfig = option(factory=SliceNetConfig, help="size of the network")


@dataclass(frozen=True, kw_only=True)
class EnhanceConfig(Options):
    """Options of enhancement."""

    model: str = option(
        "auto", help="a model's name or folder; auto: the one for the modality", metavar="NAME"
    )
    uncertainty: bool = option(
        False, help="also make a map of the uncertainty: the standard deviation of the error"
    )
    device: str = option("auto", help=DEVICES, metavar="D")
    strength: float | Literal["auto", "full"] = option(
        "auto",
        help="amount of correction; auto: as much as the measured noise requires, little in a "
        "clean volume; full: all of it, whatever the noise; a number: this share of auto",
        low=0,
        high=1,
        metavar="S",
    )
    noise: float | str | None = option(
        None,
        help="noise that is removed, all of it, instead of what is measured: a file with its map, "
        "or its standard deviation in the units of the volume",
        above=0,
        high=1e18,
        metavar="SIGMA|FILE",
    )
    smooth: bool = option(
        False,
        help="in CT, also remove noise that looks like small faint lesions, and such lesions with "
        "it; by default both stay, and the image is less smooth",
    )
    as_intensity: bool = option(
        False,
        help="also enhance derived maps (ADC, T1, CBF, MIP), and what only looks like phase or "
        "labels, as if they were intensities",
    )
    denoiser: str = option(
        "auto",
        help=f"method that removes the noise: {', '.join(DENOISERS)}; auto: the network "
        "of the model, and principal-images for frames that are filtered together",
        metavar="NAME",
    )
    denoiser_options: dict[str, Any] = option(
        factory=dict, help="options of the denoiser, if it has any", metavar="NAME=VALUE"
    )
    correct_bias_field: bool = option(False, help="also correct the bias field of MR (N4)")
    sequence: Literal["auto", "joint", "each"] = option(
        "auto",
        help="frames of a sequence; joint: filtered together, for frames of different contrast "
        "(diffusion, echoes, inversion times); each: one by one, for frames that are alike (fMRI, "
        "perfusion, dynamic), in which a joint filter erases weak activation; auto: by what files "
        "state, else each",
    )
    task: Literal["noise", "slices"] = option(
        "noise",
        help="what is corrected: noise; slices: thin slices from thick ones, on a new grid",
    )
    slice_spacing: float | Literal["isotropic", "half"] = option(
        "isotropic",
        help="slice spacing of the result, for the task slices: isotropic (pixel size), half "
        "(of the original), or mm",
        low=0.01,
        high=100,
        metavar="T",
    )
    slice_thickness: float | Literal["auto"] = option(
        "auto",
        help="full width at half maximum of the profile of the given slices in mm, for the task "
        "slices; auto: as DICOM states, or else their spacing",
        low=0.01,
        high=100,
        metavar="T",
    )
    slice_profile: Literal["auto", "gaussian", "box"] = option(
        "auto",
        help="how a given slice weighs what is within it, for the task slices; auto: gaussian in "
        "MR, as excitation falls off, box in CT. Slices that a program averaged: box",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "denoiser", in_their_case(self.denoiser, ("auto", *DENOISERS)))
        if self.denoiser not in ("auto", *DENOISERS):
            raise ConfigError(
                f"denoiser: there is no {self.denoiser!r}",
                f"{did_you_mean(self.denoiser, DENOISERS)}Use auto, {', '.join(DENOISERS)}.",
            )
        if self.denoiser_options:
            if self.denoiser == "auto":
                raise ConfigError("denoiser_options require a named denoiser", "Set denoiser too.")
            options = options_for(self.denoiser, self.denoiser_options)
            object.__setattr__(self, "denoiser_options", options.to_json())
        is_file = isinstance(self.noise, str)
        if is_file and not os.path.exists(str(self.noise)):  # noqa: PTH110 - never raises
            raise ConfigError(
                f"noise: {self.noise} is neither a number nor a file",
                "Give σ in the units of the volume, or the file of its map.",
            )
        for each in options_of(type(self)):
            is_set = getattr(self, each.name) != each.default
            if each.name.startswith("slice_") and is_set and self.task != "slices":
                raise ConfigError(
                    f"{each.name} requires the task slices", "Set task to slices, or leave it out."
                )

    @property
    def share(self) -> float:
        """Factor on the correction: `strength` where it is a number, 1 for "auto" and "full"."""
        return 1.0 if isinstance(self.strength, str) else float(self.strength)
