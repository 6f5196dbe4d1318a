"""The enhancer that ships for MR."""

from __future__ import annotations

import pytest

from MedEnhanceLib.bundles import open_bundle


@pytest.fixture(scope="session")
def model() -> str:
    """Its folder, as users name a model of their own."""
    return str(open_bundle("auto", kind="enhancer", modality="MR").folder)
