"""Warnings that a model, or the filter, may not suit a volume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.texts import Text, text

#: A training with fewer steps than this is a test; the preset smoke has a handful.
_FEWEST_STEPS = 100
#: Least gain in dB that matters, and standard errors that a certain difference exceeds.
_LEAST_DB, _ERRORS = 0.05, 2
#: Substrings of BodyPartExamined for each anatomy: DICOM's terms, and vendors' own.
_SHOWN_IN = {"brain": ("BRAIN", "HEAD", "SKULL", "CEREB", "NEURO", "WHOLEBODY")}


@dataclass(frozen=True)
class ModelWarning:
    """One reason why a model's result on a volume may be wrong.

    Attributes:
        code: key of the message; that of the hint ends with "-hint".
        numbers: of both.
    """

    code: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> Text:
        """A clause."""
        return Text(self.code, self.numbers)

    @property
    def hint(self) -> Text:
        """What to do about it."""
        return Text(f"{self.code}-hint", self.numbers)

    @property
    def text(self) -> Text:
        """Message and hint."""
        return text("warning", message=self.message, hint=self.hint)

    def to_json(self) -> dict[str, Any]:
        """Return code, numbers, message and hint."""
        texts = {"message": str(self.message), "hint": str(self.hint)}
        return {"code": self.code, "numbers": dict(self.numbers)} | texts


def messages_of(warnings: Iterable[ModelWarning]) -> str:
    """Join all messages in one line, for histories and descriptions."""
    return "; ".join(str(warning.message) for warning in warnings)


def model_warnings(bundle: Bundle, volume: Volume) -> tuple[ModelWarning, ...]:
    """State where a model may not suit a volume.

    Args:
        bundle: the model.
        volume: to be changed by it.
    """
    reasons = (
        training_length_warning(bundle),
        verdict_warning(bundle),
        anatomy_warning(bundle, volume.dicom_origin.body_part if volume.dicom_origin else ""),
    )
    return tuple(reason for reason in reasons if reason)


def anatomy_warning(bundle: Bundle, part: str) -> ModelWarning | None:
    """Warn where a body part (BodyPartExamined; "" for none) is not the model's; else None."""
    terms = _SHOWN_IN.get(bundle.anatomy)
    if not part or not terms or any(term in part.upper() for term in terms):
        return None
    return ModelWarning("anatomy", {"name": bundle.name, "anatomy": bundle.anatomy, "part": part})


def training_length_warning(bundle: Bundle) -> ModelWarning | None:
    """Warn where the bundle records that its training was only a test; else None."""
    training = bundle.metadata.get("training") or {}
    steps = (training.get("config") or {}).get("steps")
    # Without steps of its own, it has the weights of another model.
    if not isinstance(steps, int) or not 0 < steps < _FEWEST_STEPS:
        return None
    return ModelWarning("test-model", {"name": bundle.name, "steps": steps})


def is_certain(gain: float, error: float) -> bool:
    """Return whether a gain in dB exceeds 0.05 dB and twice its standard error."""
    return gain > max(_LEAST_DB, _ERRORS * error)


def is_certain_loss(gain: float, error: float) -> bool:
    """Return whether a gain in dB is below 0 by more than twice its standard error."""
    return gain + _ERRORS * error < 0


def verdict_warning(bundle: Bundle) -> ModelWarning | None:
    """Warn where a model was measured to be worse than the one that ships; else None."""
    validation = (bundle.metadata.get("training") or {}).get("validation") or {}
    over, error = (validation.get(f"over_shipped{name}_db", 0.0) for name in ("", "_error"))
    if not is_certain_loss(over, error):
        return None
    return ModelWarning("not-better", {"name": bundle.name, "worse_db": -over})


def training_length_limits(steps: int) -> list[str]:
    """Return the limit that a model card states after a training of `steps` steps, if any."""
    if steps >= _FEWEST_STEPS:
        return []
    return [f"Trained for {steps} steps only, as a test model: use it for nothing else."]
