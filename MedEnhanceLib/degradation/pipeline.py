"""Degradations of whole volumes: parameters are drawn once, then replayed exactly.

    draw("composite", rng) -> Composite(Bias, Blur, Rician) -> .apply(volume) -> Volume
                                  ↕ to_json, degradation_from_json

A degradation is a frozen record of its parameters and its seed: the same record gives the same
voxels, also when it is read from a file. Strengths are drawn in `draw`, noise in `apply`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from MedEnhanceLib.core.arrays import Floats, foreground, robust_max
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.modality import SET_MODALITY
from MedEnhanceLib.core.options import LARGEST_SEED, About, Options, config_from_json, option_of
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.degradation.acquisition import SCAN_KINDS, MRScanner, bias_field
from MedEnhanceLib.degradation.lowdose import ELECTRONIC, low_dose_noise
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.describe import refuse_too_large
from MedEnhanceLib.noise.rician import rician_noise

Seed = Annotated[int, About(help="random seed", low=0, high=LARGEST_SEED, metavar="N")]


class Degradation(Options):
    """Simulated degradation with fixed parameters, including the seed of its noise.

    Attributes:
        name: the kind, as in `draw` and in JSON.
        modalities: to which its physics applies; others are refused.
        instead: the hint of that error.
    """

    name: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]]
    instead: ClassVar[str]

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ConfigError as error:
            raise ConfigError(f"{self.name} {error.message}", error.hint) from None

    def apply(self, volume: Volume, *, keep_dtype: bool = False) -> Volume:
        """Degrade a volume; geometry, modality and units are kept.

        volume: of one of the `modalities`.
        keep_dtype: round and clip to the volume's type; else voxels are float32.
        Raises InputError: another modality, or values that are not finite or too large.
        """
        if volume.modality not in self.modalities:
            raise InputError(
                f"{volume.source or 'volume'}: {self.name} cannot be applied to modality "
                f"{volume.modality}",
                f"{self.instead} If the modality is wrong, correct it: {SET_MODALITY}.",
            )
        refuse_too_large(volume)
        voxels = self._degraded(volume)
        return volume.with_voxels(
            restore_dtype(voxels, volume.dtype) if keep_dtype else voxels,
            did=derived_note(f"degraded ({self})"),
        )

    def _degraded(self, volume: Volume) -> Floats:
        """Return the degraded voxels, float32, same shape."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as a JSON object."""
        return {"name": self.name} | super().to_json()

    def __str__(self) -> str:
        numbers = (f"{key} {value}" for key, value in self.to_json().items() if key != "name")
        return f"{self.name} {', '.join(numbers)}"


@dataclass(frozen=True)
class Rician(Degradation):
    """Noise of magnitude MR.

    Magnitudes are not negative: a volume with over 1 % of its voxels below −5 % of the robust
    maximum is refused; less undershoot, as of an interpolation, counts as 0.

    Attributes:
        level: σ per channel as a share of the volume's robust maximum.
    """

    name: ClassVar[str] = "rician"
    modalities: ClassVar[tuple[str, ...]] = ("MR", "OT")
    instead: ClassVar[str] = "Rician noise is that of magnitude MR; use low-dose for CT."
    level: Annotated[float, About(low=0, high=1)]
    seed: Seed

    def _degraded(self, volume: Volume) -> Floats:
        voxels = volume.voxels.astype(np.float32)
        if self.level == 0:
            return voxels
        sigma = self.level * _magnitude_top(voxels, volume.source)
        return rician_noise(voxels, sigma, np.random.default_rng(self.seed))


def _magnitude_top(voxels: Floats, source: str) -> float:
    """Return the robust maximum of magnitudes; raises InputError for many negative values."""
    top = robust_max(voxels)
    negative = float((voxels < -0.05 * abs(top)).mean())
    if negative > 0.01:
        raise InputError(
            f"{source or 'volume'}: {negative:.1%} of the voxels are negative, but "
            f"magnitudes cannot be",
            "Use the magnitude image, before any normalization to zero mean.",
        )
    return top


@dataclass(frozen=True)
class Blur(Degradation):
    """Gaussian blur within slices.

    Attributes:
        sigma_px: pixels.
        seed: has no effect.
    """

    name: ClassVar[str] = "blur"
    modalities: ClassVar[tuple[str, ...]] = ("CT", "MR", "PT", "EM", "OT")
    instead: ClassVar[str] = "Labels cannot be blurred."
    sigma_px: Annotated[float, About(low=0, high=50)]
    seed: Seed = 0

    def _degraded(self, volume: Volume) -> Floats:
        return gaussian_blur(volume.voxels, self.sigma_px)


@dataclass(frozen=True)
class Bias(Degradation):
    """A smooth bias field.

    Attributes:
        strength: 0.3 multiplies or divides by 1.3 at most in the foreground; there the mean of the
            logarithm is 0, as a gain has no meaning in MR.
    """

    name: ClassVar[str] = "bias"
    modalities: ClassVar[tuple[str, ...]] = ("MR", "EM", "OT")
    instead: ClassVar[str] = "Bias fields occur in MR; HU and SUV have a fixed scale."
    strength: Annotated[float, About(low=0, high=2)]
    seed: Seed

    def _degraded(self, volume: Volume) -> Floats:
        field = bias_field(
            volume.shape[-3:],
            self.strength,
            np.random.default_rng(self.seed),
            spacing_mm=volume.geometry.spacing,
            within=foreground(volume.frame(0).voxels),
        )
        return volume.voxels.astype(np.float32) * field


@dataclass(frozen=True)
class LowDose(Degradation):
    """CT with fewer photons; `low_dose_noise` states the physics and its simplifications.

    Attributes:
        photons: per ray before the patient, mean over the views.
        electronic: σ of the electronic noise, in photons.
        modulation: of the tube current, as in `low_dose_noise`.
    """

    name: ClassVar[str] = "low-dose"
    modalities: ClassVar[tuple[str, ...]] = ("CT",)
    instead: ClassVar[str] = "Low dose applies to CT; use rician for MR."
    photons: Annotated[float, About(low=1, high=1e12)]
    electronic: Annotated[float, About(low=0, high=1e6)]
    seed: Seed
    modulation: Annotated[float, About(low=0, high=1)] = 0.0

    def _degraded(self, volume: Volume) -> Floats:
        slices = volume.voxels.reshape(-1, *volume.shape[-2:])
        noise = low_dose_noise(
            slices,
            volume.geometry.spacing,
            self.photons,
            self.electronic,
            np.random.default_rng(self.seed),
            modulation=self.modulation,
        )
        noise += slices
        return noise.reshape(volume.shape)


@dataclass(frozen=True, kw_only=True)
class Scan(MRScanner, Degradation):
    """MR as a simulated scanner acquires it; σ is the mean of the foreground over `snr`."""

    name: ClassVar[str] = "scanner"
    modalities: ClassVar[tuple[str, ...]] = ("MR", "OT")
    instead: ClassVar[str] = "A scan is one of magnitude MR; use low-dose for CT."

    def _degraded(self, volume: Volume) -> Floats:
        voxels = np.array(volume.voxels, np.float32, order="C")
        frames = voxels.reshape(-1, *volume.shape[-3:])
        if _magnitude_top(voxels, volume.source) > 0:
            sigma = float(frames[0][foreground(frames[0])].mean()) / self.snr
            rng = np.random.default_rng([self.seed, 1])
            for frame in frames:
                frame[:] = self.acquire(frame, sigma, volume.geometry.spacing, rng).noisy
        return voxels


@dataclass(frozen=True)
class Composite(Degradation):
    """Degradations in sequence.

    Attributes:
        steps: in order; each strength refers to the output of the step before.
    """

    name: ClassVar[str] = "composite"
    steps: tuple[Degradation, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise ConfigError("a composite without steps", "Give at least one degradation.")

    def apply(self, volume: Volume, *, keep_dtype: bool = False) -> Volume:
        """Degrade as `Degradation.apply`, step by step; each step checks the modality."""
        degraded = volume
        for step in self.steps:
            degraded = step.apply(degraded)
        voxels = degraded.voxels
        return degraded.with_voxels(restore_dtype(voxels, volume.dtype) if keep_dtype else voxels)

    def to_json(self) -> dict[str, Any]:
        """Return the steps in their order."""
        return {"name": self.name, "steps": [step.to_json() for step in self.steps]}

    def __str__(self) -> str:
        return "; ".join(str(step) for step in self.steps)


# Ranges chosen by hand; no table isolates them.
#: Degradations that `draw` makes, and limits of their strengths.
_RANGES: dict[str, list[tuple[Callable[..., Degradation], *tuple[tuple[float, float], ...]]]] = {
    "rician": [(Rician, (0.01, 0.17))],
    "blur": [(Blur, (0.5, 3))],
    "bias": [(Bias, (0.1, 0.4))],
    "low-dose": [
        (lambda power, *rest: LowDose(10**power, *rest), (math.log10(2e3), 5), (0, 5)),
    ],
    "composite": [(Bias, (0.1, 0.4)), (Blur, (0.4, 1.2)), (Rician, (0.02, 0.12))],
}
_KINDS: dict[str, type[Degradation]] = {
    kind.name: kind for kind in (Rician, Blur, Bias, LowDose, Scan, Composite)
}


#: By the name of a degradation, the option that is its strength.
STRENGTHS = {
    "rician": option_of(Rician, "level"),
    "low-dose": option_of(LowDose, "photons"),
    "blur": option_of(Blur, "sigma_px"),
    "bias": option_of(Bias, "strength"),
    "scanner": option_of(Scan, "kind"),
}


def degradation_from_json(fields: Mapping[str, Any]) -> Degradation:
    """Invert `to_json`. Raises ConfigError for an unknown name or option."""
    values = dict(fields)
    name = values.pop("name", None)
    if name not in _KINDS:
        raise ConfigError(f"unknown degradation {name!r}", f"Use one of {', '.join(_KINDS)}.")
    if name == Composite.name:
        values["steps"] = [degradation_from_json(step) for step in values.get("steps", ())]
    return config_from_json(_KINDS[name], values)


def standard_composite(seed: int) -> Composite:
    """Return the composite of the benchmarks: bias ±30 %, blur 0.8 px, then Rician 7 %."""
    return Composite((Bias(0.3, seed), Blur(0.8, seed + 1), Rician(0.07, seed + 2)))


def named_steps(strengths: Iterable[tuple[str, Any]], seed: int) -> list[Degradation]:
    """Make degradations by their names, in order.

    strengths: "rician" (σ as a share of the maximum), "blur" (σ in pixels), "bias" (± this share),
        "low-dose" (photons of a ray), "scanner" (kind), "composite" (of the benchmarks).
    seed: of the first; that of each later one is higher by 10.
    Raises ConfigError: another name, or a strength out of range.
    """
    make: dict[str, Callable[[Any, int], Degradation]] = {
        "rician": Rician,
        "blur": Blur,
        "bias": Bias,
        "low-dose": lambda photons, at: LowDose(photons, ELECTRONIC, at),
        "scanner": lambda kind, at: Scan.draw(np.random.default_rng(at), kind),
        "composite": lambda _, at: standard_composite(at),
    }
    option_of(Blur, "seed").check(seed)
    steps = []
    for number, (name, strength) in enumerate(strengths):
        if name not in make:
            raise ConfigError(f"unknown degradation {name!r}", f"Use one of {', '.join(make)}.")
        # By 10, as a composite uses the next two seeds as well.
        steps.append(make[name](strength, seed + 10 * number))
    return steps


def draw(kind: str, rng: np.random.Generator) -> Degradation:
    """Draw a degradation of random strength and seed; its `apply` gives the same each time.

    kind: "rician" (σ 1–17 % of the robust maximum), "blur" (0.5–3 px), "bias" (10–40 %), "low-dose"
        (2e3 to 1e5 photons, uniform in the logarithm), "scanner" (of any kind of scan, as
        `MRScanner.draw`), or "composite" (the first three, mostly weaker).
    Raises ConfigError: another kind.
    """
    if kind == "scanner":
        return Scan.draw(rng, SCAN_KINDS[int(rng.integers(len(SCAN_KINDS)))])
    if kind not in _RANGES:
        raise ConfigError(f"unknown degradation {kind!r}", f"Use one of {', '.join(_KINDS)}.")
    steps = [
        make(*(rng.uniform(low, high) for low, high in ranges), int(rng.integers(2**31)))
        for make, *ranges in _RANGES[kind]
    ]
    return steps[0] if len(steps) == 1 else Composite(tuple(steps))
