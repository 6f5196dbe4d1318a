"""What one attack found, and what it could have found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An attack that ran.

    attack: its stable name. title: for people. sentence: what it found, in plain words.
    p: how often a set without a leak looks as bad. level: the p at which the alarm is raised.
    smallest_p: the best that an attack on a cohort of this size could reach. detectable: the
    smallest leak that would have been found with 80 % probability, in the unit that `power` names;
    None where even the largest would have been missed. power: that in plain words.
    measured: the figures behind it, as JSON takes them.
    """

    attack: str
    title: str
    sentence: str
    p: float
    level: float
    smallest_p: float
    detectable: float | None
    power: str
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alarm(self) -> bool:
        """Whether this attack found a leak."""
        return self.p <= self.level

    @property
    def is_blind(self) -> bool:
        """Whether it could have found nothing: its silence says nothing then."""
        return self.detectable is None

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "attack": self.attack,
            "title": self.title,
            "alarm": self.alarm,
            "is_blind": self.is_blind,
            "sentence": self.sentence,
            "power": self.power,
            "p": self.p,
            "level": self.level,
            "smallest_p": self.smallest_p,
            "detectable": self.detectable,
            "measured": dict(self.measured),
        }


@dataclass(frozen=True)
class NotRun:
    """An attack that did not run, and why."""

    attack: str
    title: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {"attack": self.attack, "title": self.title, "reason": self.reason}
