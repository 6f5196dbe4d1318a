"""What a notebook shows: pictures, and one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.volume import Volume

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


@pytest.mark.slow
def test_a_result_is_one_line_and_compares_itself(head: Volume) -> None:
    result = me.enhance(head, uncertainty=True)
    line = repr(result)
    assert re.fullmatch(r"<Enhanced by \S+ in [\d.]+ s: <Volume .*>, uncertainty>", line)
    picture = result.compare()
    assert picture._repr_png_().startswith(_PNG)
    assert "input, enhanced, enhanced − input, uncertainty" in picture.alt
