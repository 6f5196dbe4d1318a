"""What a notebook shows: pictures, facts, one line."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.config import Label
from MedEnhanceLib.gradprom.infer import Segmentation

_PNG = b"\x89PNG"


def test_a_volume_plots_itself(head: Volume, tmp_path: Path) -> None:
    picture = head.plot(point=(5, 10, 10), window=(0, 900))
    assert picture._repr_png_().startswith(_PNG)
    picture.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == picture._repr_png_()
    with pytest.raises(me.OutputError):
        picture.save(tmp_path / "a.png")
    with pytest.raises(me.OutputError, match="PNG"):
        picture.save(tmp_path / "a.jpg")
    assert "Axial" in repr(picture)


def test_a_volume_as_html_states_facts_and_escapes_text(head: Volume) -> None:
    page = replace(head, source="<script>alert(1)</script>", history=("blurred",))._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "36 × 40 × 12 of" in page
    assert "blurred" in page
    assert len(re.findall("data:image/png;base64", page)) == 2
    assert "not a medical device" in page


def test_without_a_library_for_drawing_the_facts_stay(
    head: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = head._repr_html_()
    assert "36 × 40 × 12 of" in page
    assert "<img" not in page


@pytest.mark.slow
def test_a_result_is_one_line_and_compares_itself(head: Volume) -> None:
    result = me.enhance(head, uncertainty=True)
    line = repr(result)
    assert re.fullmatch(r"<Enhanced by \S+ in [\d.]+ s: <Volume .*>, uncertainty>", line)
    picture = result.compare()
    assert picture._repr_png_().startswith(_PNG)
    assert "input, enhanced, enhanced − input, uncertainty" in picture.alt
    page = result._repr_html_()
    assert page.count("<img") == 2
    assert "Histogram" in page
    assert "Noise" in page


def test_compressions_are_one_short_line(head: Volume, tmp_path: Path) -> None:
    done = me.compress(head, tmp_path / "a.ucv", max_error=1)
    assert len(repr(done).replace(str(tmp_path), "")) < 100
    assert "times smaller" in repr(done)


def test_labels_and_what_is_not_finite_can_be_looked_at(head: Volume) -> None:
    label = Label(value=1, name="<b>", color="#ff0000")
    found = Segmentation(
        volume=replace(head.with_voxels((head.voxels > 50).astype(np.uint8)), modality="SEG"),
        labels=(label,),
        table=[{"label": label.name, "value": 1, "voxels": 9, "volume_ml": 1.5}],
        model={"name": "some"},
        device="cpu",
        seconds=0.0,
    )
    page = found._repr_html_()
    assert "1.50 ml" in page
    assert "&lt;b&gt;" in page
    broken = head.voxels.astype(np.float32)
    broken[0, 0, 0] = np.nan
    assert head.with_voxels(broken)._repr_html_().count("<img") == 2
