"""Stand-ins for trained networks, for tests of what is around them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib import denoise, gradprom
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.gradprom import Label

LABELS = (
    Label(value=1, name="gray matter", color="#ffb703"),
    Label(value=2, name="white matter", color="#f72585"),
)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Put functions that need no model and no torch in place of enhance and segment.

    What trained networks do is tested where they live; here it matters that a command asks for
    the right thing and states what came out.
    """
    calls: list[dict[str, Any]] = []

    def enhance(
        volume: Volume,
        config: Any,
        *,
        frame: int | None = None,
        slices: Any = None,
        cache: Any = None,
        monitor: Any,
        **_: Any,
    ) -> Any:
        calls.append({"kind": "enhance", "config": config, "cache": cache})
        monitor.progress(0.5, "enhancing")
        monitor.warn("only a stand-in")
        wants = config.uncertainty
        spread = volume.with_voxels(np.ones(volume.shape, np.float32)) if wants else None
        better = volume.with_voxels(volume.voxels + volume.dtype.type(1), did="enhanced")
        return Enhanced(
            original=volume,
            volume=better,
            uncertainty=spread,
            model={"name": "block-matching", "sha256": ""},
            device="cpu",
            seconds=0.1,
            strength=config.share,
            measured={},
        )

    def segment(volume: Volume, config: Any = None, *, head: Any = None, monitor: Any) -> Any:
        calls.append({"kind": "segment", "config": config or head.config, "image": volume})
        monitor.progress(0.5, "segmenting")
        found = np.digitize(volume.voxels, [300, 600]).astype(np.uint8)
        table = [
            {
                "label": label.name,
                "value": label.value,
                "voxels": int((found == label.value).sum()),
                "volume_ml": 1.5,
            }
            for label in LABELS
        ]
        labels = replace(volume.with_voxels(found), modality="SEG", units="")
        model = {"name": "h", "sha256": "1" * 64}
        return SimpleNamespace(
            volume=labels, labels=LABELS, table=table, model=model, device="cpu", seconds=0.1,
            warning="", limits=(), uncertainty=None, intracranial=None,
        )  # fmt: skip

    monkeypatch.setattr(denoise, "enhance", enhance)
    monkeypatch.setattr(gradprom, "segment", segment)
    return calls
