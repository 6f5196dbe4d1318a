"""The records of an audit: its input, and the findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.texts import Text, text
from MedEnhanceLib.training.spg.config import FEWEST_AUDITED


@dataclass(frozen=True)
class Audited:
    """Distilled set with the patients it was made from, and patients that were held out.

    All images are float32 [N, H, W] in [0, 1], of one size and through one intensity window.

    Attributes:
        distilled: the set.
        training: images by patient; at least two patients.
        held_out: as training. Patients must have been assigned to one or the other at random:
            the exact tests of the audit depend on it.
        prior: the start of the distillation; None: not used.
    Raises:
        InputError: there are too few patients, or one is in both groups.
    """

    distilled: Floats
    training: Mapping[str, Floats]
    held_out: Mapping[str, Floats]
    prior: Floats | None = None

    def __post_init__(self) -> None:
        for name, group in (("training", self.training), ("held-out", self.held_out)):
            if len(group) < FEWEST_AUDITED:
                raise InputError(
                    f"the audit got {len(group)} {name} patients",
                    "It compares patients that were used with patients that were not: give at "
                    f"least {FEWEST_AUDITED} of each, drawn at random.",
                )
        if not set(self.training).isdisjoint(self.held_out):
            raise InputError("a patient is in training and held out at once", "Split by patient.")

    @property
    def patients(self) -> dict[str, Floats]:
        """All patients, training first."""
        return {**self.training, **self.held_out}

    @property
    def aliases(self) -> dict[str, str]:
        """Patient → alias in reports: T1, T2, … training, H1, H2, … held out."""
        named = {name: f"T{number}" for number, name in enumerate(self.training, start=1)}
        named |= {name: f"H{number}" for number, name in enumerate(self.held_out, start=1)}
        return named


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of an attack that ran.

    Attributes:
        found: what it found, in Markdown.
        p: probability that a set without a leak gives a result as extreme.
        level: the p at which the alarm is raised.
        detectable: the smallest leak that is found with 80 % probability: a share of an image, or
            the AUC; None: even the largest would be missed.
        power: a sentence on that.
        finds: what it could have found.
        measured: the figures behind it, for JSON.
    """

    attack: str
    found: Text
    p: float
    level: float
    detectable: float | None
    power: Text
    finds: Text
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alarm(self) -> bool:
        """Whether this attack found a leak."""
        return self.p <= self.level

    @property
    def is_blind(self) -> bool:
        """Whether no leak could have been found: no alarm means nothing then."""
        return self.detectable is None

    @property
    def text(self) -> Text:
        """Method, figures and result in Markdown."""
        outcome = text("attack_blind" if self.is_blind else "attack_silent")
        outcome = text("attack_alarm") if self.alarm else outcome
        return text("attack", attack=self.found, power=self.power, outcome=outcome)

    def to_json(self) -> dict[str, Any]:
        """Convert all fields, alarm and is_blind."""
        texts = {name: str(getattr(self, name)) for name in ("found", "power", "finds")}
        return vars(self) | texts | {"alarm": self.alarm, "is_blind": self.is_blind}
