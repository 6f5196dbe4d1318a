"""Warns where the measured noise is no noise as the filter assumes it.

The filter needs noise of a known level that is independent of the anatomy. The measurement shows
where that is not so: no tissue to measure in, noise that cannot be separated from structure, an
image enlarged from a smaller matrix, or a volume that holds nothing but noise.
"""

from __future__ import annotations

from MedEnhanceLib.bundles.suitability import ModelWarning
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.denoise import trust_in
from MedEnhanceLib.noise.blocks import structure_of
from MedEnhanceLib.noise.estimate import NoiseEstimate

#: Correlation between the means of blocks two apart below which there is only noise. Noise of any
#: usual texture gives 0 ± 1 / √(2n), CT and MR .3 and more, a PET of 34 × 31 pixels .18.
_LEAST_STRUCTURE = 0.1
#: σ over contrast from which noise is strong, and the trust (a confidence of .25, or in CT a σ of
#: 212 HU) below which it may be structure.
#: Of 77 undamaged scans 2 lie beyond both, and none of them with simulated noise.
_STRONG, _UNSURE = 0.3, 0.5
#: Noise of MR with less than this share of white noise's power at the highest frequency of both
#: axes comes from enlarging: scans have .49 and more, images enlarged 1.5 or 2 times .18 and less.
#: In CT a smooth kernel does the same. Known where the spectrum is noise's with this confidence.
_ENLARGED, _SURE_SPECTRUM = 0.25, 0.3


def noise_warning(volume: Volume, noise: NoiseEstimate, *, is_full: bool) -> ModelWarning | None:
    """What speaks against the measurement of the noise of a volume, if anything.

    Args:
        volume: a single volume.
        noise: as measured in it.
        is_full: whether the whole correction is applied, however uncertain the measurement.

    Returns:
        A warning with the code "no-structure" (serious) or "noise-model"; None where all is well.
    """
    if structure_of(volume.voxels) < _LEAST_STRUCTURE:
        return ModelWarning(
            "no-structure",
            "the volume shows no structure, only noise",
            "check the input: nothing in the result is anatomy",
        )
    if noise.confidence == 0 and noise.contrast == 0:
        return _unfit(
            "no tissue was found in which noise could be measured",
            "the result is almost the input; check that the volume is an image of this modality",
        )
    trust = trust_in(noise, volume.modality)
    if noise.contrast and noise.apparent / noise.contrast >= _STRONG and trust < _UNSURE:
        return _unfit(
            "strong noise and structure cannot be separated in this volume, as in label maps, "
            "textures and filtered images",
            "check that the volume is an unprocessed image, and compare with the input",
        )
    if is_full and trust < 1:
        return _unfit(
            "the noise cannot be measured with certainty, and the whole correction is applied",
            "fine structure may go with the noise: compare with the input, or use strength auto",
        )
    if _is_enlarged(volume, noise):
        return _unfit(
            "the noise has no fine grain, as in an image enlarged from a smaller matrix",
            "noise and detail overlap, and less is removed: enhance the image before it is "
            "enlarged",
        )
    return None


def _is_enlarged(volume: Volume, noise: NoiseEstimate) -> bool:
    if volume.modality == "CT" or noise.confidence < _SURE_SPECTRUM:
        return False
    finest = noise.spectrum[:, -1].mean(), noise.spectrum[:, :, -1].mean()
    return bool(max(finest) < _ENLARGED)


def _unfit(message: str, hint: str) -> ModelWarning:
    return ModelWarning("noise-model", message, hint)
