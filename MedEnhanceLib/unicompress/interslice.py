"""Predicts a slice from the one before it: nine whole-number weights, the same on every machine.

The weights are fitted to what a two-dimensional coder cannot predict by itself: both slices are
first taken through its predictor, and only what is left of them is compared. So they fade to
nothing where slices are thick or noisy, and become a difference where slices repeat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.unicompress.integers import Indices

Weights = npt.NDArray[np.int32]
Residual = npt.NDArray[np.int32]

_NEIGHBOURS = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)]
_ONE = 1 << 10
#: 9 weights of 2 times 16 bits of voxel stay below 2³¹.
_LARGEST = 2 * _ONE
_RIDGE = 1e-3
#: A few slices and every other row tell as much as all of them.
_FITTED_SLICES = 3
_FITTED_ROWS = 2


def fit_weights(indices: Indices) -> Weights:
    """Nine weights in units of 1/1024 for a block [K, J, I], K ≥ 2; zeros where none help."""
    steps = np.unique(np.linspace(1, len(indices) - 1, _FITTED_SLICES).astype(int))
    if min(indices.shape[1:]) < 4:
        return np.zeros(len(_NEIGHBOURS), np.int32)
    samples = [_innovations(indices[k - 1], indices[k]) for k in steps]
    before = np.concatenate([sample[0] for sample in samples], axis=1)
    here = np.concatenate([sample[1] for sample in samples])
    # An edge that moves would rule a plain least-squares fit; noise is what costs bits.
    scale = 3 * float(np.median(np.abs(here))) + 1
    weighted = before / (1 + np.abs(here) / scale)
    normal = weighted @ before.T + _RIDGE * here.size * np.eye(len(before))
    solution = np.linalg.solve(normal, weighted @ here)
    weights: Weights = np.clip(np.rint(solution * _ONE), -_LARGEST, _LARGEST).astype(np.int32)
    return weights


def subtract(indices: Indices, weights: Weights) -> Residual:
    """What is left of each slice; the first one stays as it is."""
    wide = indices.astype(np.int32)
    residual = wide.copy()
    for k in range(1, len(wide)):
        residual[k] -= _prediction(wide[k - 1], weights)
    return residual


def add(residual: Residual, weights: Weights) -> Residual:
    """The inverse of `subtract`."""
    voxels = residual.copy()
    for k in range(1, len(voxels)):
        voxels[k] += _prediction(voxels[k - 1], weights)
    return voxels


def _prediction(before: Residual, weights: Weights) -> Residual:
    padded = np.pad(before, 1, mode="edge")
    rows, columns = before.shape
    total = np.full(before.shape, _ONE // 2, np.int32)
    for weight, (j, i) in zip(weights, _NEIGHBOURS, strict=True):
        if weight:
            total += weight * padded[1 + j : 1 + j + rows, 1 + i : 1 + i + columns]
    return total >> 10


def _innovations(
    before: Indices, here: Indices
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    padded = np.pad(before, 1, mode="edge").astype(np.float64)
    rows, columns = before.shape
    shifted = [
        _unpredicted(padded[1 + j : 1 + j + rows, 1 + i : 1 + i + columns]) for j, i in _NEIGHBOURS
    ]
    return np.stack(shifted), _unpredicted(here.astype(np.float64))


def _unpredicted(image: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """What a usual predictor from the left, upper and upper left neighbour leaves over."""
    left, above, corner = image[1:, :-1], image[:-1, 1:], image[:-1, :-1]
    left_over = image[1:, 1:] - 0.75 * left - 0.75 * above + 0.5 * corner
    return left_over[::_FITTED_ROWS].ravel()
