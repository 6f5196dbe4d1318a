"""Contract of segmenters, through the Python API and by the methods of `Segmenter`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from Library.storages import SOME, restored, stored

from contracts.volumes import awkward, noisy, series
from MedEnhanceLib import gradprom
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.labels import Segmentation
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, InputError, MedEnhanceError
from MedEnhanceLib.gradprom import SegmentConfig
from MedEnhanceLib.gradprom.segmenters import Segmenter, open_segmenter, segmenter_class
from MedEnhanceLib.runtime.progress import Monitor


class SegmenterTests:
    """Contract of every segmenter; the fixture `config` names a model of the kind.

    Attributes:
        kind: of the segmenter, in SEGMENTERS.
        modality: of the volumes.
    """

    kind: ClassVar[str]
    modality: ClassVar[str] = "MR"

    @pytest.fixture
    def volume(self) -> Volume:
        """Make a volume that is as large as a head."""
        return replace(noisy(self.modality), geometry=Geometry((4, 4, 8)))

    @pytest.fixture
    def segmenter(self, config: SegmentConfig, volume: Volume) -> Segmenter:
        """Open the segmenter."""
        return open_segmenter(volume, config, Monitor())

    def segmented(self, volume: Volume, config: SegmentConfig) -> Segmentation:
        """Segment a volume, whether it is like the training images or not."""
        return gradprom.segment(volume, replace(config, device="cpu", force_segmenter=True))

    @pytest.mark.parametrize(
        "kind", ["one slice", "one row", "odd sides", "one voxel", ">i2", "f8", "negative",
                 "anisotropic", "strided", "constant", "air", "padded"],
    )  # fmt: skip
    def test_labels_are_on_the_grid_or_the_volume_is_refused(
        self, volume: Volume, config: SegmentConfig, kind: str
    ) -> None:
        volume = awkward(kind, volume)
        try:
            result = self.segmented(volume, config)
        except MedEnhanceError as error:
            assert error.message and error.hint
            assert kind in ("constant", "one voxel"), error
            return
        labels = result.volume
        assert (labels.shape, labels.dtype, labels.modality) == (volume.shape, np.uint8, "SEG")
        assert labels.geometry == volume.geometry
        assert set(np.unique(labels.voxels)) <= {0, *(label.value for label in result.labels)}
        assert [row["label"] for row in result.table] == [label.name for label in result.labels]
        assert all(0 <= row.get("quality", 0) <= 1 for row in result.table)
        if result.uncertainty is not None:
            spread = result.uncertainty
            assert (spread.shape, spread.geometry) == (volume.shape, volume.geometry)
            assert spread.voxels.min() >= 0 and spread.voxels.max() <= 1

    def test_labels_do_not_depend_on_the_run_or_on_the_order_of_axes(
        self, volume: Volume, config: SegmentConfig
    ) -> None:
        first = self.segmented(volume, config).volume.voxels
        assert np.array_equal(self.segmented(volume, config).volume.voxels, first)
        other = self.segmented(stored(volume, SOME[2]), config).volume.voxels
        assert np.array_equal(restored(other, SOME[2]), first)

    def test_not_a_number_and_sequences_are_refused(
        self, volume: Volume, config: SegmentConfig
    ) -> None:
        voxels = volume.voxels.copy()
        voxels[2, 3, 4] = np.nan
        with pytest.raises(InputError, match="NaN"):
            self.segmented(replace(volume, voxels=voxels), config)
        with pytest.raises(InputError, match="frames") as caught:
            self.segmented(series(self.modality), config)
        assert caught.value.hint

    def test_a_cancelled_run_stops(self, segmenter: Segmenter, volume: Volume) -> None:
        with pytest.raises(Cancelled):
            segmenter.segment(volume.canonical(), "cpu", Monitor(cancel=lambda: True))

    def test_it_states_what_it_is(self, segmenter: Segmenter, volume: Volume) -> None:
        assert isinstance(segmenter, segmenter_class(self.kind))
        assert segmenter.name and segmenter.origin and segmenter.modality == self.modality
        values = [label.value for label in segmenter.labels]
        assert len({*values}) == len(values) > 0
        assert all(0 < value < 256 for value in values)
        assert {"name", "sha256"} <= set(json.loads(json.dumps(segmenter.identity())))
        texts = (segmenter.anatomy, *segmenter.limits, *segmenter.warnings)
        assert all(isinstance(text, str) for text in (*texts, segmenter.compare(volume).difference))
