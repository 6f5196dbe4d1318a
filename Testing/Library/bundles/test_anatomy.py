"""A model that learned from one part of the body is doubted where images say they show another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.bundles.anatomy import doubt_about
from MedEnhanceLib.bundles.doubt import doubts_in
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom import SegmentConfig, open_head_for
from MedEnhanceLib.hqg import EnhanceConfig
from MedEnhanceLib.jobs.kinds.enhance import enhance_volume
from MedEnhanceLib.runtime.progress import Event, Monitor


def _mr(body_part: str) -> Volume:
    voxels = np.random.default_rng(3).integers(0, 900, (2, 32, 32)).astype(np.int16)
    return Volume(voxels, modality="MR", origin=DicomOrigin("1.2", "1.3", (), body_part=body_part))


@pytest.mark.parametrize("part", ["", "BRAIN", "Head", "HEADNECK", "SKULL", "WHOLEBODY"])
def test_images_of_the_brain_or_of_nothing_told_are_not_doubted(part: str) -> None:
    head, doubt = open_head_for(_mr(part), SegmentConfig())
    assert head.anatomy == "brain"
    assert not doubt


def test_volumes_that_never_were_dicom_are_not_doubted() -> None:
    bundle = open_bundle("brain-tissue", kind="head", modality="MR")
    assert not doubt_about(bundle, replace(_mr(""), origin=None))


def test_a_leg_is_segmented_only_by_a_model_that_somebody_named() -> None:
    with pytest.raises(ModelError, match="EXTREMITY") as caught:
        open_head_for(_mr("EXTREMITY"), SegmentConfig())
    assert "--model brain-tissue" in caught.value.hint
    assert "--head brain-tissue" in caught.value.hint
    _, doubt = open_head_for(_mr("EXTREMITY"), SegmentConfig(model="brain-tissue"))
    assert "brain" in doubt
    assert "EXTREMITY" in doubt


def test_a_leg_is_refused_for_its_labels_before_it_is_enhanced() -> None:
    with pytest.raises(ModelError, match="EXTREMITY"):
        enhance_volume(_mr("EXTREMITY"), EnhanceConfig(), head=SegmentConfig(), monitor=Monitor())


def test_an_enhanced_leg_says_what_speaks_against_the_model() -> None:
    heard: list[Event] = []
    done = enhance_volume(_mr("LEG"), EnhanceConfig(), monitor=Monitor(heard.append))
    warnings = [event.fields["message"] for event in heard if event.kind == "warning"]
    assert any("LEG" in warning for warning in warnings)
    assert "LEG" in done.report["results"]["doubts"][0]["message"]
    assert doubts_in(done.report["results"]) == warnings
    assert "LEG" in done.volume.history[-1]
