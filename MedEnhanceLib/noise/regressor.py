"""The noise of a single MR volume, learned from simulated acquisitions: σ and its interval.

Where anatomy fills every block, no statistic of a volume is its noise alone. Small networks, means
of two, read some hundred statistics and answer with five quantiles of σ. Their weights, and by how
much the interval is widened to hold the truth of repeated real scans, lie beside this module in
regressor.npz (docs/decisions/0047); evaluating them takes milliseconds.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.noise.statistics import statistics

Array = npt.NDArray[np.float64]
#: Where what networks read is cut off: in standard deviations of the training, and in logarithms.
_MOST, _MOST_LOG = 3.0, 12.0


def estimate_sigma(
    voxels: npt.NDArray[Any], *, level: float, confidence: float, air: float | None, contrast: float
) -> tuple[float, float, float] | None:
    """Estimate σ of the noise of an MR volume and its interval, in the unit of the volume.

    Args:
        voxels: [K, J, I], finite.
        level: σ as its quietest blocks show it.
        confidence: of that, 0 to 1.
        air: σ as the background shows it, None where it shows nothing.
        contrast: of the tissue.

    Returns:
        σ, lower and upper end; None where there is too little tissue.
    """
    measured = statistics(voxels)
    if measured is None:
        return None
    scale, numbers = measured

    def relative(value: float, most: float = 5.0) -> float:
        return float(np.clip(np.log(max(value, 1e-9)) - scale, -5.0, most))

    others = [relative(level), confidence, relative(air) if air else 0.0, float(bool(air))]
    features = np.concatenate([numbers, others, [relative(contrast, 9.0)]]).astype(np.float64)
    low, middle, high = quantiles(features) + scale
    return float(np.exp(middle)), float(np.exp(low)), float(np.exp(high))


def quantiles(features: Array) -> Array:
    """Return lower end, median and upper end of log σ, relative to the features' scale; [n]."""
    weights = _weights()
    cut = np.clip(np.nan_to_num(features), -_MOST_LOG, _MOST_LOG)
    inputs = np.clip((cut - weights["center"]) / weights["spread"], -_MOST, _MOST)
    results = []
    for one in range(len(weights["first"])):
        hidden = inputs
        for layer in ("first", "second"):
            hidden = weights[layer][one] @ hidden + weights[f"{layer}_bias"][one]
            hidden = hidden / (1 + np.exp(-hidden))
        output = weights["last"][one] @ hidden + weights["last_bias"][one]
        # Distances between quantiles, which are positive.
        far_below, below, middle, above, far_above = output
        steps = np.logaddexp(0, [far_below, below, above, far_above])
        results.append([middle - steps[:2].sum(), middle, middle + steps[2:].sum()])
    wider_below, wider_above = weights["widened"]
    wider = np.array([-wider_below, 0.0, wider_above])
    return np.asarray(np.mean(results, axis=0) + wider)


@lru_cache(maxsize=1)
def _weights() -> dict[str, Array]:
    with (
        (files("MedEnhanceLib.noise") / "regressor.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as arrays,
    ):
        return {name: arrays[name].astype(np.float64) for name in arrays.files}
