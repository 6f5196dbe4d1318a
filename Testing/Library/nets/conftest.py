"""The two engines of the grouped filter."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedEnhanceLib import native
from MedEnhanceLib.nets.grouped import Engine
from MedEnhanceLib.nets.grouped_torch import TorchEngine


@pytest.fixture
def library(native_path: Path) -> native.Library:
    return native.Library(native_path)


@pytest.fixture(params=["compiled", "pytorch"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return TorchEngine() if request.param == "pytorch" else request.getfixturevalue("library")
