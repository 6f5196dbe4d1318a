"""MONAI's dictionary transforms: enhance and degrade as steps of a `Compose`.

    from monai.transforms import Compose, LoadImaged
    from MedEnhanceLib.transforms import EnhanceD

    load = Compose([
        LoadImaged("image", ensure_channel_first=True),
        EnhanceD("image", modality="MR"),
    ])

Importing this module imports MONAI. Images are MetaTensors [1, I, J, K] with an affine; their
`meta` and their list of applied transforms are kept. Put these before all steps that resample or
normalize: noise is measured on the grid and in the units of the scanner.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from MedEnhanceLib import api
from MedEnhanceLib.api import watched
from MedEnhanceLib.core.options import check_names
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.describe import warn_of_content

__all__ = ["DegradeD", "EnhanceD"]


class _OfVolumes(MapTransform):  # type: ignore[misc]
    """A transform that replaces the image of each key.

    Args:
        keys: of the images.
        modality: "CT", "MR" …; None: guessed from the values, with a warning.
        allow_missing_keys: skip missing keys.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        modality: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modality = modality

    @abstractmethod
    def _transformed(self, volume: Volume) -> Volume:
        """Return the volume that replaces another."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the images [1, I, J, K] in a copy of the dictionary.

        Raises InputError for an image without an affine, or with several channels.
        """
        images = dict(data)
        for key in self.key_iterator(images):
            tensor = images[key]
            if isinstance(tensor, str | Path):
                raise InputError(
                    f"{key} is a path, not an image",
                    f'Put LoadImaged("{key}", ensure_channel_first=True) before.',
                )
            volume = Volume.from_metatensor(tensor, modality=self.modality)
            with watched(None, None) as monitor:
                warn_of_content(volume, str(key), monitor)
            image = self._transformed(volume).to_metatensor()
            image.meta = {**tensor.meta, **image.meta}
            image.applied_operations = tensor.applied_operations
            images[key] = image
        return images


class EnhanceD(_OfVolumes):
    """A transform that applies `me.enhance` to each image; voxels keep their type.

    Args:
        keys: of the images.
        options: of `me.enhance`, such as model, strength or device; and those of both transforms:
            modality and allow_missing_keys.

    Raises:
        ConfigError: an option that `me.enhance` does not have.
    """

    def __init__(self, keys: KeysCollection, **options: Any) -> None:
        shared = {n: options.pop(n) for n in ("modality", "allow_missing_keys") if n in options}
        super().__init__(keys, **shared)
        # Checked now: the first volume may be hours away.
        check_names("EnhanceD", options, inspect.signature(api.enhance).parameters)
        self.options = options

    def _transformed(self, volume: Volume) -> Volume:
        return api.enhance(volume, **self.options).volume


class DegradeD(Randomizable, _OfVolumes):  # type: ignore[misc]
    """A random degradation of each image, drawn anew at each call; float32.

    All images of a dictionary get the same degradation. The same random state gives the same
    degradation.

    Attributes:
        kind: "rician", "blur", "bias", "low-dose" or "composite", as in `degradation.draw`.
    """

    def __init__(self, keys: KeysCollection, kind: str, **options: Any) -> None:
        super().__init__(keys, **options)
        self.kind = kind
        self.randomize()

    def randomize(self, data: Any = None) -> None:
        """Draw strength and seed of the degradation."""
        from MedEnhanceLib.degradation.pipeline import draw

        self.damage = draw(self.kind, np.random.default_rng(self.R.randint(2**31)))

    def _transformed(self, volume: Volume) -> Volume:
        return self.damage.apply(volume)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """See `_OfVolumes`."""
        self.randomize()
        return super().__call__(data)
