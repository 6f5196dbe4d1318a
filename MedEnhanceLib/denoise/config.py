"""Options of an enhancement."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from MedEnhanceLib.core.options import (
    Options,
    did_you_mean,
    in_their_case,
    option,
    options_of,
)
from MedEnhanceLib.denoise.denoisers import DENOISERS, options_for
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.device import DEVICES
from MedEnhanceLib.scanner.scanner import Scanner


@dataclass(frozen=True, kw_only=True)
class EnhanceConfig(Options):
    """Options of enhancement."""

    model: str = option(
        "auto",
        help="a model's name or folder: of a scanner, trained without pairs, or of thin slices; "
        "auto: none, and for thin slices the one for the modality",
        metavar="NAME",
    )
    uncertainty: bool = option(
        False, help="also make a map of the uncertainty: the standard deviation of the error"
    )
    device: str = option(
        "auto", help=f"that networks run on ({DEVICES}); the filter runs on the CPU", metavar="D"
    )
    strength: float | Literal["auto", "full"] = option(
        "auto",
        help="amount of correction; auto: as much as the measured noise requires, little in a "
        "clean volume; full: all of it, whatever the noise; a number: this share of auto",
        low=0,
        high=1,
        metavar="S",
    )
    noise: float | str | None = option(
        None,
        help="noise that is removed, all of it, instead of what is measured: a file with its map, "
        "or its standard deviation in the units of the volume",
        above=0,
        high=1e18,
        metavar="SIGMA|FILE",
    )
    for_viewing: bool = option(
        False,
        help="CT: smoother image for viewing. Removes noise blobs that mimic small low-contrast "
        "lesions, and such lesions with them.",
    )
    as_intensity: bool = option(
        False,
        help="also enhance derived maps (ADC, T1, CBF, MIP), and what only looks like phase or "
        "labels, as if they were intensities",
    )
    denoiser: str = option(
        "auto",
        help=f"method that removes the noise: {', '.join(DENOISERS)}; auto: block-matching. "
        "Frames that are filtered together become principal images, which the method filters; to "
        "filter each frame alone: sequence each",
        metavar="NAME",
    )
    denoiser_options: dict[str, Any] = option(
        factory=dict, help="options of the denoiser, if it has any", metavar="NAME=VALUE"
    )
    correct_bias_field: bool = option(False, help="also correct the bias field of MR (N4)")
    sequence: Literal["auto", "joint", "each", "repeats"] = option(
        "auto",
        help="frames of a sequence; joint: filtered together, for frames of different contrast "
        "(diffusion, echoes, inversion times); repeats: likewise, for frames that are the same "
        "(averages kept apart, a phantom); each: one by one, for frames that change over time "
        "(fMRI, perfusion, dynamic), in which a joint filter erases weak activation; auto: by what "
        "files state, else each",
    )
    rician: bool = option(
        False,
        help="also correct the bias that noise adds to weak magnitudes where the background does "
        "not show it, as in scans that were combined from several coils or masked; where there is "
        "less of it, weak tissue comes out too dark",
    )
    scanner: str | Scanner | None = option(
        None,
        help="the file of a measured scanner (medenhance scanner), which is inverted: field, "
        "resolution and contrast become those of its high-quality pool, and intensities are not "
        "those measured",
        metavar="FILE",
    )
    scanner_without: tuple[Literal["noise", "field", "resolution", "curve"], ...] = option(
        (),
        help="steps of that inversion that are left out: noise, field, resolution, curve",
        metavar="STEP",
    )
    task: Literal["noise", "slices"] = option(
        "noise",
        help="what is corrected: noise; slices: thin slices from thick ones, on a new grid",
    )
    slice_spacing: float | Literal["isotropic", "half"] = option(
        "isotropic",
        help="slice spacing of the result, for the task slices: isotropic (pixel size), half "
        "(of the original), or mm",
        low=0.01,
        high=100,
        metavar="T",
    )
    slice_thickness: float | Literal["auto"] = option(
        "auto",
        help="full width at half maximum of the profile of the given slices in mm, for the task "
        "slices; auto: as DICOM states, or else their spacing",
        low=0.01,
        high=100,
        metavar="T",
    )
    slice_profile: Literal["auto", "gaussian", "box"] = option(
        "auto",
        help="how a given slice weighs what is within it, for the task slices; auto: gaussian in "
        "MR, as excitation falls off, box in CT. Slices that a program averaged: box",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "denoiser", in_their_case(self.denoiser, ("auto", *DENOISERS)))
        if self.denoiser != "auto" and not DENOISERS.knows(self.denoiser):
            names = DENOISERS.names()
            raise ConfigError(
                f"denoiser: there is no {self.denoiser!r}",
                f"{did_you_mean(self.denoiser, names)}Use auto, {', '.join(names)}.",
            )
        if self.denoiser_options:
            if self.denoiser == "auto":
                raise ConfigError("denoiser_options require a named denoiser", "Set denoiser too.")
            options = options_for(self.denoiser, self.denoiser_options)
            object.__setattr__(self, "denoiser_options", options.to_json())
        is_file = isinstance(self.noise, str)
        if is_file and not os.path.exists(str(self.noise)):  # noqa: PTH110 - never raises
            raise ConfigError(
                f"noise: {self.noise} is neither a number nor a file",
                "Give σ in the units of the volume, or the file of its map.",
            )
        if self.scanner_without and self.scanner is None:
            raise ConfigError(
                "scanner_without requires scanner", "Name the file of a scanner, or leave it out."
            )
        if self.scanner is not None and (
            self.uncertainty or self.correct_bias_field or self.task == "slices"
        ):
            raise ConfigError(
                "scanner takes no uncertainty, no task slices, and corrects the bias field itself",
                "Leave out uncertainty, correct_bias_field and task, or scanner.",
            )
        for each in options_of(type(self)):
            is_set = getattr(self, each.name) != each.default
            if each.name.startswith("slice_") and is_set and self.task != "slices":
                raise ConfigError(
                    f"{each.name} requires the task slices", "Set task to slices, or leave it out."
                )

    @property
    def share(self) -> float:
        """Factor on the correction: `strength` where it is a number, 1 for "auto" and "full"."""
        return 1.0 if isinstance(self.strength, str) else float(self.strength)
