"""Quantities of voxels that are no intensities: phase, field maps, labels, derived maps.

Sources of the words: DICOM PS3.3 (ImageType of MR and PET, RescaleType), BIDS 1.10 (suffixes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from MedEnhanceLib.core.arrays import Voxels, extremes
from MedEnhanceLib.core.manifest import map_in_words
from MedEnhanceLib.core.volume import Volume

PHASE, LABELS, COLORS, DERIVED = "phase", "a label map", "a color map", "a derived map"
#: Quantities that no filter and no model is for → what to give instead.
UNFIT = {
    PHASE: "Give the magnitude; or enhance the real and the imaginary part, and compute the phase "
    "from the results.",
    "a field map": "Give the magnitude images of its acquisition.",
    COLORS: "Give the map without color.",
    LABELS: "Give the image that it was drawn on.",
}
#: Quantity → its words in image types and names, and [units], without space, - and _.
_WORDS = {
    PHASE: "P PHASE PHASE1 PHASE2 PHASEDIFF PHASEMAP VELOCITY VELOCITYMAP [RAD] [MRAD] [DEG]",
    "a field map": "FIELDMAP FIELDMAPHZ B0MAP [HZ] [RAD/S] [T] [TESLA] [UT]",
    COLORS: "COLFA COLORFA FACOLOR",
    LABELS: "DSEG MASK",
    DERIVED: "ADC EADC FA MD AD RD TRACE TRACEW S0 M0 CBF RCBF RELCBF CBV RCBV RELCBV MTT TTP TMAX"
    " ATT KTRANS KEP KI VE VP GBP PBP MTSAT MTR UNIT1 QSM FF PDFF PROBSEG QUANTITY PARAMETRIC"
    " STDDEVIATION SUBTRACTION DIVISION TEMPERATURE MIP MINIP MNIP MAXIP [MM2/S] [UM2/S] [UM2/MS]"
    " [MS] [S] [1/S] [/S] [ML/100G/MIN] [ZEFF] [ED] [EDW] [MGML] [PCT] [MGMINML] [UMOLMINML]"
    " [MLMING] [MLG] [UMOLML] [MLMINML] [MLML] [STDDEV]",
}
_BY_WORD = {word: quantity for quantity, words in _WORDS.items() for word in words.split()}
#: Full turns, from → to: radians, degrees, milliradians, 12 and 13 bits.
_TURNS = (
    (-np.pi, np.pi), (0, 2 * np.pi), (-180, 180), (0, 360), (-3142, 3142), (0, 4095),
    (-4096, 4095),
)  # fmt: skip
#: Shares of the voxels of a label map that differ from both neighbors in their row (measured: .0201
#: or less; in images of 8 gray levels .0355 or more), and that equal both (.7 or more).
_MOST_ALONE, _LEAST_EQUAL, _FEWEST_GRAYS = 0.025, 0.3, 4


def quantity_in(words: Iterable[str]) -> str:
    """Return the quantity that words of a header or a name state; "" for intensities.

    words: of image types and names; units in brackets.
    """
    plain = {re.sub(r"[ _-]", "", word.upper()): word for word in words}
    kinds = {_BY_WORD.get(word, DERIVED if word.endswith("MAP") else ""): word for word in plain}
    if "M" in plain or "MAGNITUDE" in plain:  # also of acquisitions that encode velocity
        kinds.pop(PHASE, None)
    quantity = next((kind for kind in (*UNFIT, DERIVED) if kind in kinds), "")
    return f"{DERIVED} ({plain[kinds[DERIVED]]})" if quantity == DERIVED else quantity


def quantity_of(volume: Volume) -> tuple[str, bool]:
    """Return the quantity of a volume, "" for intensities, and whether its header states it."""
    stated = volume.quantity or map_in_words(volume.history)
    if stated or volume.profile.is_labels:
        return stated or LABELS, True
    if volume.dtype.kind != "b" and may_be_labels(volume.voxels):  # bool is refused as such
        return LABELS, False
    return PHASE if looks_like_phase(volume.voxels) else "", False


def looks_like_phase(voxels: Voxels) -> bool:
    """Return whether values fill a full turn evenly, and jump between its ends, as phase does."""
    low, high = (float(end) for end in extremes(voxels))
    for begin, end in _TURNS:
        turn = end - begin
        if max(abs(low - begin), abs(high - end)) < 0.01 * turn:
            rows = _rows_of(voxels).astype(np.float32)
            counts = np.sort(np.histogram(rows, 16, (begin, end))[0])[:-1]  # without background
            jumps = [np.abs(np.diff(rows)), np.abs(rows[:-1] - rows[1:])]
            shares = [np.mean(jump > turn / 2) for jump in jumps if jump.size]
            is_wrapped = max(shares, default=0.0) > 0.005
            return bool(is_wrapped and counts.min() > 0.25 * counts.mean())
    return False


def may_be_labels(voxels: Voxels) -> bool:
    """Return whether voxels are like a label map: whole numbers in constant regions.

    Unlike `looks_like_labels`, of any number of values: that is, at most 4, or hardly a voxel that
    differs from both neighbors in its row, and many that equal them.
    """
    rows = _rows_of(voxels)
    if rows.dtype.kind == "f" and not np.array_equal(rows, np.round(rows)):
        return False
    inner = rows[:, 1:-1]
    shown = inner != rows.min()
    if not shown.any():
        return False
    before, after = (inner == rows[:, :-2])[shown], (inner == rows[:, 2:])[shown]
    is_regions = np.mean(~before & ~after) < _MOST_ALONE and np.mean(before & after) > _LEAST_EQUAL
    return bool(is_regions or np.unique(inner[shown]).size < _FEWEST_GRAYS)


def _rows_of(voxels: Voxels) -> Voxels:
    """Return slabs of rows with about a million voxels, evenly spread over the slices."""
    planes = voxels.reshape(-1, *voxels.shape[-2:])
    return planes[:: max(1, voxels.size // 10**6)].reshape(-1, voxels.shape[-1])
