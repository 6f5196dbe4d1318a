"""What our own images say of themselves, in words that are all known beforehand."""

from __future__ import annotations

import re

from MedEnhanceLib.io.dicomout.derivation import NOTICE

_ACTIONS = (
    "enhanced", "segmented", "compressed", "decompressed", "converted", "recovered", "exported",
    "resampled", "measured", "uncertainty of the enhancement",
)  # fmt: skip
_ACTION = re.compile("|".join(sorted(_ACTIONS, key=len, reverse=True)), re.IGNORECASE)
_BY_US = re.compile(r"by MedEnhance (\d{1,4}(?:\.\d{1,4}){0,3})")
_HASH = re.compile(r"\bsha256 ([0-9a-f]{64})\b")
_OUR_SERIES = re.compile(rf"MedEnhance ({_ACTION.pattern})$")


def own_words(keyword: str, text: str) -> str | None:
    """What stays of a text of ours: that the image is derived, how, by which model, its use.

    Only words of this file, a version and a model's hash, whatever else the text holds; None for
    a text without our notice.
    """
    if keyword == "SeriesDescription":
        ours = _OUR_SERIES.search(text)
        return ours and f"MedEnhance {ours[1]}"
    if NOTICE not in text:
        return None
    model = _HASH.search(text)
    by = f"; model sha256 {model[1]}" if model else ""
    action = _ACTION.match(text)
    done = action[0] if action else "derived"
    if keyword == "DerivationDescription":
        version = _BY_US.search(text)
        us = f"by MedEnhance {version[1]}" if version else "by MedEnhance"
        return f"{done.capitalize()} {us}{by}. {NOTICE}"
    if keyword == "ContributionDescription":
        return f"{done.lower()}{by}. {NOTICE}"
    return NOTICE if keyword in ("ImageComments", "ContentDescription") else None
