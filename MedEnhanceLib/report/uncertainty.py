"""What an uncertainty map is, in words for whoever reads it: on pages, in panels, on legends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def uncertainty_in_words(facts: Mapping[str, Any], units: str = "") -> str:
    """What the map tells, in which units, and how far that was measured.

    facts: what a manifest says of it, `results.uncertainty`. units: of the enhanced volume.
    """
    return (
        "How far noise, and blur where it was undone, may have left each value off, as a standard "
        f"deviation (SD) in {units or 'units of the input'}. Where it is bright, do not rely on "
        f"the enhancement; it is {calibration_in_words(facts)}"
    )


def calibration_in_words(facts: Mapping[str, Any]) -> str:
    """How far it was measured that the map tells the truth: the rest of a sentence."""
    if not facts.get("calibration"):
        return "not calibrated: it ranks errors and does not measure them, so dark is no proof."
    return (
        f"calibrated on {_fitted_on(facts['calibration'])}, where ± 1.645 SD held 90 % of the "
        "errors; on other data it can be too small."
    )


def state_of_uncertainty(facts: Mapping[str, Any]) -> str:
    """The same in a word or two, for a legend."""
    return "calibrated" if facts.get("calibration") else "not calibrated"


def _fitted_on(calibration: Any) -> str:
    told = calibration.get("fitted_on") if isinstance(calibration, Mapping) else None
    return str(told or "data that are not named")
