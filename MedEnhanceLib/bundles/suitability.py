"""Warnings that a model, or the filter, may not suit a volume.

A bundle may hold mean and covariance of numbers that describe its training images ("likeness"); a
volume is unlike them if its Mahalanobis distance, divided by √(their count), is above the limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.texts import Text, text

#: A training with fewer steps than this is a test; the preset smoke has a handful.
_FEWEST_STEPS = 100
#: Least gain in dB that matters, and standard errors that a certain difference exceeds.
_LEAST_DB, _ERRORS = 0.05, 2
#: Substrings of BodyPartExamined for each anatomy: DICOM's terms, and vendors' own.
_SHOWN_IN = {"brain": ("BRAIN", "HEAD", "SKULL", "CEREB", "NEURO", "WHOLEBODY")}

#: Standard deviation of each number between scanners, by its first word, as in T1 brains.
_BETWEEN = {
    "volume": 0.3,
    "thickness": 0.05,
    "level": 0.05,
    "brightness": 0.1,
    "spread": 0.5,
    "": 0.15,
}
#: Meaning of a number that is lower, and of one that is higher, than in the training images.
_IN_WORDS = {
    "thickness": ("{} is thinner", "{} is thicker"),
    "level": ("{} is darker", "{} is brighter"),
    "brightness": ("what would be {} is darker", "what would be {} is brighter"),
    "spread": ("what would be {} is more uniform", "what would be {} is less uniform"),
}
_OTHER_CONTRAST = ("dark tissue stands out more", "bright tissue stands out more")
#: Distance above which a volume is unlike the training images. Tuned on T1 brains and limbs.
#: Measured again by Benchmarks/segmentation.py.
_LIMIT = 1.9


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


def fit_likeness(rows: Sequence[Mapping[str, float]], volumes: int) -> dict[str, Any]:
    """Fit mean and covariance to the numbers of training images, for a bundle; {} without any.

    rows: from `describe`, one per image. volumes: number of different volumes. The covariance is
    that of the rows plus the variance between scanners, divided by √volumes.
    """
    rows = [row for row in rows if row]
    if not rows:
        return {}
    values = np.array([list(row.values()) for row in rows])
    is_shown = np.isfinite(values).any(axis=0)
    names = [name for name, shown in zip(rows[0], is_shown, strict=True) if shown]
    values = values[:, is_shown]
    mean = np.nanmean(values, axis=0)
    deviations = np.nan_to_num(values - mean)
    prior = np.diag([_BETWEEN.get(name.partition(" of ")[0], _BETWEEN[""]) for name in names])
    covariance = deviations.T @ deviations / len(rows) + prior**2 / np.sqrt(volumes)
    return {
        "names": names,
        "mean": mean.round(4).tolist(),
        "covariance": covariance.round(5).tolist(),
        "limit": _LIMIT,
        "volumes": volumes,
    }


def compare_likeness(
    likeness: Mapping[str, Any], numbers: Mapping[str, float]
) -> tuple[float, str]:
    """Compare a volume's numbers, of `describe`, with those of `fit_likeness`.

    Returns the Mahalanobis distance divided by √(count of numbers), infinite if the volume shows
    too little, and a clause that names the largest difference.
    """
    if not numbers:
        return np.inf, "it shows too little of a body"
    mean = np.array(likeness["mean"])
    deviation = np.array([numbers.get(name, np.nan) for name in likeness["names"]]) - mean
    known = np.isfinite(deviation)
    covariance = np.array(likeness["covariance"])[np.ix_(known, known)]
    squared = deviation[known] @ np.linalg.pinv(covariance) @ deviation[known]
    score = float(np.sqrt(squared / known.sum()))
    spread = np.full(len(mean), np.inf)
    spread[known] = np.sqrt(np.diag(covariance))
    most = int(np.nanargmax(np.abs(deviation / spread)))
    name, difference = likeness["names"][most], float(deviation[most])
    if name.startswith("volume"):
        volume_ml, usual_ml = np.exp([mean[most] + difference, mean[most]])
        return score, f"the body in it has {volume_ml:,.0f} mL; about {usual_ml:,.0f} mL are usual"
    kind, _, label = name.partition(" of ")
    lower, higher = _IN_WORDS.get(kind, _OTHER_CONTRAST)
    return score, f"{(lower if difference < 0 else higher).format(label)} than in those"
