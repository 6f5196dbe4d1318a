"""Whether a volume looks like what an enhancer learned from.

A bank of features (hqg/features.py) is drawn from the training's own volumes when a model is
exported: clean, degraded at every strength, real low quality; cropped, turned, resampled, with
varied contrast. It is stored as centre, scale and a whitening of the shrunk correlation, so the
distance of a volume is Mahalanobis' one, divided by the limit: above 1 it is out of range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.bundles.doubt import Doubt
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.features import WORDS, Features, measure_features
from MedEnhanceLib.hqg.findings import findings_of
from MedEnhanceLib.nets.intensity import scaling_for

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.bundle import EnhancerModel

Array = npt.NDArray[np.float64]

#: Directions in which the cues of a bank vary most; the others hold hardly more than rounding.
_CUE_PARTS = 8
#: Correlations are shrunk this far towards none. Few subjects, drawn from many times, say less
#: than their number of samples: an estimate of the shrinkage from that number would be zero.
_SHRINKAGE = 0.1
#: No named feature counts as known more closely than this, in its own unit.
_LEAST_SPREAD = 0.05
#: Where one volume makes the bank, none can be left out: the limit is this much beyond its samples.
_MARGIN_OF_ONE = 1.5
#: Scans of one kind differ by this much in noise; one that is no noisier is still clean.
_MARGIN_OF_CLEAN = 1.25
#: Tensors are stored in half precision; whitened figures beyond this would only overflow.
_FARTHEST = 1e4
#: Below this correlation with what lies four pixels away there is nothing but noise.
_LEAST_STRUCTURE = 0.12
#: Standard deviations from which on a figure is worth naming.
_TELLING_SCORE = 3.0
PREFIX = "range."
_CROPPED = "; where the picture was cropped within the body, take the whole one"


@dataclass(frozen=True)
class Sample:
    """features of some slices of `group`, a training volume.

    kind: of their damage; "" for real low quality as it is.
    """

    group: str
    kind: str
    features: Features


@dataclass(frozen=True)
class RangeBank:
    """What the volumes of a training look like.

    names: of the named features, in order. cue_mean [cue_size], cue_parts [cue_size, P]: from a
    cue to its leading parts. centre, scale [F]; whiten [F, F]: figures → independent ones.
    limits [3]: distance of the farthest that is in range; noise (σ on the network's scale) up to
    which, and sharpness from which on, a volume is as clean as the high-quality ones. samples,
    volumes: how many it was fitted to.
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
        """From samples of at least one volume; the limit is found by leaving volumes out."""
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
            # A bank without a volume misses more than this one does, so the volumes left out lie
            # farther away than new ones will; its own samples lie nearer. The limit is between.
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
        """How far each figure is from the centre, in standard deviations of the bank, [F]."""
        cue = (features.cue - self.cue_mean) @ self.cue_parts
        figures = np.concatenate([[features.named[name] for name in self.names], cue])
        return np.clip((figures - self.centre) / self.scale, -_FARTHEST, _FARTHEST)

    def _raw(self, features: Features) -> float:
        return float(np.sqrt(np.square(self.whiten @ self.scores(features)).mean()))

    def distance(self, features: Features) -> float:
        """In multiples of the limit."""
        return self._raw(features) / float(self.limits[0])

    def is_clean(self, features: Features) -> bool:
        """Whether noise and blur are no more than in the high-quality volumes."""
        return bool(features.noise <= self.limits[1] and features.sharpness >= self.limits[2])

    def tensors(self) -> dict[str, Tensor]:
        """For the bundle."""
        return {
            f"{PREFIX}{name}": torch.from_numpy(getattr(self, name).astype(np.float32))
            for name in _TENSORS
        }

    def to_json(self) -> dict[str, Any]:
        """For the bundle's metadata: what it was made from, and what the limits mean."""
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
        """The bank of a bundle; None where it has none, or one of other features."""
        told = metadata.get("range") or {}
        names = tuple(told.get("features", ()))
        arrays = {
            name: tensors[PREFIX + name].double().numpy()
            for name in _TENSORS
            if PREFIX + name in tensors
        }
        if not names or not set(names) <= set(WORDS) or len(arrays) < len(_TENSORS):
            return None
        return cls(names, **arrays, samples=told.get("samples", 0), volumes=told.get("volumes", 0))


_TENSORS = ("cue_mean", "cue_parts", "centre", "scale", "whiten", "limits")


def _stored(values: Array) -> Array:
    """As half precision will give them back: limits are found with what is used later."""
    return values.astype(np.float16).astype(np.float64)


def _clean_limits(samples: Sequence[Sample]) -> tuple[float, float]:
    """Noise up to which and sharpness from which on a volume is clean; without samples none is.

    Noise: of the high-quality volume in the middle, as scanned (its coarser copies have less), and
    a little more. Sharpness: halfway to blurred samples, or that of the softest volume.
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
    """What came of the check.

    distance: in multiples of the limit. noise: σ as a share of the network's scale. doubts: what
    people should know; empty where all is well.
    """

    distance: float
    noise: float
    doubts: tuple[Doubt, ...] = ()


def check_range(volume: Volume, model: EnhancerModel) -> Verdict | None:
    """Compare a volume (of a sequence its first frame) with what the model learned from.

    None where the bundle has no bank. Raises InputError for a volume that shows nothing.
    """
    if model.range is None:
        return None
    frame = volume.frames()[0]
    known = findings_of(frame).verdicts
    if model.bundle.sha256 not in known:
        features = measure_features(
            frame.voxels, scaling_for(frame), model.guide, model.bundle.modality
        )
        known[model.bundle.sha256] = judge(features, model.range, model)
    return known[model.bundle.sha256]


def judge(features: Features, bank: RangeBank, model: EnhancerModel) -> Verdict:
    """The verdict on features that were measured."""
    distance, noise = bank.distance(features), features.noise
    name, anatomy = model.bundle.name, model.bundle.anatomy
    taught = f"{model.bundle.modality} of the {anatomy}" if anatomy else model.bundle.modality
    if features.named["structure"] < _LEAST_STRUCTURE:
        doubt = Doubt(
            "no-structure",
            "the volume shows no structure, only noise",
            "look at the input; what the model draws into noise means nothing",
            distance,
        )
        return Verdict(distance, noise, (doubt,))
    if distance > 1:
        doubt = Doubt(
            "out-of-range",
            f"the volume does not look like what {name} learned from ({taught}); most of all, "
            + departure(features, bank),
            f"check modality and model{_CROPPED if _is_full(features, bank) else ''}, and compare "
            "the result with the input",
            distance,
        )
        return Verdict(distance, noise, (doubt,))
    if bank.is_clean(features):
        doubt = Doubt(
            "already-clean",
            f"noise is {_in_words(noise, model.bundle.modality)}, as in the clean volumes that "
            f"{name} learned from",
            "there is little to gain, and the result may only be smoother",
            distance,
        )
        return Verdict(distance, noise, (doubt,))
    return Verdict(distance, noise)


def departure(features: Features, bank: RangeBank) -> str:
    """The figure that departs most, in words; the cue, which says little, only where none does."""
    scores = bank.scores(features)
    named = scores[: len(bank.names)]
    most = int(np.argmax(np.abs(named)))
    if abs(named[most]) < min(_TELLING_SCORE, float(np.abs(scores).max())):
        what, high, _ = WORDS["cue"]
        return f"{what} {high}"
    what, high, low = WORDS[bank.names[most]]
    return f"{what} {high if named[most] > 0 else low}"


def _is_full(features: Features, bank: RangeBank) -> bool:
    """Whether so much of the picture is body that a crop may be what departs."""
    scores = dict(zip(bank.names, bank.scores(features), strict=False))
    return bool(scores.get("tissue", 0.0) > _TELLING_SCORE)


def _in_words(noise: float, modality: str) -> str:
    return f"{noise * 1000:.0f} HU" if modality == "CT" else f"{noise * 100:.1f} % of the range"
