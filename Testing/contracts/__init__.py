"""Contracts: tests that a denoiser, segmenter, coder or file format of anybody inherits.

    from contracts import DenoiserTests

    class TestMine(DenoiserTests):
        name = "mine"

A class states what is tested (see each contract), and pytest calls it with the same awkward inputs
as the members of the library. What is in a registry needs such a class: a test looks for it.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"contracts.{each}" for each in ("coders", "denoisers", "formats", "segmenters"))
)

from contracts.coders import CoderTests  # noqa: E402
from contracts.denoisers import DenoiserTests  # noqa: E402
from contracts.formats import FormatTests  # noqa: E402
from contracts.segmenters import SegmenterTests  # noqa: E402

__all__ = ["CoderTests", "DenoiserTests", "FormatTests", "SegmenterTests"]
