"""MONAI's dictionary transforms: what they change, what stays, and what they refuse."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd

from MedEnhanceLib import api
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.transforms import DegradeD, EnhanceD


@pytest.fixture
def image(head: Volume) -> MetaTensor:
    tensor = head.to_metatensor()
    tensor.meta["filename_or_obj"] = "scan.nii.gz"
    return tensor


def test_an_image_is_enhanced_where_it_is(image: MetaTensor, monkeypatch: Any) -> None:
    def enhance(volume: Volume, **options: Any) -> SimpleNamespace:
        assert options == {"strength": 0.5}
        assert volume.modality == "MR"
        return SimpleNamespace(volume=volume.with_voxels(volume.voxels + np.int16(7)))

    given = {"image": image, "name": "x"}
    enhanced = EnhanceD("image", modality="MR", strength=0.5)
    monkeypatch.setattr(api, "enhance", enhance)
    flip = Flipd("image", spatial_axis=0)
    found = Compose([flip, enhanced])(given)
    assert given["image"] is image
    assert found["name"] == "x"
    assert torch.equal(torch.as_tensor(found["image"]), torch.as_tensor(image.flip(1)) + 7)
    assert found["image"].dtype == image.dtype
    assert found["image"].meta["filename_or_obj"] == "scan.nii.gz"
    back = flip.inverse(found)
    np.testing.assert_allclose(back["image"].affine, image.affine, atol=1e-6)


def test_damage_is_drawn_anew_and_the_same_from_the_same_state(image: MetaTensor) -> None:
    damage = pickle.loads(pickle.dumps(DegradeD("image", "rician", modality="MR")))
    damage.set_random_state(3)
    one, another = (damage({"image": image})["image"] for _call in range(2))
    assert not torch.equal(one, another)
    damage.set_random_state(3)
    assert torch.equal(damage({"image": image})["image"], one)


def test_what_cannot_work_is_said_by_name(image: MetaTensor) -> None:
    with pytest.raises(ConfigError, match="EnhanceD has no option 'strenght'") as error:
        EnhanceD("image", strenght=0.5)
    assert "strength" in error.value.hint
    degraded = DegradeD("image", "blur", modality="MR")
    with pytest.raises(InputError, match="image is a path") as missing:
        degraded({"image": "scan.nii.gz"})
    assert "LoadImaged" in missing.value.hint
    with pytest.raises(KeyError):
        degraded({"other": image})
    assert DegradeD("other", "blur", allow_missing_keys=True)({"image": image})
    two = MetaTensor(torch.cat([image.as_tensor()] * 2), affine=image.affine)
    with pytest.raises(InputError, match="one channel"):
        degraded({"image": two})
