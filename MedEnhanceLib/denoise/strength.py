"""The result of an enhancement, and its strength: blending with the input, without the model.

    x(s) = y + s · (x̂ − y)        y: the input, x̂: enhanced at strength 1, rounded to its type

Strength scales the whole correction in x̂: of noise and bias field alike. With "auto", x̂ has
the share of the noise removal that the measured noise requires; with "full", all of it; a number
from 0 to 1 scales the correction of "auto". A run at strength s ends with the line above, so that
blending a result of strength 1 gives the same voxels bit for bit. Needs numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.bundles.suitability import ModelWarning
from MedEnhanceLib.core.arrays import Where
from MedEnhanceLib.core.findings import describe
from MedEnhanceLib.core.geometry import AS_STORED, AxisTurn
from MedEnhanceLib.core.manifest import ENHANCED, NOISE_MAP, derived_note, manifest_at_strength
from MedEnhanceLib.core.options import check_range
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.describe import refuse_not_finite

if TYPE_CHECKING:
    from MedEnhanceLib.core.labels import Segmentation
    from MedEnhanceLib.denoise.error_left import ErrorLeft
    from MedEnhanceLib.noise.estimate import NoiseEstimate
    from MedEnhanceLib.report.figures import Picture

_BLENDED = "blended with its input at strength"


@dataclass(frozen=True, eq=False, kw_only=True)
class Enhanced:
    """The result of an enhancement.

    Attributes:
        volume: on the grid, in the type and the units of the input.
        uncertainty: standard deviation of the error of `volume` by noise, float32 in the input's
            units; None where it was not requested.
        segmentation: of `volume`; None where it was not requested.
        record: "config" and "results" of the run, as its manifest states them.
        report: the manifest, a JSON object; empty in a job, which writes it beside the result.
        model: name and sha256.
        device: that the model ran on.
        seconds: that the run took.
        original: the input, on the same grid.
        strength: what the correction in `volume` is scaled by, 0 to 1.
        share: of the noise removal that strength 1 contains, 0 to 1.
        uncertainty_facts: how the uncertainty was made, as manifests record it.
        warnings: that model or noise measurement may not suit the input.
        measured: what was measured and what was done about it, as manifests record it: noise,
            bias field; empty where nothing was measured.
        noises: the noise of each frame; likewise empty.
        turn: from the order of `volume` to that of `noises`.
        part: of `noises`, in their order, that `volume` covers.
        error_left: by a second measurement; None without one.
    """

    volume: Volume
    uncertainty: Volume | None = None
    segmentation: Segmentation | None = None
    record: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    model: dict[str, str]
    device: str
    seconds: float
    original: Volume
    strength: float = 1.0
    share: float = 1.0
    uncertainty_facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[ModelWarning, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)
    noises: tuple[NoiseEstimate, ...] = ()
    turn: AxisTurn = AS_STORED
    part: Where = (slice(None),) * 3
    error_left: ErrorLeft | None = None

    def __repr__(self) -> str:
        maps = {"uncertainty": self.uncertainty, "segmentation": self.segmentation}
        besides = "".join(f", {name}" for name, value in maps.items() if value is not None)
        model = self.model.get("name", "no model")
        return f"<Enhanced by {model} in {self.seconds:.1f} s: {self.volume!r}{besides}>"

    @property
    def noise(self) -> Volume | None:
        """Measured σ at each voxel, [K, J, I], float32 in the input's units; None if unmeasured.

        Frames of a sequence share it.
        """
        if not self.noises:
            return None
        slices, rows, columns = self.part
        crop = self.turn.undo(self.noises[0][slices][:, rows, columns])
        frame = self.original.frame(0)
        return frame.with_voxels(np.ascontiguousarray(crop), did=derived_note(NOISE_MAP))

    @property
    def verdict(self) -> str:
        """`clean`, `removed` or `uncertain`; "" where no noise was measured."""
        return str(self.measured.get("noise", {}).get("verdict", ""))

    @property
    def sigma(self) -> float | None:
        """σ of the noise in the input's units, of a sequence the median; None if unmeasured."""
        noise = self.measured.get("noise")
        return float(noise["sigma"]) if noise else None

    @property
    def findings(self) -> list[str]:
        """Sentences on what was measured and done, as the command prints them; verdict first."""
        return list(map(str, describe(self.measured, self.strength)))

    def compare(
        self,
        *,
        point: tuple[int, int, int] | None = None,
        window: tuple[float, float] | None = None,
        frame: int | None = None,
    ) -> Picture:
        """Draw input, result, difference, and uncertainty and labels if any, in three planes.

        Args:
            point: (slice, row, column) that the planes go through; None: one with much content.
            window: intensities that are black and white; None: by the input.
            frame: of a sequence, from 0; None: the first that is not constant, in diffusion of
                those with the highest b-value.
        Raises InputError for a frame or a point that the volume does not have.
        """
        from MedEnhanceLib.report.figures import Pane, comparison

        before = "Interpolated" if "slices" in self.measured else "Input"
        panes = [
            Pane(before, self.original),
            Pane("Enhanced", self.volume),
            Pane(f"Enhanced − {before.lower()}", self.volume, minus=self.original),
        ]
        legend: dict[int, str] = {}
        if self.uncertainty is not None:
            panes.append(Pane("Uncertainty", self.uncertainty, heat=True))
        if self.segmentation is not None:
            legend = {label.value: label.name for label in self.segmentation.labels}
            panes.append(Pane("Segmentation", self.volume, labels=self.segmentation.volume))
        return comparison(panes, legend=legend, point=point, window=window, frame=frame)

    def at_strength(self, strength: float) -> Enhanced:
        """Return the same result at another strength (0 to 1), without running the model again.

        After a run with "auto", the voxels are those of a run with that number as its strength.
        Segmentation, uncertainty and error left, which are of strength 1, are dropped. Raises
        ConfigError for a strength outside 0 to 1, and for a result at another strength than 1,
        whose rounding cannot be undone.
        """
        if self.strength != 1:
            raise ConfigError(
                f"this is a result at strength {self.strength:g}", "Blend the one at strength 1."
            )
        if strength == 1:
            return self
        volume, measured = blend(self.original, self.volume, strength), dict(self.measured)
        measured.pop("against", None)
        if "noise" in measured and np.array_equal(volume.voxels, self.original.voxels):
            # Rounded to whole numbers, a small share of a correction is none.
            measured = measured | {"noise": measured["noise"] | {"changed": 0.0}}
        return replace(
            self,
            volume=volume,
            measured=measured,
            uncertainty=None,
            segmentation=None,
            error_left=None,
            report=manifest_at_strength(self.report, strength) if self.report else {},
            strength=strength,
        )


def blend(original: Volume, enhanced: Volume, strength: float) -> Volume:
    """Blend the input with its result: add a share of the correction.

    Args:
        original: the input.
        enhanced: its result at strength 1, from a run with "auto" or "full".
        strength: 0 gives the input, 1 the enhanced volume.
    Returns a volume with grid, type and history of `enhanced`.
    Raises ConfigError: the strength is not within 0 to 1.
    Raises InputError: the two are no pair, swapped or not finite, or `enhanced` was made at another
        strength.
    """
    check_range("strength", strength, 0.0, 1.0)
    _check_pair(original, enhanced)
    voxels = np.empty(enhanced.shape, enhanced.dtype)
    # float32, or wider for types such as int32, which it cannot represent.
    working = np.result_type(original.dtype, enhanced.dtype, np.float32)
    for index in np.ndindex(original.shape[:-2]):  # slices
        base = original.voxels[index].astype(working)
        correction = enhanced.voxels[index].astype(working) - base
        voxels[index] = restore_dtype(base + working.type(strength) * correction, enhanced.dtype)
    did = derived_note(f"{_BLENDED} {strength:g}")
    return enhanced.with_voxels(voxels, did=did)


def _check_pair(original: Volume, enhanced: Volume) -> None:
    """Raise InputError where the second volume is no result at strength 1 of the first."""
    names = f"{original.source or 'the input'} and {enhanced.source or 'the enhanced volume'}"
    if any(did.startswith(ENHANCED) for did in original.history) and not enhanced.history:
        raise InputError(
            f"{names} are swapped: the first is the enhanced volume, the second has no record "
            f"of an enhancement",
            "Give the input first, then the enhanced volume.",
        )
    differs = ""
    if original.shape != enhanced.shape:
        differs = f"shapes {original.shape} and {enhanced.shape}"
    elif not original.geometry.is_close(enhanced.geometry, 1e-3, shape=original.shape):
        differs = "their positions in space differ"
    elif original.modality != enhanced.modality:
        differs = f"{original.modality} and {enhanced.modality}"
    elif enhanced.history and enhanced.history[-1].startswith(f"DERIVED: {_BLENDED}"):
        differs = "the second is blended with its input already"
    if differs:
        raise InputError(
            f"{names} do not belong together: {differs}",
            "Give the volume that was enhanced, and its result at strength 1.",
        )
    refuse_not_finite(original)
    refuse_not_finite(enhanced)
