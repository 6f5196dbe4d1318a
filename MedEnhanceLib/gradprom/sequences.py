"""The sequence of an MR image, by its name, compared with those that a head was trained on."""

from __future__ import annotations

import re

from MedEnhanceLib.bundles.store import Bundle

#: Words for sequences; digits may stand before them, as in "MNI152T1", letters may not.
_WORDS = {
    "FLAIR": r"flair|tirm|dark.?fluid",
    "T1": r"t1(?!\d|.?map)|mp2?rage|spgr|bravo",
    "T2*": r"t2.?(star|\*)|swi(?![a-z])|swan(?![a-z])",
    "T2": r"t2(?!\d|.?(map|star|\*))",
    "PD": r"pdw?(?![a-z])",
    "diffusion": r"(dwi|dti|adc)(?![a-z])",
}
_PATTERNS = {name: re.compile(f"(?<![a-z])({words})", re.I) for name, words in _WORDS.items()}


def sequence_in(text: str) -> str:
    """Name the sequence that a text states, as "T1"; "" for none, or for several."""
    names = [name for name, pattern in _PATTERNS.items() if pattern.search(text)]
    if "FLAIR" in names and len(names) == 2:  # T2 FLAIR is FLAIR, T1 FLAIR has the contrast of T1
        names.remove("T2" if "T2" in names else "FLAIR")
    return names[0] if len(names) == 1 else ""


def trained_on(bundle: Bundle) -> set[str]:
    """List the sequences that the names of a head's training images state."""
    config = (bundle.metadata.get("training") or {}).get("config") or {}
    data = [str(entry.get("name") or "") for entry in bundle.metadata.get("data", ())]
    return {sequence_in(text) for text in (*config.get("images", ()), *data)} - {""}


def sequence_warning(bundle: Bundle, name: str, description: str = "") -> str:
    """Warn unless an image shows a sequence that a head was trained on; "" where it does.

    Args:
        bundle: the head; its card may warn of other sequences.
        name: of the image.
        description: of its series, from DICOM; it counts more than the name.
    """
    known = trained_on(bundle)
    stated, origin = sequence_in(description), "DICOM"
    if not stated:
        stated, origin = sequence_in(name), "its name"
    if stated in known:
        return ""
    warning = "; ".join(text for text in bundle.warnings if any(word in text for word in known))
    if stated and known:
        warning = warning or f"{bundle.name}: Trained on {' and '.join(sorted(known))} alone"
        warning += f"; this volume is {stated} by {origin}"
    return warning


def other_warnings(bundle: Bundle) -> list[str]:
    """List the warnings of a head's card but those about sequences, each with its name."""
    known = trained_on(bundle)
    return [text for text in bundle.warnings if not any(word in text for word in known)]
