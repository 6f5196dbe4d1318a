"""MONAI's dictionary transforms: enhance, degrade, compress and segment as steps of a `Compose`.

    from monai.transforms import Compose, LoadImaged
    from MedEnhanceLib.transforms import Enhanced

    load = Compose([
        LoadImaged("image", ensure_channel_first=True),
        Enhanced("image", modality="MR"),
    ])

Importing this module imports MONAI. Images are MetaTensors [1, I, J, K] with their affine; what is
in `meta`, and which transforms were applied before, stays. They come before whatever resamples or
normalizes: noise is measured on the grid and in the units of the scanner.
"""

from __future__ import annotations

import inspect
import logging
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from MedEnhanceLib import api
from MedEnhanceLib.core.modality import doubts
from MedEnhanceLib.core.options import check_names
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError

__all__ = ["Compressed", "Degraded", "Enhanced", "Segmented"]


class _OfVolumes(MapTransform):  # type: ignore[misc]
    """Applies a function of the API to each key.

    Args:
        keys: of the images.
        modality: "CT", "MR" …; None: guessed from the values, with a warning.
        allow_missing_keys: leave out keys that are not there.
        options: of the function that it calls, such as model, strength or device.

    Raises:
        ConfigError: an option that the function does not have.
    """

    #: The function of the API whose options it takes.
    _CALL: ClassVar[Callable[..., Any] | None] = None

    def __init__(
        self,
        keys: KeysCollection,
        *,
        modality: str | None = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modality, self.options = modality, options
        # Here and not at the first volume, which may be hours away.
        call = type(self)._CALL
        names = inspect.signature(call).parameters if call is not None else ()
        check_names(type(self).__name__, options, names)

    @abstractmethod
    def _made(self, volume: Volume) -> Volume:
        """The volume that takes the place of another."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The same dictionary with new images [1, I, J, K]; the given one is not changed.

        Raises:
            InputError: of an image that has no affine, or several channels.
        """
        images = dict(data)
        for key in self.key_iterator(images):
            tensor = images[key]
            if isinstance(tensor, str | Path):
                raise InputError(
                    f"{key} is a path, and no image",
                    f'Put LoadImaged("{key}", ensure_channel_first=True) before.',
                )
            volume = Volume.from_metatensor(tensor, modality=self.modality)
            for text, _ in doubts(volume, str(key)):
                logging.getLogger("MedEnhanceLib").warning("%s", text)
            made = self._made(volume).to_metatensor()
            made.meta = {**tensor.meta, **made.meta}
            made.applied_operations = tensor.applied_operations
            images[key] = made
        return images


class Enhanced(_OfVolumes):
    """`me.enhance` of each image, with its options; voxels keep their type."""

    _CALL = api.enhance

    def _made(self, volume: Volume) -> Volume:
        return api.enhance(volume, **self.options).volume


class Segmented(_OfVolumes):
    """`me.segment` of each image, with its options: labels in its place."""

    _CALL = api.segment

    def _made(self, volume: Volume) -> Volume:
        return api.segment(volume, **self.options).volume


class Compressed(_OfVolumes):
    """What is left of each image after `me.compress`, with its options, as a training meets it."""

    _CALL = api.compress

    def _made(self, volume: Volume) -> Volume:
        with tempfile.TemporaryDirectory(prefix="medenhance-") as folder:
            path = Path(folder) / "image.ucv"
            api.compress(volume, path, **self.options)
            return api.decompress(path)


class Degraded(Randomizable, _OfVolumes):  # type: ignore[misc]
    """Each image with damage of a random strength, drawn anew at each call; float32.

    kind: "rician", "blur", "bias", "low-dose" or "composite", as in `degrade.draw`; all images of
    a dictionary get the same damage. A random state that was set gives the same damage again.
    """

    def __init__(self, keys: KeysCollection, kind: str, **options: Any) -> None:
        super().__init__(keys, **options)
        self.kind = kind
        self.randomize()

    def randomize(self, data: Any = None) -> None:
        """Draw strength and seed of the damage."""
        from MedEnhanceLib.degradation import draw

        self.damage = draw(self.kind, np.random.default_rng(self.R.randint(2**31)))

    def _made(self, volume: Volume) -> Volume:
        return self.damage.apply(volume)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """See `_OfVolumes`."""
        self.randomize()
        return super().__call__(data)
