"""Descriptions of uncertainty maps for pages, panels and legends.

A module without imports, so that opening the module in Slicer does not load the reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def uncertainty_in_words(facts: Mapping[str, Any], units: str = "") -> str:
    """Describe an uncertainty map for its readers.

    facts: `results.uncertainty` of the manifest.
    units: of the enhanced volume.
    """
    return (
        "How far noise, and blur where it was undone, may have left each value off, as a standard "
        f"deviation (SD) in {units or 'units of the input'}. Where it is bright, do not rely on "
        f"the enhancement; it is {calibration_in_words(facts)}"
    )


def calibration_in_words(facts: Mapping[str, Any]) -> str:
    """Say how the map was calibrated, as the rest of a sentence, by the same facts."""
    calibration = facts.get("calibration")
    data = calibration.get("fitted_on") if isinstance(calibration, Mapping) else None
    return (
        f"calibrated on {data or 'data that are not named'}, where ± 1.645 SD held 90 % of the "
        "errors; on other data it can be too small."
    )
