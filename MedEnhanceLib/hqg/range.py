"""Detects volumes unlike an enhancer's training data.

When a model is exported, features (hqg/features.py) are measured on samples of its training
volumes: clean, degraded at every strength, real low quality; cropped, rotated, resampled, with
varied contrast. Their center, scale and the whitening of their shrunk correlation are stored as a
bank. The distance of a volume is the Mahalanobis distance divided by a limit: above 1 the volume is
out of range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.bundles.suitability import ModelWarning
from MedEnhanceLib.hqg.features import WORDS, Features

Array = npt.NDArray[np.float64]

#: Principal components of the bank's cues; the others hold hardly more than rounding.
_CUE_PARTS = 8
#: Correlations are shrunk towards zero by this share. It cannot be estimated from the number of
#: samples, as many samples come from few subjects.
_SHRINKAGE = 0.1
#: Least standard deviation of a named feature, in its own unit.
_LEAST_SPREAD = 0.05
#: Limit over the samples' distance where a single volume makes the bank: none can be left out.
_MARGIN_OF_ONE = 1.5
#: Scans of one kind differ in noise by this factor; within it a volume still counts as clean.
_MARGIN_OF_CLEAN = 1.25
#: Scores are clipped to this, as tensors are stored in half precision.
_FARTHEST = 1e4
#: Below this correlation of pixels four apart there is only noise.
_LEAST_STRUCTURE = 0.12
#: Score, in standard deviations, from which a feature is named in a warning.
_NAMED_SCORE = 3.0
PREFIX = "range."
_CROPPED = "; where the picture was cropped within the body, take the whole one"


@dataclass(frozen=True)
class Sample:
    """Features of some slices of a training volume.

    Attributes:
        group: name of the volume.
        kind: of degradation; "" for real low quality as it is.
        features: of the slices.
    """

    group: str
    kind: str
    features: Features


@dataclass(frozen=True)
class RangeBank:
    """Distribution of the features of a training's volumes.

    Attributes:
        names: of the named features, in order.
        cue_mean: [cue_size].
        cue_parts: [cue_size, P], principal components of the cues.
        centre: [F], mean of named features and cue components (spelled as in saved models).
        scale: [F], their standard deviation.
        whiten: [F, F], makes scores uncorrelated.
        limits: [3]: distance up to which a volume is in range; noise (σ on the network's scale) up
            to which, and sharpness from which, a volume is as clean as the high-quality ones.
        samples: number of samples it was fitted to.
        volumes: number of their volumes.
    """

    names: tuple[str, ...]
    cue_mean: Array
    cue_parts: Array
    centre: Array
    scale: Array
    whiten: Array
    limits: Array
    samples: int = 0
    volumes: int = 0

    @classmethod
    def fit(cls, samples: Sequence[Sample]) -> RangeBank:
        """Fit to samples of at least one volume; the limit is found by leaving volumes out."""
        bank = cls._of(samples)
        inside = np.quantile([bank._raw(sample.features) for sample in samples], 0.99)
        groups = sorted({sample.group for sample in samples})
        limit = float(inside) * _MARGIN_OF_ONE
        if len(groups) > 1:
            outside = [
                other._raw(sample.features)
                for group in groups
                for other in [cls._of([sample for sample in samples if sample.group != group])]
                for sample in samples
                if sample.group == group
            ]
            # Volumes left out lie farther away than new ones will, as their bank has one volume
            # less; the bank's own samples lie nearer. The limit is the geometric mean.
            limit = float(np.sqrt(inside * np.quantile(outside, 0.95)))
        limits = np.array([limit, *_clean_limits(samples)])
        return replace(bank, limits=_stored(limits), samples=len(samples), volumes=len(groups))

    @classmethod
    def _of(cls, samples: Sequence[Sample]) -> RangeBank:
        """Without limits."""
        names = tuple(samples[0].features.named)
        cues = np.array([sample.features.cue for sample in samples], np.float64)
        cue_mean = _stored(cues.mean(axis=0))
        leading = np.linalg.svd(cues - cue_mean, full_matrices=False)[2][:_CUE_PARTS]
        cue_parts = _stored(leading.T)
        named = np.array([[*sample.features.named.values()] for sample in samples])
        figures = np.concatenate([named, (cues - cue_mean) @ cue_parts], axis=1)
        least = np.array([_LEAST_SPREAD] * len(names) + [1e-4] * len(leading))
        centre = _stored(figures.mean(axis=0))
        scale = _stored(np.hypot(figures.std(axis=0), least))
        scores = (figures - centre) / scale
        correlation = scores.T @ scores / len(scores)
        correlation += _SHRINKAGE * (np.eye(len(scale)) - correlation)
        whiten = _stored(np.linalg.cholesky(np.linalg.inv(correlation)).T)
        return cls(names, cue_mean, cue_parts, centre, scale, whiten, np.ones(3))

    def scores(self, features: Features) -> Array:
        """Each feature's difference from the center, in standard deviations of the bank, [F]."""
        cue = (features.cue - self.cue_mean) @ self.cue_parts
        figures = np.concatenate([[features.named[name] for name in self.names], cue])
        return np.clip((figures - self.centre) / self.scale, -_FARTHEST, _FARTHEST)

    def _raw(self, features: Features) -> float:
        return float(np.sqrt(np.square(self.whiten @ self.scores(features)).mean()))

    def distance(self, features: Features) -> float:
        """Distance from the training data, in multiples of the limit."""
        return self._raw(features) / float(self.limits[0])

    def is_clean(self, features: Features) -> bool:
        """Whether noise and blur are no more than in the high-quality volumes."""
        return bool(features.noise <= self.limits[1] and features.sharpness >= self.limits[2])

    def tensors(self) -> dict[str, Tensor]:
        """For the bundle's weights file."""
        return {
            f"{PREFIX}{name}": torch.from_numpy(getattr(self, name).astype(np.float32))
            for name in _TENSORS
        }

    def to_json(self) -> dict[str, Any]:
        """For the bundle's metadata: features, samples and limits."""
        return {
            "features": list(self.names),
            "cue_parts": self.cue_parts.shape[1],
            "samples": self.samples,
            "volumes": self.volumes,
            "limits": {
                "distance": round(float(self.limits[0]), 4),
                "noise": round(float(self.limits[1]), 5),
                "sharpness": round(float(self.limits[2]), 4),
            },
            "limit": "geometric mean of the 0.99 quantile of the samples and, where there are"
            " several volumes, the 0.95 quantile of those of volumes left out",
        }

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> RangeBank | None:
        """The bank of a bundle; None where it has none, or one of other features.

        Raises ValueError where its arrays do not fit together.
        """
        fields = metadata.get("range") or {}
        names = tuple(fields.get("features", ()))
        arrays = {
            name: tensors[PREFIX + name].double().numpy()
            for name in _TENSORS
            if PREFIX + name in tensors
        }
        if not names or not set(names) <= set(WORDS) or len(arrays) < len(_TENSORS):
            return None
        cue, parts = arrays["cue_mean"].size, arrays["centre"].size
        sizes = {
            "cue_mean": (cue,),
            "cue_parts": (cue, parts - len(names)),
            "centre": (parts,),
            "scale": (parts,),
            "whiten": (parts, parts),
            "limits": (3,),
        }
        if not all(arrays[name].shape == size for name, size in sizes.items()):
            raise ValueError(f"the bank has other sizes than {sizes}")
        if not (arrays["scale"].min() > 0 and arrays["limits"][0] > 0):
            raise ValueError("the bank divides by 0")
        return cls(
            names, **arrays, samples=fields.get("samples", 0), volumes=fields.get("volumes", 0)
        )


_TENSORS = ("cue_mean", "cue_parts", "centre", "scale", "whiten", "limits")


def _stored(values: Array) -> Array:
    """Rounded to half precision, so that limits are found with the values used later."""
    return values.astype(np.float16).astype(np.float64)


def _clean_limits(samples: Sequence[Sample]) -> tuple[float, float]:
    """Limits of noise and sharpness for a clean volume; 0 and 0 without clean samples.

    Noise: the median over the high-quality volumes as scanned (their coarser copies have less),
    times a margin. Sharpness: halfway to blurred samples, or that of the softest volume.
    """
    clean = {
        group: [s.features for s in samples if (s.group, s.kind) == (group, "clean")]
        for group in sorted({sample.group for sample in samples if sample.kind == "clean"})
    }
    if not clean:
        return 0.0, 0.0
    as_scanned = [np.quantile([one.noise for one in each], 0.9) for each in clean.values()]
    noise = float(np.median(as_scanned)) * _MARGIN_OF_CLEAN
    sharp = [float(np.median([one.sharpness for one in each])) for each in clean.values()]
    blurred = [s.features.sharpness for s in samples if s.kind == "blur"]
    if not blurred:
        return noise, min(sharp)
    return noise, (float(np.mean(sharp)) + float(np.median(blurred))) / 2


@dataclass(frozen=True)
class Verdict:
    """How a volume compares with the training data.

    Attributes:
        distance: in multiples of the limit.
        noise: σ as a share of the network's scale.
        warnings: for the user; empty where all is well.
    """

    distance: float
    noise: float
    warnings: tuple[ModelWarning, ...] = ()


def judge(features: Features, bank: RangeBank, bundle: Bundle) -> Verdict:
    """The verdict on measured features, with at most one warning."""
    distance, noise = bank.distance(features), features.noise
    name, anatomy = bundle.name, bundle.anatomy
    trained_on = f"{bundle.modality} of the {anatomy}" if anatomy else bundle.modality
    if features.named["structure"] < _LEAST_STRUCTURE:
        warning = ModelWarning(
            "no-structure",
            "the volume shows no structure, only noise",
            "check the input; structure in the result would be invented by the model",
            distance,
        )
    elif distance > 1:
        warning = ModelWarning(
            "out-of-range",
            f"the volume differs from the training data of {name} ({trained_on}); the largest "
            "difference: " + departure(features, bank),
            f"check modality and model{_CROPPED if _is_full(features, bank) else ''}, and compare "
            "the result with the input",
            distance,
        )
    elif bank.is_clean(features):
        warning = ModelWarning(
            "already-clean",
            f"noise is {_noise_text(noise, bundle.modality)}, as in the clean training "
            f"volumes of {name}",
            "there is little to gain, and the result may only be smoother",
            distance,
        )
    else:
        return Verdict(distance, noise)
    return Verdict(distance, noise, (warning,))


def departure(features: Features, bank: RangeBank) -> str:
    """Describes the feature that departs most; the cue only where no named feature departs."""
    scores = bank.scores(features)
    named = scores[: len(bank.names)]
    most = int(np.argmax(np.abs(named)))
    if abs(named[most]) < min(_NAMED_SCORE, float(np.abs(scores).max())):
        what, high, _ = WORDS["cue"]
        return f"{what} {high}"
    what, high, low = WORDS[bank.names[most]]
    return f"{what} {high if named[most] > 0 else low}"


def _is_full(features: Features, bank: RangeBank) -> bool:
    """Whether the picture is so full of tissue that a crop may be the reason."""
    scores = dict(zip(bank.names, bank.scores(features), strict=False))
    return bool(scores.get("tissue", 0.0) > _NAMED_SCORE)


def _noise_text(noise: float, modality: str) -> str:
    return f"{noise * 1000:.0f} HU" if modality == "CT" else f"{noise * 100:.1f} % of the range"
