"""Warnings that a model, or the filter, may not suit a volume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.volume import Volume

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
        code: "test-model", "anatomy", "not-better", "noise-model", "stated-noise", "joint-filter",
            "sequence-kind", "no-structure", "no-tissue", "unlike-frames", "slice-thickness" or
            "smooth".
        message: a clause.
        hint: what to do about it.
    """

    code: str
    message: str
    hint: str

    @property
    def text(self) -> str:
        """Message and hint."""
        return f"{self.message}: {self.hint}"


def messages_of(warnings: Iterable[ModelWarning]) -> str:
    """Join all messages in one line, for histories and descriptions."""
    return "; ".join(warning.message for warning in warnings)


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
    return ModelWarning(
        "anatomy",
        f"{bundle.name} was trained on images of the {bundle.anatomy} only, and these images show "
        f"{part} (BodyPartExamined)",
        "check the result closely",
    )


def training_length_warning(bundle: Bundle) -> ModelWarning | None:
    """Warn where the bundle records that its training was only a test; else None."""
    training = bundle.metadata.get("training") or {}
    steps = (training.get("config") or {}).get("steps")
    # Without steps of its own, it has the weights of another model.
    if not isinstance(steps, int) or not 0 < steps < _FEWEST_STEPS:
        return None
    return ModelWarning(
        "test-model",
        f"{bundle.name} was trained for {steps} steps only, as a test model",
        "use it for tests only, and train one with the preset cpu or full for real work",
    )


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
    return ModelWarning(
        "not-better",
        f"{bundle.name} is {-over:.2f} dB worse than the shipped model, as its training measured",
        "use the shipped model",
    )


def training_length_limits(steps: int) -> list[str]:
    """Return the limit that a model card states after a training of `steps` steps, if any."""
    if steps >= _FEWEST_STEPS:
        return []
    return [f"Trained for {steps} steps only, as a test model: use it for nothing else."]
