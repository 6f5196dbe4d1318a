"""The report of an enhancement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.manifest import corrections_in_words, make_manifest
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.report import figures
from MedEnhanceLib.report.enhance import enhancement_report
from MedEnhanceLib.report.figures import Pane, comparison

HOSTILE = "<b onclick=x>&.nii.gz"


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are looked at in test_figures; here they only have to be there."""
    monkeypatch.setattr(figures, "DPI", 40)


@pytest.fixture
def enhanced(head: Volume) -> Volume:
    return head.with_voxels(head.voxels + np.int16(3), did="enhanced with mr")


@pytest.fixture
def manifest() -> dict[str, Any]:
    return make_manifest(
        "enhanced",
        config={"model": "auto"},
        inputs={"input": HOSTILE},
        seconds=1.25,
        model={"name": "mr", "sha256": "ab" * 32},
    )


def report(folder: Path, volume: Volume, enhanced: Volume, **options: Any) -> list[Path]:
    picture = comparison([Pane("Input", volume), Pane("Enhanced", enhanced)])
    return enhancement_report(folder, volume=volume, enhanced=enhanced, picture=picture, **options)


def test_report_has_its_files_and_says_what_changed(
    tmp_path: Path, head: Volume, enhanced: Volume, manifest: dict[str, Any]
) -> None:
    written = report(tmp_path / "report", head, enhanced, manifest=manifest)
    names = ["index.html", "comparison.png"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(names)
    html = written[0].read_text(encoding="utf-8")
    assert "changed the volume by 3 units of the input on average" in html
    assert "mr (abababababab)" in html
    assert "1.2 s" in html


def test_report_says_what_was_measured_and_done(
    tmp_path: Path, head: Volume, enhanced: Volume, manifest: dict[str, Any]
) -> None:
    noise = {"sigma": 12.5, "units": "HU", "confidence": 0.4, "share_removed": 0.8, "reason": "few"}
    blur = {"undone": True, "reason": "both axes are blurred"}
    bias_field = {"corrected": False, "reason": "none"}
    measured = {"noise": noise, "blur": blur, "bias_field": bias_field}
    facts = {"samples": 8, "calibration": {"fitted_on": "held-out <heads>", "sha256": "ab"}}
    results = {"measured": measured, "uncertainty": facts}
    table = [{"label": "white matter", "voxels": 12345, "volume_ml": 6.7891, "surface_mm2": 4321.4}]
    page, *_ = report(
        tmp_path, head, enhanced, manifest=manifest | {"results": results}, table=table
    )
    html = page.read_text(encoding="utf-8")
    assert "Noise: σ 12.5 HU, confidence 0.4; 80% of the correction applied: few." in html
    assert "Blur: undone; both axes are blurred." in html
    assert "Bias field" not in html
    assert corrections_in_words(measured) == ", 80% of the noise correction, blur undone"
    assert "calibrated on held-out &lt;heads&gt;" in html
    for text in ("12,345", "6.79", "Surface, mm²", "4,321"):
        assert text in html


def test_change_of_integers_does_not_wrap_around(
    tmp_path: Path, head: Volume, manifest: dict[str, Any]
) -> None:
    low = head.with_voxels(np.full(head.shape, -32768, np.int16))
    high = head.with_voxels(np.full(head.shape, 32767, np.int16))
    page, _ = report(tmp_path, low, high, manifest=manifest)
    assert "by 6.55e+04 at most" in page.read_text(encoding="utf-8")
