"""Simulated degradation by its physics: drawn with a seed, and replayed exactly."""

from MedEnhanceLib.degradation.image import bias_field, gaussian_blur, rician_noise, robust_max
from MedEnhanceLib.degradation.lowdose import low_dose_noise
from MedEnhanceLib.degradation.pipeline import (
    Bias,
    Blur,
    Composite,
    Degradation,
    LowDose,
    Rician,
    Scan,
    degradation_from_json,
    draw,
    named_steps,
    standard_composite,
)

__all__ = [
    "Bias",
    "Blur",
    "Composite",
    "Degradation",
    "LowDose",
    "Rician",
    "Scan",
    "bias_field",
    "degradation_from_json",
    "draw",
    "gaussian_blur",
    "low_dose_noise",
    "named_steps",
    "rician_noise",
    "robust_max",
    "standard_composite",
]
