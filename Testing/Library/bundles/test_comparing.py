"""Doubts about a model that is to replace another as the default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.bundles.comparing import doubt_about
from MedEnhanceLib.bundles.store import Bundle, shipped_bundle


def model(kind: str, **metadata: Any) -> Bundle:
    fields = {"name": "mine", "kind": kind, "modality": "MR", "files": {}}
    return Bundle(Path("/models/mine"), fields | metadata)


def enhancer(gain: float, **metadata: Any) -> Bundle:
    validation = {"gain_db": gain, "shipped_gain_db": 0.3}
    return model("enhancer", training={"validation": validation}, **metadata)


@pytest.mark.parametrize(("gain", "said"), [(0.31, ""), (0.3, ""), (0.21, "0.21 against 0.30 dB")])
def test_an_enhancer_is_compared_with_the_shipped_one(gain: float, said: str) -> None:
    doubt = doubt_about(enhancer(gain), shipped_bundle("mr"))
    assert said in doubt
    assert bool(said) == bool(doubt)


def test_the_shipped_one_is_worse_than_a_better_default() -> None:
    assert "mr is worse than mine" in doubt_about(shipped_bundle("mr"), enhancer(0.4))
    assert doubt_about(shipped_bundle("mr"), enhancer(0.2)) == ""
    assert doubt_about(shipped_bundle("mr"), model("enhancer")) == ""
    assert doubt_about(shipped_bundle("mr"), shipped_bundle("mr")) == ""
    assert doubt_about(model("head"), None) == ""


def test_a_network_for_thin_slices_is_compared_by_its_patches() -> None:
    measured = [{"volumes": "1 held out", "restored (dB)": 30.0, "shipped model (dB)": 30.25}]
    doubt = doubt_about(model("slices", measured=measured), shipped_bundle("mr-slices"))
    assert doubt.endswith("30.00 against 30.25 dB (PSNR)")


def test_heads_are_compared_where_they_held_out_the_same() -> None:
    rows = [{"subject": "a", "core": 0.75, "rim": 0.5}, {"subject": "b", "core": 0.5}]
    better = [{**row, "core": row["core"] + 0.1} for row in rows]  # type: ignore[operator]
    training = {"config": {"held_out": ["a", "b"]}}
    mine = model("head", measured=rows, training=training)
    other = replace(mine, metadata=mine.metadata | {"name": "other", "measured": better})
    assert "mine is worse than other on the same images: 0.58 against 0.65" in doubt_about(
        mine, other
    )
    assert doubt_about(other, mine) == ""
    elsewhere = other.metadata | {"training": {"config": {"held_out": ["c"]}}}
    assert "was not compared" in doubt_about(mine, replace(other, metadata=elsewhere))


@pytest.mark.parametrize(
    "unknown",
    [
        model("enhancer"),
        enhancer(0.5, view={"depth": 1}),
        model("enhancer", training={"validation": [1]}, gradprom=[1]),
        model("enhancer", training={"validation": {"gain_db": "9", "shipped_gain_db": None}}),
    ],
    ids=["nothing", "another network", "no object", "no numbers"],
)
def test_a_model_that_was_not_compared_is_doubted(unknown: Bundle) -> None:
    said = "the model mine was not compared with mr on the same images"
    assert doubt_about(unknown, shipped_bundle("mr")) == said
