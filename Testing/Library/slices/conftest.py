"""Thin slices without learning from the slices, which takes long."""

from __future__ import annotations

import pytest

from MedEnhanceLib.slices import thin_slices


@pytest.fixture
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thin slices by the network as it is, as learning from the slices takes long."""
    monkeypatch.setattr(thin_slices, "tuned", lambda network, *_, **__: (network, {}))
    monkeypatch.setattr(thin_slices, "TUNING_STEPS", 0)
