"""Whether a model was trained long enough to be more than a trial of the training."""

from __future__ import annotations

from MedEnhanceLib.bundles.doubt import Doubt
from MedEnhanceLib.bundles.store import Bundle

#: No training of so few steps learns anything; the preset smoke takes a handful.
_FEWEST_STEPS = 100


def limits_of_length(steps: int) -> list[str]:
    """What the card of a training of so many steps warns of: one sentence, or nothing."""
    return [f"T{_told(steps)[1:]}: use it for nothing else."] if steps < _FEWEST_STEPS else []


def doubt_about_length(bundle: Bundle) -> Doubt | None:
    """A doubt where the bundle says that it was trained for a few steps only; else None."""
    training = bundle.metadata.get("training") or {}
    steps = (training.get("config") or {}).get("steps")
    if not isinstance(steps, int) or steps >= _FEWEST_STEPS:
        return None
    return Doubt(
        "test-model",
        f"{bundle.name} was {_told(steps)}",
        "use it to try things out, and train one with the preset cpu or full for more",
    )


def _told(steps: int) -> str:
    return f"trained for {steps} step{'' if steps == 1 else 's'} only, as a test model"
