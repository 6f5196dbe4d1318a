"""What an enhancement measured and removed, in words; after the run, when all of it is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

#: Use of a guide, in SD of the noise, that is hardly visible.
_LEAST_USE = 0.02
#: Changes of tissue, as shares of the noise, that leave nearly the input: where its level is sure,
#: and where it is known between limits.
_NEARLY_NOTHING, _NEARLY_NOTHING_UNSURE = 0.05, 0.5
#: Numbers that the texts need, by the measurement.
_NUMBERS = {
    "noise": ("sigma", "share_removed"),
    "guide": ("used",),
    "slices": ("before", "after", "spacing_before_mm", "spacing_after_mm"),
}
#: How a run's log begins to describe the noise, before the removal.
_IN_LOG = ("noise found: ", "noise stated: ")


def describe(
    measured: Mapping[str, Any], strength: float = 1.0, *, units: str = "", remedy: str = "--noise"
) -> list[str]:
    """Describe what was measured in a volume and how it was corrected, a line each.

    Args:
        measured: `results.measured` of the manifest; what cannot be read there is left out.
        strength: of the result.
        units: of the noise; "" for those in the manifest.
        remedy: how the noise is stated where it is uncertain, as in "--noise".
    """
    facts = {
        name: value
        for name, value in measured.items()
        if isinstance(value, Mapping)
        and all(isinstance(value.get(key), (int, float)) for key in _NUMBERS.get(name, ()))
    }
    lines = []
    if noise := facts.get("noise"):
        lines.append(_noise_in_words(noise, units, strength, remedy))
    if blur := facts.get("blur"):
        outcome = "undone" if blur.get("undone") else "left alone"
        lines.append(f"blur {outcome}: {blur.get('reason', '')}")
    if "bias_field" in facts:
        lines.append("bias field corrected (N4)")
    if guide := facts.get("guide"):
        text = f"changed the result by {guide['used']:.2f} SD of the noise"
        if guide["used"] < _LEAST_USE:
            text = "added almost nothing" if guide["used"] > 0 else "added nothing"
        lines.append(f"the guide {text}" + (f"; {guide['reason']}" if guide.get("reason") else ""))
    if slices := facts.get("slices"):
        lines.append(
            f"slices: {slices['before']} of {slices['spacing_before_mm']:g} mm became "
            f"{slices['after']} of {slices['spacing_after_mm']:g} mm"
        )
    return lines


def is_nearly_input(noise: Mapping[str, Any], strength: float) -> bool:
    """Return whether tissue was hardly changed, by `results.measured.noise` of the manifest."""
    sigma = float(noise.get("sigma", math.nan))
    is_unsure = noise.get("sigma_used", sigma) < sigma
    share = _NEARLY_NOTHING_UNSURE if is_unsure else _NEARLY_NOTHING
    return strength * float(noise.get("changed", math.nan)) <= share * sigma


def final_log(lines: Iterable[str], findings: Iterable[str]) -> list[str]:
    """Return a run's log with its findings, not with what was expected of them."""
    return [*(line for line in lines if not line.startswith(_IN_LOG)), *findings]


def _noise_in_words(noise: Mapping[str, Any], units: str, strength: float, remedy: str) -> str:
    """Say which noise was measured, what was removed of it, and by how much tissue changed.

    All levels are standard deviations; that of an uncertain measurement comes with its limits.
    """
    sigma, reason, stated = noise["sigma"], noise.get("reason"), noise.get("is_stated")
    used, share = noise.get("sigma_used", sigma), strength * noise["share_removed"]
    changed, is_part = strength * noise.get("changed", math.nan), used < sigma
    units = f" {units}" if (units := units or noise.get("units", "")) else ""
    limits, removed = "", "all" if share == 1 else f"{100 * share:.0f} %"
    if is_part:
        low, high = noise["interval"]
        limits = f"; likely ±{low:.3g} to ±{high:.3g}"
        removed += f" of a noise of ±{used:.3g}"
    texts = [
        f"noise {'stated' if stated else 'found'}: ±{sigma:.3g}{units} (1 SD{limits})",
        f"removed: {'nothing' if changed == 0 else removed}",
    ]
    if reason:
        is_cause = is_part or share < 1
        texts[-1] += f", because {reason}" if is_cause else f" (uncertain, because {reason})"
    if changed > 0:
        texts.append(f"tissue changed by ±{changed:.3g}")
    text = "; ".join(texts)
    if is_nearly_input(noise, strength):
        text += ". The result is nearly the input"
    if not stated and (is_part or (reason and share == strength)):
        text += f". If you know the noise, state it: {remedy}"
    return text
