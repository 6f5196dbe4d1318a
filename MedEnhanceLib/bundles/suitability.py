"""Warnings that a model, or the filter, may not suit a volume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.volume import Volume

#: A training with fewer steps than this is a test; the preset smoke has a handful.
_FEWEST_STEPS = 100
#: Parts of BodyPartExamined in images that show an anatomy: DICOM's terms, and scanners' own.
_SHOWN_IN = {"brain": ("BRAIN", "HEAD", "SKULL", "CEREB", "NEURO", "WHOLEBODY")}


@dataclass(frozen=True)
class ModelWarning:
    """One reason why a model's result on a volume may be wrong.

    code: "test-model", "anatomy", "noise-model" or "no-structure".
    message: a clause. hint: what to do about it.
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


def anatomy_warning(bundle: Bundle, volume: Volume) -> ModelWarning | None:
    """Warn where the DICOM images name another body part than the model's; else None."""
    part = volume.origin.body_part if volume.origin else ""
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
    # Without own steps it has the weights of another model.
    if not isinstance(steps, int) or not 0 < steps < _FEWEST_STEPS:
        return None
    return ModelWarning(
        "test-model",
        f"{bundle.name} was trained for {steps} steps only, as a test model",
        "use it for tests only, and train one with the preset cpu or full for real work",
    )


def training_length_limits(steps: int) -> list[str]:
    """Return the limit that a model card states after a training of `steps` steps, if any."""
    if steps >= _FEWEST_STEPS:
        return []
    return [f"Trained for {steps} steps only, as a test model: use it for nothing else."]
