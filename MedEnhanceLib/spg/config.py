"""What can be chosen in a distillation: the task, the images, the generator and the loop."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from MedEnhanceLib.core.options import check_range, config_from_json, config_to_json
from MedEnhanceLib.errors import ConfigError

TASKS = ("denoise", "sr2", "sr4", "undersample")
PRESETS = ("smoke", "cpu", "full")
#: Networks whose gradients can be matched; `networks.UNSEEN` is kept for evaluation.
MATCHED = ("srcnn", "edsr")
MODALITIES = ("CT", "MR")
TEMPLATE, REPRESENTATIVE, PATIENT = "template", "representative", "patient:"
#: Sides of images are multiples of this: ζ has an eighth of the resolution.
GRID = 8
#: What does not change what is distilled: a run may go on with other values of these.
_FREE = ("device", "checkpoint_s")


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How volumes become images: axial, [size, size] pixels of spacing_mm, values in [0, 1].

    ct_window: HU that become 0 and 1. mr_top: share of the robust maximum (the 99.5th percentile
    of the foreground) that becomes 1; 0 stays 0, as a magnitude has it. Beyond is clipped.
    """

    size: int = 96
    spacing_mm: float = 1.0
    ct_window: tuple[float, float] = (-1000.0, 1000.0)
    mr_top: float = 1.0

    def __post_init__(self) -> None:
        check_range("size", self.size, 16, 4096)
        check_range("spacing_mm", self.spacing_mm, 0.05, 50)
        check_range("mr_top", self.mr_top, 0.1, 10)
        if self.size % GRID:
            raise ConfigError(f"size is {self.size}", f"Use a multiple of {GRID}.")
        if len(self.ct_window) != 2 or not self.ct_window[0] < self.ct_window[1]:
            raise ConfigError(f"ct_window is {self.ct_window}", "Give two HU, the lower one first.")


@dataclass(frozen=True, kw_only=True)
class DamageConfig:
    """How strong a task's damage is (design: spg part 6).

    rician: lowest and highest σ of noise in MR, as shares of 1 in the images.
    dose: share of the full dose that CT is reduced to; full_dose_photons: per ray of a pixel's
    width in 360 views. What is added is the noise of dose / (1 − dose) of the full dose, which
    makes the sum that of `dose`: with these values about 60 HU in tissue, as in the first trial.
    views: that are simulated; their photons add up to the same dose.
    acceleration: of undersampled MR; centre: share of the lines around the middle that are kept.
    """

    rician: tuple[float, float] = (0.03, 0.09)
    dose: float = 0.25
    full_dose_photons: float = 6600.0
    views: int = 120
    acceleration: float = 4.0
    centre: float = 0.08

    def __post_init__(self) -> None:
        if len(self.rician) != 2 or not 0 <= self.rician[0] <= self.rician[1] <= 1:
            raise ConfigError(f"rician is {self.rician}", "Give two shares, the lower one first.")
        check_range("dose", self.dose, 0.001, 0.999)
        check_range("full_dose_photons", self.full_dose_photons, 1, 1e12)
        check_range("views", self.views, 8, 10_000)
        check_range("acceleration", self.acceleration, 1, 100)
        check_range("centre", self.centre, 0, 1)


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """The module that makes a patient's images from the prior (design: spg parts 4 and 5).

    widths: channels of the three levels. rho: the most by which a pixel may leave the prior.
    rate: Adam's learning rate; clip: norm that the module's gradient is cut to.
    structure: weight of the structure loss at the beginning and at the end. restraint: weight of
    the mean square of what tanh is given, which keeps it from saturating where it is large; at a
    rate of 1e-3, weights of 0.5 to 0.05 and a restraint of 0.1 images stay so near the prior that
    networks learn little else from them than from it. grain: whether U sees a
    fixed map of noise besides.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    rho: float = 0.15
    rate: float = 3e-3
    clip: float = 0.05
    structure: tuple[float, float] = (0.1, 0.02)
    restraint: float = 0.005
    grain: bool = True

    def __post_init__(self) -> None:
        if len(self.widths) != 3 or min(self.widths) < 1:
            raise ConfigError(f"widths are {self.widths}", "Give three numbers of channels.")
        check_range("rho", self.rho, 0.001, 1)
        check_range("rate", self.rate, 0, 1)
        check_range("clip", self.clip, 1e-6, 1e6)
        check_range("restraint", self.restraint, 0, 1e6)
        if len(self.structure) != 2 or min(self.structure) < 0:
            raise ConfigError(f"structure is {self.structure}", "Give two weights, from 0 up.")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How gradients are matched (design: spg parts 7 and 8).

    outer: random re-initialisations of a network; inner: matches with each; teaching: steps in
    which it learns on the distilled images after each match, at `network_rate` (Adam).
    patch: side of a patch; batch: patches of a match, from raw and from distilled images;
    teaching_batch: of a teaching step. networks: taken in turns, one for each outer step.
    distance: between gradients, "cosine" or "relative"; "auto" takes what the task is best
    matched with: relative for super-resolution, cosine for the others.
    """

    outer: int = 15
    inner: int = 10
    teaching: int = 20
    patch: int = 48
    batch: int = 16
    teaching_batch: int = 8
    network_rate: float = 1e-4
    networks: tuple[str, ...] = ("srcnn",)
    distance: Literal["auto", "cosine", "relative"] = "auto"

    def __post_init__(self) -> None:
        check_range("outer", self.outer, 1, 1_000_000)
        check_range("inner", self.inner, 1, 1_000_000)
        check_range("teaching", self.teaching, 0, 1_000_000)
        check_range("patch", self.patch, 8, 4096)
        check_range("batch", self.batch, 1, 4096)
        check_range("teaching_batch", self.teaching_batch, 1, 4096)
        check_range("network_rate", self.network_rate, 0, 1)
        if not self.networks or set(self.networks) - set(MATCHED):
            raise ConfigError(f"networks are {self.networks}", f"Use {' and '.join(MATCHED)}.")
        if self.distance not in ("auto", "cosine", "relative"):
            raise ConfigError(f"distance is {self.distance!r}", "Use auto, cosine or relative.")
        if self.patch % 4:
            raise ConfigError(f"patch is {self.patch}", "Use a multiple of 4.")

    @property
    def steps(self) -> int:
        """Numbered steps of a patient: matches, and what networks learn after each."""
        return self.outer * self.inner * (1 + self.teaching)


@dataclass(frozen=True, kw_only=True)
class KeepingConfig:
    """Trainings that tell how much of the change helps other patients (keeping.py).

    seeds: of each share and half of the patients; 0 keeps all without asking. steps, batch, patch
    and learning_rate: of each training, of SRCNN.
    """

    seeds: int = 3
    steps: int = 1000
    batch: int = 4
    patch: int = 24
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        check_range("seeds", self.seeds, 0, 1000)
        check_range("steps", self.steps, 1, 10_000_000)
        check_range("batch", self.batch, 1, 4096)
        check_range("patch", self.patch, 8, 4096)
        check_range("learning_rate", self.learning_rate, 0, 1)


@dataclass(frozen=True, kw_only=True)
class DPConfig:
    """Differential privacy of a distillation, by patient (docs/distillation.md).

    epsilon: the ε to keep; or noise_multiplier: standard deviation of the noise, in clips. delta:
    far below one over the number of patients. clip: what the norm of a patient's gradient is cut
    to in each match, in norms of the gradient of that patient's distilled images.
    """

    epsilon: float | None = None
    noise_multiplier: float | None = None
    delta: float = 1e-5
    clip: float = 1.0

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            both = "both epsilon and" if self.epsilon is not None else "neither epsilon nor"
            raise ConfigError(
                f"differential privacy with {both} noise_multiplier",
                "Give one of both: --epsilon 8 (dp.epsilon), or dp.noise_multiplier.",
            )
        if self.epsilon is not None:
            check_range("epsilon", self.epsilon, 1e-6, 1e6)
        if self.noise_multiplier is not None:
            check_range("noise_multiplier", self.noise_multiplier, 1e-2, 1e6)
        check_range("delta", self.delta, 1e-300, 0.5)
        check_range("clip", self.clip, 1e-6, 1e6)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """One distillation, reproducible from this and the data.

    task: what networks will be trained for on the result: "denoise", "sr2", "sr4" (twice and four
    times the resolution) or "undersample" (MR with a quarter of its lines).
    images_per_patient: M, in the result. prior: what all images start from: "template" (a public
    average, for MR), "representative" or "patient:ID" (of the cohort: they expose that patient), or
    a volume's file. intensities: "cohort" gives the prior the cohort's distribution of intensities
    (the mean over patients of 33 quantiles of what they show), "own" leaves it its own.
    held_out: share of the patients that are not distilled but kept for the audit.
    shadows: further distillations, of random halves of the patients, that the audit compares with;
    0, or an even number from 4 on; each takes as long as the distillation itself.
    keeping: how it is found how much of the change is kept.
    dp: differential privacy; None for none. With it intensities are "own", and all of the change is
    kept: nothing but noised gradients may tell of the patients.
    device: "auto", "cpu", "cuda", …; checkpoint_s: seconds between checkpoints at most.
    """

    task: str = "denoise"
    images_per_patient: int = 10
    prior: str = TEMPLATE
    intensities: Literal["cohort", "own"] = "cohort"
    held_out: float = 0.2
    shadows: int = 0
    seed: int = 0
    images: ImageConfig = field(default_factory=ImageConfig)
    damage: DamageConfig = field(default_factory=DamageConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    keeping: KeepingConfig = field(default_factory=KeepingConfig)
    dp: DPConfig | None = None
    device: str = "auto"
    checkpoint_s: float = 60.0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ConfigError(f"unknown task {self.task!r}", f"Use one of {', '.join(TASKS)}.")
        check_range("images_per_patient", self.images_per_patient, 1, 10_000)
        check_range("held_out", self.held_out, 0, 0.9)
        check_range("shadows", self.shadows, 0, 10_000)
        check_range("seed", self.seed, 0, 2**53)
        if self.shadows % 2 or self.shadows == 2:
            raise ConfigError(f"shadows is {self.shadows}", "Use 0, or an even number from 4 on.")
        check_range("checkpoint_s", self.checkpoint_s, 0, 1e9)
        if not self.prior or self.prior == PATIENT:
            raise ConfigError("the prior is not named", "Use template, patient:ID or a file.")
        if self.intensities not in ("cohort", "own"):
            raise ConfigError(f"intensities is {self.intensities!r}", "Use cohort or own.")
        dp: Any = self.dp  # as it came from JSON
        if dp is not None and not isinstance(dp, DPConfig):
            object.__setattr__(self, "dp", config_from_json(DPConfig, dp))
        if self.dp is not None and self.kind_of_prior in (REPRESENTATIVE, "patient"):
            raise ConfigError(
                "the prior is a patient of the cohort, whom no noise covers",
                "With differential privacy use the template, or the file of a public volume.",
            )
        if self.loop.patch > self.images.size:
            raise ConfigError(
                f"patch is {self.loop.patch}, larger than images of {self.images.size}",
                "Use smaller patches or larger images.",
            )

    @classmethod
    def preset(cls, name: str) -> DistillConfig:
        """The configuration of a name.

        smoke: seconds, for tests; cpu: some minutes a patient on one core; full: the loop of the
        design (200 re-initialisations, both networks), for a GPU.
        """
        base = cls()
        tiny = LoopConfig(
            outer=2, inner=2, teaching=2, patch=16, batch=4, teaching_batch=2, network_rate=1e-3
        )
        presets = {
            "smoke": replace(
                base,
                images_per_patient=2,
                images=ImageConfig(size=32, spacing_mm=3.0),
                damage=DamageConfig(views=24),
                generator=GeneratorConfig(widths=(4, 4, 8)),
                loop=tiny,
                keeping=KeepingConfig(seeds=1, steps=2, patch=16),
            ),
            "cpu": base,
            "full": replace(
                base,
                images=ImageConfig(size=160),
                loop=LoopConfig(outer=200, patch=64, batch=32, networks=MATCHED),
            ),
        }
        if name not in presets:
            raise ConfigError(f"unknown preset {name!r}", f"Use one of {', '.join(presets)}.")
        return presets[name]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> DistillConfig:
        """A whole or partial configuration; `preset` names what the rest is taken from.

        `images`, `damage`, `generator`, `loop` and `keeping` may be partial as well.
        """
        fields = dict(fields)
        base = config_to_json(cls.preset(fields.pop("preset", "cpu")))
        for part in ("images", "damage", "generator", "loop", "keeping"):
            if isinstance(fields.get(part), dict):
                fields[part] = base[part] | fields[part]
        return config_from_json(cls, base | fields)

    @property
    def distance(self) -> str:
        """The distance between gradients that this task is matched by."""
        if self.loop.distance != "auto":
            return self.loop.distance
        return "relative" if self.task in ("sr2", "sr4") else "cosine"

    def told(self) -> dict[str, Any]:
        """What is written of it, and what a run that goes on must agree in.

        Nothing that names a patient or a place: of such a prior only its kind.
        """
        fields = {name: v for name, v in config_to_json(self).items() if name not in _FREE}
        fields["prior"] = self.kind_of_prior
        if self.dp is None:
            del fields["dp"]
        return dict(json.loads(json.dumps(fields)))

    @property
    def kind_of_prior(self) -> str:
        """One word: "template", "representative", "patient" or "file"."""
        if self.prior in (TEMPLATE, REPRESENTATIVE):
            return self.prior
        return "patient" if self.prior.startswith(PATIENT) else "file"


def sha256_of(fields: dict[str, Any]) -> str:
    """The hash of a JSON object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
