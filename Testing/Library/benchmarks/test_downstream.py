"""Radiomic features of the digital phantom of the Image Biomarker Standardization Initiative.

The phantom and its values are those of the initiative's reference manual (arXiv 1612.07003, CC BY
4.0), with matrices over 13 directions merged in 3D; three figures each.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

#: [K, J, I]; 0 lies outside of the region.
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
REFERENCE = {
    "intensity, mean": 2.15,
    "intensity, variance": 3.05,
    "intensity, skewness": 1.08,
    "intensity, kurtosis": -0.355,
    "intensity, 90th percentile": 4,
    "intensity, interquartile range": 3,
    "intensity, mean absolute deviation": 1.55,
    "intensity, robust mean absolute deviation": 1.11,
    "intensity, median absolute deviation": 1.15,
    "intensity, coefficient of variation": 0.812,
    "intensity, quartile dispersion": 0.6,
    "intensity, energy": 567,
    "intensity, root mean square": 2.77,
    "histogram, entropy": 1.27,
    "histogram, uniformity": 0.512,
    "glcm, joint maximum": 0.509,
    "glcm, joint average": 2.15,
    "glcm, joint variance": 3.13,
    "glcm, joint entropy": 2.57,
    "glcm, difference average": 1.38,
    "glcm, difference variance": 3.21,
    "glcm, difference entropy": 1.64,
    "glcm, sum average": 4.3,
    "glcm, sum variance": 7.41,
    "glcm, sum entropy": 2.11,
    "glcm, angular second moment": 0.291,
    "glcm, contrast": 5.12,
    "glcm, dissimilarity": 1.38,
    "glcm, inverse difference": 0.688,
    "glcm, normalized inverse difference": 0.856,
    "glcm, inverse difference moment": 0.631,
    "glcm, normalized inverse difference moment": 0.902,
    "glcm, inverse variance": 0.0574,
    "glcm, correlation": 0.183,
    "glcm, autocorrelation": 5.19,
    "glcm, cluster tendency": 7.41,
    "glcm, cluster shade": 17.4,
    "glcm, cluster prominence": 147,
    "glcm, information correlation 1": -0.0288,
    "glcm, information correlation 2": 0.269,
    "glrlm, short emphasis": 0.729,
    "glrlm, long emphasis": 2.76,
    "glrlm, low gray level emphasis": 0.607,
    "glrlm, high gray level emphasis": 9.64,
    "glrlm, short low gray level emphasis": 0.372,
    "glrlm, short high gray level emphasis": 8.67,
    "glrlm, long low gray level emphasis": 2.16,
    "glrlm, long high gray level emphasis": 15.6,
    "glrlm, gray level non-uniformity": 281,
    "glrlm, normalized gray level non-uniformity": 0.43,
    "glrlm, size non-uniformity": 328,
    "glrlm, normalized size non-uniformity": 0.501,
    "glrlm, percentage": 0.68,
    "glrlm, gray level variance": 3.48,
    "glrlm, size variance": 0.598,
    "glrlm, entropy": 2.62,
    "glszm, short emphasis": 0.255,
    "glszm, long emphasis": 550,
    "glszm, low gray level emphasis": 0.253,
    "glszm, high gray level emphasis": 15.6,
    "glszm, short low gray level emphasis": 0.0256,
    "glszm, short high gray level emphasis": 2.76,
    "glszm, long low gray level emphasis": 503,
    "glszm, long high gray level emphasis": 1490,
    "glszm, gray level non-uniformity": 1.4,
    "glszm, normalized gray level non-uniformity": 0.28,
    "glszm, size non-uniformity": 1,
    "glszm, normalized size non-uniformity": 0.2,
    "glszm, percentage": 0.0676,
    "glszm, gray level variance": 2.64,
    "glszm, size variance": 331,
    "glszm, entropy": 2.32,
}


@pytest.fixture(scope="module")
def features() -> Any:
    return import_module("_downstream_features")


@pytest.fixture(scope="module")
def found(features: Any) -> dict[str, float]:
    features: dict[str, float] = features.all_features(PHANTOM, PHANTOM > 0, PHANTOM)
    return features


def test_the_phantom_has_the_published_values(found: dict[str, float]) -> None:
    stated = {name: float(f"{found[name]:.3g}") for name in REFERENCE}
    assert stated == pytest.approx(REFERENCE, rel=6e-3)


def test_a_feature_is_kept_up_to_its_share_and_not_beyond() -> None:
    share_within = import_module("downstream").share_within
    before = {"a": 100.0, "b": -20.0, "c": 0.0, "d": 10.0}
    after = {"a": 105.0, "b": -18.9, "c": 0.0, "d": 10.0}
    assert share_within(before, after) == 0.75  # b changed by 5.5 %
    assert share_within(before, after | {"c": 1e-9}) == 0.5  # nothing is near 0
