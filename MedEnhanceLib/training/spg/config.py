"""The options of a distillation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from MedEnhanceLib.core.modality import Like
from MedEnhanceLib.core.options import LARGEST_SEED, Options, WithPresets, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.device import DEVICES

Method = Literal["statistics", "matching"]
MODALITIES: tuple[Like, ...] = get_args(Like)
#: The prior that shows nobody.
SYNTHETIC = "synthetic"
#: What 0 and 1 stand for in CT, HU. In MR they are 0 and the robust maximum (the 99.5th percentile
#: of the foreground).
CT_WINDOW = (-1000.0, 1000.0)
#: Fewest patients of a cohort: averages over one would be that patient's own numbers.
FEWEST_PATIENTS = 2
#: Fewest distilled patients, and fewest held-out ones, that the audit can compare.
FEWEST_AUDITED = 2
#: With fewer patients than these, averages over them tell much about each.
MANY_PATIENTS = 7
#: Fields without effect on the result: a run may be resumed with other values.
_FREE = ("device", "checkpoint_s", "license")


@dataclass(frozen=True, kw_only=True)
class SizeConfig(Options):
    """Size of a volume of the set."""

    slices: int = option(32, help="number of slices", low=8, high=1024)
    side: int = option(112, help="rows and columns of a slice", low=40, high=1024, unit="pixels")


@dataclass(frozen=True, kw_only=True)
class LoopConfig(Options):
    """Options of gradient matching."""

    # Chosen by hand, for their time. Measured as a whole by Benchmarks/distillation.py.
    outer: int = option(4, help="random re-initializations of the network", low=1, high=1_000_000)
    inner: int = option(12, help="matches of each", low=1, high=1_000_000)
    teaching: int = option(
        4,
        help="training steps on the distilled volumes before each match",
        low=0,
        high=1_000_000,
    )
    batch: int = option(
        2, help="crops per match, of raw and of distilled volumes", low=1, high=4096
    )
    pool: int = option(8, help="different draws of a patient's raw crops", low=1, high=4096)
    full_size: bool = option(
        True, help="match on networks of the size that trainings have; false: tiny ones, for tests"
    )

    @property
    def steps(self) -> int:
        """Numbered steps of a patient: matches, and what networks learn before each."""
        return self.outer * self.inner * (1 + self.teaching)


@dataclass(frozen=True, kw_only=True)
class DistillConfig(WithPresets):
    """Options of a distillation, reproducible from this and the data.

    Presets: smoke: for tests; cpu; quick: a twentieth of its steps; full: ten times as many
    matches, for a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "volumes": 4,
            "size": {"slices": 12, "side": 40},
            "loop": {
                "outer": 1, "inner": 1, "teaching": 1, "batch": 1, "pool": 1, "full_size": False,
            },
        },
        "quick": {"loop": {"outer": 1, "inner": 4, "teaching": 2}},
        "cpu": {},
        "full": {"loop": {"outer": 20, "inner": 24, "teaching": 8, "batch": 4, "pool": 24}},
    }  # fmt: skip
    #: With matching, of each patient; statistics make a set in a minute.
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.1, "quick": 0.3, "cpu": 3, "full": 90}

    method: Method = option(
        "statistics",
        help="statistics: the prior with the cohort's spacing and mean textures, for MR also mean "
        "intensities (101 numbers, CT: 68; a minute); matching: for study, volumes for each "
        "patient whose gradients match those of the patient's scans (SPG, some minutes each; it "
        "teaches no more than statistics)",
    )
    volumes: int = option(
        24,
        help="volumes of the set; with matching at least one for each patient",
        low=1,
        high=10_000,
        metavar="N",
    )
    prior: str = option(
        SYNTHETIC,
        help="what the volumes start from: synthetic (random shapes, nobody's anatomy), or a "
        "volume's file, whose anatomy is shown",
        metavar="P",
    )
    held_out: float = option(
        0.2,
        help="fraction of the patients held out for the audit of matching; of four or more "
        "patients, at least two, of fewer none",
        low=0,
        high=0.9,
        metavar="S",
    )
    seed: int = option(0, help="random seed", low=0, high=LARGEST_SEED, metavar="N")
    size: SizeConfig = option(factory=SizeConfig, help="size of a volume", flag=None)
    loop: LoopConfig = option(factory=LoopConfig, help="how gradients are matched", flag=None)
    device: str = option("auto", help=DEVICES, metavar="D")
    checkpoint_s: float = option(
        60.0, help="longest time between checkpoints", low=0, high=1e9, unit="s", flag=None
    )
    license: str = option(
        "",
        help="license of the set, for README.md and the manifest (default: none, so nobody may "
        "use it); it can be changed later",
        flag="--license",
        metavar="L",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.license.isprintable() or self.license != self.license.strip():
            raise ConfigError(
                f"license is {self.license!r}", 'Give a name in one line, as "CC BY 4.0".'
            )

    def record(self) -> dict[str, Any]:
        """Return the fields that are published, and that must agree to resume a run.

        They name no patient and no place: of the prior only the kind.
        """
        fields = {name: v for name, v in self.to_json().items() if name not in _FREE}
        fields["prior"] = self.kind_of_prior
        return dict(json.loads(json.dumps(fields)))

    def count_held_out(self, patients: int) -> int:
        """Count the patients of a cohort that are held out: none where no audit is possible."""
        can_audit = self.method == "matching" and patients >= 2 * FEWEST_AUDITED
        count = max(round(self.held_out * patients), FEWEST_AUDITED)
        return min(count, patients - FEWEST_AUDITED) if can_audit and self.held_out else 0

    @property
    def kind_of_prior(self) -> str:
        """One word: "synthetic" or "file"."""
        return SYNTHETIC if self.prior == SYNTHETIC else "file"
