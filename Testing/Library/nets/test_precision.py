"""Half precision is used where it is a gain."""

from __future__ import annotations

import pytest
import torch

from MedEnhanceLib.nets import precision
from MedEnhanceLib.nets.precision import mixed_precision


def test_a_cpu_without_bfloat16_keeps_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: False)
    with mixed_precision("cpu"):
        assert not torch.is_autocast_enabled("cpu")
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)
    with mixed_precision("cpu"):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
