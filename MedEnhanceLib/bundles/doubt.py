"""What speaks against using a model on a volume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Doubt:
    """One reason to look twice, for people.

    code: "test-model", "anatomy", "out-of-range", "already-clean",
    "no-structure" or "pixel-size".
    message: a clause. hint: what to do about it. distance: from what the model learned from, in
    multiples of what is usual there (1 is the limit), or None where nothing was measured.
    """

    code: str
    message: str
    hint: str
    distance: float | None = None

    @property
    def text(self) -> str:
        """Message and hint, as warnings tell them."""
        return _text(self.message, self.hint)

    def to_json(self) -> dict[str, Any]:
        """For manifests."""
        return asdict(self)


def messages_of(doubts: Iterable[Doubt]) -> str:
    """All messages in one line, for histories and descriptions; empty where there are none."""
    return "; ".join(doubt.message for doubt in doubts)


def doubts_in(results: Mapping[str, Any]) -> list[str]:
    """What a manifest's `results.doubts` tells, as warnings tell it."""
    doubts = results.get("doubts") or ()
    return [_text(doubt["message"], doubt["hint"]) for doubt in doubts]


def _text(message: str, hint: str) -> str:
    return f"{message}: {hint}"
