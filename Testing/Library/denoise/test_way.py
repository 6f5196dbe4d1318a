"""The way of a volume through the library, as somebody who follows it in a debugger meets it."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

import pytest

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.runtime.resources import resource_folder

#: Most functions of the library that call one another at a time, and files that are entered.
_DEEPEST, _FILES = 18, 40


@pytest.mark.slow
def test_a_second_enhancement_of_four_slices_is_neither_deep_nor_wide() -> None:
    head = me.load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    noisy = me.degrade(head.crop(k=slice(40, 44)), rician=0.1, seed=1)
    me.enhance(noisy)
    files, deepest = set[str](), 0

    def profile(frame: FrameType, event: str, _value: Any) -> None:
        nonlocal deepest
        if event != "call" or "MedEnhanceLib" not in frame.f_code.co_filename:
            return
        files.add(frame.f_code.co_filename)
        depth, caller = 0, frame
        while caller is not None:
            depth += "MedEnhanceLib" in caller.f_code.co_filename
            caller = caller.f_back  # type: ignore[assignment]
        deepest = max(deepest, depth)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        me.enhance(noisy)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    assert deepest <= _DEEPEST
    assert 20 < len(files) <= _FILES
