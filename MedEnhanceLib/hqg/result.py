"""What an enhancement gives back, and the same at another strength."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.bundles.doubt import Doubt
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.hqg.range import Verdict
from MedEnhanceLib.hqg.strength import blend, blend_deviation, check_strength

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Enhancement:
    """What came out.

    volume: same grid, type and units as the input. uncertainty: standard deviation of what
    `volume` is off by through noise, and blur where it was undone; in the input's units, float32,
    not asked for. uncertainty_facts: what it is made of, as manifests record it; "calibration" in
    it is None where the model was not calibrated: then the map ranks and does not measure.
    model: name and sha256. device: where it ran. seconds: of wall time.
    doubts: what speaks against the model. verdict: whether the input looks like what the model
    learned from; None where the model cannot tell.
    original: what was enhanced, on the same grid. strength: share of the correction in `volume`.
    floors: what no value of each frame falls below; of the whole frame, where this is a part.
    shading: the field that N4 divided `volume` by, kept where there is an uncertainty.
    """

    volume: Volume
    uncertainty: Volume | None
    model: dict[str, str]
    device: str
    seconds: float
    original: Volume
    floors: tuple[float, ...]
    strength: float = 1.0
    uncertainty_facts: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()
    verdict: Verdict | None = None
    shading: Floats | None = None

    def at_strength(self, strength: float) -> Enhancement:
        """The same result at another strength, as a run at that strength gives it.

        Only of a result at full strength (1): what was rounded away does not come back.
        Raises ConfigError for a strength outside 0 to 1.5.
        """
        check_strength(strength)
        if self.strength != 1:
            raise ConfigError(
                f"this is a result at strength {self.strength:g}", "Blend the one at strength 1."
            )
        if strength == 1:
            return self
        uncertainty = self.uncertainty
        if uncertainty is not None:
            voxels = blend_deviation(
                uncertainty.voxels,
                self.original.voxels,
                self.volume.voxels,
                strength,
                shading=self.shading,
            )
            uncertainty = uncertainty.with_voxels(voxels)
        return replace(
            self,
            volume=blend(self.original, self.volume, strength, floors=self.floors),
            uncertainty=uncertainty,
            strength=strength,
        )
