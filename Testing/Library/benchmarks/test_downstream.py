"""Radiomic features of the digital phantom of the Image Biomarker Standardization Initiative.

The phantom and its values are those of the initiative's reference manual (arXiv 1612.07003, CC BY
4.0), with matrices over 13 directions merged in 3D; three figures each. Of each family some, which
depend on all of its steps.
"""

from __future__ import annotations

from importlib import import_module

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
    "intensity, skewness": 1.08,
    "intensity, kurtosis": -0.355,
    "intensity, robust mean absolute deviation": 1.11,
    "intensity, energy": 567,
    "histogram, entropy": 1.27,
    "glcm, joint entropy": 2.57,
    "glcm, difference variance": 3.21,
    "glcm, sum entropy": 2.11,
    "glcm, contrast": 5.12,
    "glcm, inverse variance": 0.0574,
    "glcm, cluster prominence": 147,
    "glcm, information correlation 2": 0.269,
    "glrlm, short emphasis": 0.729,
    "glrlm, long high gray level emphasis": 15.6,
    "glrlm, percentage": 0.68,
    "glrlm, gray level variance": 3.48,
    "glrlm, entropy": 2.62,
    "glszm, long low gray level emphasis": 503,
    "glszm, size non-uniformity": 1,
    "glszm, gray level variance": 2.64,
    "glszm, entropy": 2.32,
}


def test_the_phantom_has_the_published_values() -> None:
    all_features = import_module("_downstream_features").all_features
    found = all_features(PHANTOM, PHANTOM > 0, PHANTOM)
    stated = {name: float(f"{found[name]:.3g}") for name in REFERENCE}
    assert stated == pytest.approx(REFERENCE, rel=6e-3)


def test_a_feature_is_kept_up_to_its_share_and_not_beyond() -> None:
    share_within = import_module("downstream").share_within
    before = {"a": 100.0, "b": -20.0, "c": 0.0, "d": 10.0}
    after = {"a": 105.0, "b": -18.9, "c": 0.0, "d": 10.0}
    assert share_within(before, after) == 0.75  # b changed by 5.5 %
    assert share_within(before, after | {"c": 1e-9}) == 0.5  # nothing is near 0
