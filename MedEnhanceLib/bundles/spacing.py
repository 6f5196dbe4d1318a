"""A doubt about volumes whose pixels are of another size than those that a model learned from."""

from __future__ import annotations

import math

from MedEnhanceLib.bundles.doubt import Doubt

#: Of a bundle's metadata: the axial pixels that it learned from, in mm.
PIXEL_SPACING = "pixel_spacing_mm"
#: Pixels that are larger or smaller by more than this are told of.
_NEAR = 1.5


def doubt_about_pixels(name: str, learned: float, pixels: tuple[float, float]) -> Doubt | None:
    """A doubt where axial pixels (mm) are far from those that a model of that name learned on."""
    farthest = max(max(pixel / learned, learned / pixel) for pixel in pixels)
    if farthest <= _NEAR:
        return None
    return Doubt(
        "pixel-size",
        f"{name} learned on axial pixels of {learned:g} mm, and these are "
        f"{pixels[0]:.3g} × {pixels[1]:.3g} mm",
        "look closely at what comes out, or train one at this spacing",
        round(math.log(farthest) / math.log(_NEAR), 3),
    )
