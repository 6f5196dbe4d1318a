"""The options of a distillation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from MedEnhanceLib.core.options import Options, WithPresets, option
from MedEnhanceLib.errors import ConfigError

Task = Literal["denoise", "sr2", "sr4"]
TASKS: tuple[Task, ...] = get_args(Task)
Method = Literal["statistics", "matching"]
Modality = Literal["CT", "MR"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
TEMPLATE, REPRESENTATIVE, PATIENT = "template", "representative", "patient:"
#: Sides of images are multiples of this: ζ has an eighth of the resolution.
GRID = 8
#: What 0 and 1 are in images of CT, HU. In MR they are 0, as a magnitude has it, and the robust
#: maximum (the 99.5th percentile of the foreground).
CT_WINDOW = (-1000.0, 1000.0)
#: How strong the degradation is (design: spg part 6): of noise in MR, lowest and highest σ as
#: shares of 1 in the images; of CT, the share of the full dose that it is reduced to, by noise of
#: 2,200 photons per ray of a pixel's width in 360 views (about 60 HU in tissue).
DAMAGE: dict[str, Any] = {
    "rician": [0.03, 0.09],
    "dose": 0.25,
    "added_photons": 2200.0,
}
#: Fields without effect on the result: a run may be resumed with other values.
_FREE = ("device", "checkpoint_s", "license")


@dataclass(frozen=True, kw_only=True)
class ImageConfig(Options):
    """Options of images: axial, [size, size] pixels of spacing_mm."""

    size: int = option(96, help="side of an image", low=16, high=4096, multiple=GRID, unit="pixels")
    spacing_mm: float = option(1.0, help="pixel spacing", low=0.05, high=50, unit="mm")


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Options):
    """Options of gradient matching (design: spg parts 7 and 8)."""

    outer: int = option(15, help="random re-initializations of a network", low=1, high=1_000_000)
    inner: int = option(10, help="matches per network", low=1, high=1_000_000)
    teaching: int = option(
        20,
        help="training steps on the distilled images after each match",
        low=0,
        high=1_000_000,
    )
    patch: int = option(48, help="side of a patch", low=8, high=4096, multiple=4, unit="pixels")
    batch: int = option(
        16, help="patches per match, from raw and from distilled images", low=1, high=4096
    )

    @property
    def steps(self) -> int:
        """Numbered steps of a patient: matches, and what networks learn after each."""
        return self.outer * self.inner * (1 + self.teaching)


@dataclass(frozen=True, kw_only=True)
class DistillConfig(WithPresets):
    """Options of a distillation, reproducible from this and the data.

    Presets: smoke: seconds, for tests; cpu: some minutes a patient on one core; full: the loop of
    the design (200 re-initializations), for a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "images_per_patient": 2,
            "images": {"size": 32, "spacing_mm": 3.0},
            "loop": {"outer": 2, "inner": 2, "teaching": 2, "patch": 16, "batch": 4},
        },
        "cpu": {},
        "full": {
            "images": {"size": 160},
            "loop": {"outer": 200, "patch": 64, "batch": 32},
        },
    }

    task: Task = option(
        "denoise",
        help="denoise: low dose in CT, Rician noise in MR; sr2, sr4: twice and four times the "
        "resolution",
    )
    method: Method = option(
        "statistics",
        help="statistics: the prior alone, with the cohort's mean intensities and textures, "
        "101 numbers (seconds); matching: images for each patient, whose gradients match the "
        "patient's (SPG, minutes a patient)",
    )
    images_per_patient: int = option(
        10, help="images per patient; with statistics, in total", low=1, high=10_000, metavar="N"
    )
    prior: str = option(
        TEMPLATE,
        help="what the images start from and stay near: template (a public average brain; MR "
        "alone), a volume's file, or patient:ID or representative, which expose a patient of the "
        "cohort",
        metavar="P",
    )
    held_out: float = option(
        0.2,
        help="fraction of the patients held out for the audit; of four or more patients, at least "
        "two",
        low=0,
        high=0.9,
        metavar="S",
    )
    seed: int = option(0, help="random seed", low=0, high=2**53, metavar="N", ranged=False)
    images: ImageConfig = option(factory=ImageConfig, help="how volumes become images", flag=None)
    loop: LoopConfig = option(factory=LoopConfig, help="how gradients are matched", flag=None)
    device: str = option("auto", help="auto, cpu, cuda, cuda:N or mps", metavar="D")
    checkpoint_s: float = option(
        60.0, help="longest time between checkpoints", low=0, high=1e9, unit="s", flag=None
    )
    license: str = option(
        "",
        help="license of the images, for README.md and the manifest (default: none, so nobody may "
        "use them); it can be changed later",
        flag="--license",
        metavar="L",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.license.isprintable() or self.license != self.license.strip():
            raise ConfigError(
                f"license is {self.license!r}", 'Give a name in one line, as "CC BY 4.0".'
            )
        if not self.prior or self.prior == PATIENT:
            raise ConfigError("the prior is not named", "Use template, patient:ID or a file.")
        if self.loop.patch > self.images.size:
            raise ConfigError(
                f"patch is {self.loop.patch}, larger than images of {self.images.size}",
                "Use smaller patches or larger images.",
            )

    def record(self) -> dict[str, Any]:
        """Return the fields that are published, and that must agree to resume a run.

        They name no patient and no place: of the prior only the kind.
        """
        fields = {name: v for name, v in self.to_json().items() if name not in _FREE}
        fields["prior"] = self.kind_of_prior
        return dict(json.loads(json.dumps(fields)))

    @property
    def kind_of_prior(self) -> str:
        """One word: "template", "representative", "patient" or "file"."""
        if self.prior in (TEMPLATE, REPRESENTATIVE):
            return self.prior
        return "patient" if self.prior.startswith(PATIENT) else "file"
