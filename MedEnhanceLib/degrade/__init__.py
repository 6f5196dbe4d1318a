"""Simulated damage, by its physics: each kind is drawn with a seed and replayed exactly."""

from MedEnhanceLib.degrade.bias import bias_field
from MedEnhanceLib.degrade.blur import gaussian_blur
from MedEnhanceLib.degrade.lowdose import low_dose_noise
from MedEnhanceLib.degrade.noise import rician_noise, robust_max

__all__ = ["bias_field", "gaussian_blur", "low_dose_noise", "rician_noise", "robust_max"]
