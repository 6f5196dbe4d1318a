"""The denoisers of the library keep the contract."""

from __future__ import annotations

from contracts import DenoiserTests

from MedEnhanceLib.denoise.denoisers import DENOISERS


class TestBlockMatching(DenoiserTests):
    name = "block-matching"


class TestBlockMatchingOfCT(DenoiserTests):
    name, modality = "block-matching", "CT"


class TestPrincipalImages(DenoiserTests):
    name = "principal-images"


def test_every_denoiser_has_its_contract() -> None:
    assert set(DENOISERS) <= {each.name for each in DenoiserTests.__subclasses__()}
