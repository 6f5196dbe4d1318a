"""Contract of denoisers, through the Python API and by the methods of `Denoiser`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from contracts.volumes import AWKWARD, SIGMA, awkward, clean, noisy, series
from MedEnhanceLib import denoise
from MedEnhanceLib.core.options import options_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.denoisers import Denoised, Frames, Resources, denoiser_class, options_for
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.noise.estimate import noise_of
from MedEnhanceLib.runtime.progress import Monitor


class DenoiserTests:
    """Contract of every denoiser.

    Attributes:
        name: of the denoiser, in DENOISERS.
        modality: of the volumes.
        options: values for some options of the denoiser, other than the defaults; needed where it
            has any.
    """

    name: ClassVar[str]
    modality: ClassVar[str] = "MR"
    options: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def volume(self) -> Volume:
        """Make a volume; for a joint method a sequence."""
        return self.made(0)

    def made(self, seed: int) -> Volume:
        """Make the volume with noise of a seed."""
        is_joint = denoiser_class(self.name).is_joint
        return series(self.modality, seed=seed) if is_joint else noisy(self.modality, seed)

    def enhanced(self, volume: Volume, **fields: Any) -> Enhanced:
        """Enhance with the denoiser; `fields`: options of enhancement, and a part of the volume."""
        names = ("slices", "rows", "columns", "frame")
        part = {name: fields.pop(name) for name in names if name in fields}
        options: dict[str, Any] = {
            "strength": "full", "noise": SIGMA, "for_viewing": True,
            "denoiser_options": dict(self.options),
        }  # fmt: skip
        if volume.is_sequence:
            options["sequence"] = "joint" if denoiser_class(self.name).is_joint else "each"
        config = denoise.EnhanceConfig(denoiser=self.name, **(options | fields))
        return denoise.enhance(volume, config, **part)

    def denoised(self, volume: Volume, slices: slice, monitor: Monitor) -> Denoised:
        """Call the method itself on the slices of all frames of a volume."""
        resources = Resources(device="cpu", options=options_for(self.name, self.options))
        frames = volume.frames()
        numbers = range(len(frames))
        given = Frames(
            volumes=frames, noise=noise_of(frames[0]), numbers=numbers,
            slices=slices, usable=numbers, monitor=monitor,
        )  # fmt: skip
        return denoiser_class(self.name).prepared(resources).denoise(given)

    @pytest.mark.parametrize("kind", AWKWARD)
    def test_a_volume_keeps_shape_type_and_place_or_is_refused(
        self, volume: Volume, kind: str
    ) -> None:
        volume = awkward(kind, volume)
        try:
            result = self.enhanced(volume, noise=None).volume
        except MedEnhanceError as error:
            assert error.message and error.hint
            assert kind in ("constant", "one voxel"), error
            return
        assert (result.shape, result.dtype) == (volume.shape, volume.dtype)
        assert result.geometry == volume.geometry
        assert np.isfinite(result.voxels).all()

    def test_less_noise_is_left_and_each_run_gives_the_same(self, volume: Volume) -> None:
        other = self.made(10)
        first, second, third = (
            self.enhanced(each, denoiser_options={}) for each in (volume, volume, other)
        )
        assert np.array_equal(first.volume.voxels, second.volume.voxels)
        tissue, others = (
            [each.frames()[0].voxels[clean() > 0] for each in pair]
            for pair in ((volume, first.volume), (other, third.volume))
        )
        before, after = ((one - two).std() for one, two in zip(tissue, others, strict=True))
        assert after < 0.7 * before
        assert np.corrcoef(clean()[clean() > 0], tissue[1])[0, 1] > 0.5, "anatomy is gone"
        assert self.name in first.measured["denoiser"]
        assert json.loads(json.dumps(first.report)) == first.report

    def test_not_a_number_is_refused(self, volume: Volume) -> None:
        voxels = volume.voxels.copy()
        voxels[..., 2, 3, 4] = np.nan
        with pytest.raises(InputError, match="NaN"):
            self.enhanced(replace(volume, voxels=voxels))

    def test_slices_and_regions_equal_those_of_the_whole(self, volume: Volume) -> None:
        result = self.enhanced(volume, uncertainty=True)
        whole, maps = result.volume.voxels, result.uncertainty
        for start, stop in ((0, 1), (1, 3), (4, 5)):
            some = self.enhanced(volume, uncertainty=True, slices=(start, stop))
            assert np.array_equal(some.volume.voxels, whole[..., start:stop, :, :])
            assert maps and some.uncertainty
            assert np.array_equal(some.uncertainty.voxels, maps.voxels[..., start:stop, :, :])
        part = self.enhanced(volume, slices=(4, 5), rows=(3, 11), columns=(0, 7)).volume.voxels
        assert np.array_equal(part, whole[..., 4:5, 3:11, :7])

    def test_a_frame_equals_that_of_the_sequence(self) -> None:
        frames = series(self.modality)
        whole = self.enhanced(frames).volume
        assert (whole.shape, whole.gradients) == (frames.shape, frames.gradients)
        single = self.enhanced(frames, frame=2).volume
        assert np.array_equal(single.voxels, whole.voxels[2])

    def test_the_method_yields_the_requested_slices_of_all_frames_in_order(
        self, volume: Volume
    ) -> None:
        denoised = self.denoised(volume, slice(1, 4), Monitor())
        stops = dict.fromkeys(range(len(volume.frames())), 1)
        for part in denoised.parts:
            assert part.slices.start == stops[part.number]
            assert part.voxels.dtype == np.float32
            assert part.voxels.shape == (
                part.slices.stop - part.slices.start,
                *volume.voxels[..., 0, :, :][..., *part.region].shape[-2:],
            )
            stops[part.number] = part.slices.stop
        assert set(stops.values()) == {4}
        json.dumps(dict(denoised.facts))

    def test_a_cancelled_run_stops(self, volume: Volume) -> None:
        with pytest.raises(Cancelled):
            for _ in self.denoised(volume, slice(0, 5), Monitor(cancel=lambda: True)).parts:
                pass

    def test_options_of_another_method_are_refused_by_name(self, volume: Volume) -> None:
        declared = {each.name for each in options_of(denoiser_class(self.name).options)}
        assert declared >= set(self.options)
        assert self.options or not declared, f"give `options` a value for some of {declared}"
        if self.options:
            plain = self.enhanced(volume, denoiser_options={}).volume.voxels
            changed = not np.array_equal(self.enhanced(volume).volume.voxels, plain)
            assert changed, f"{self.options} changes nothing: are these the defaults?"
        with pytest.raises(ConfigError, match=f"{self.name} has no option 'unheard'"):
            self.enhanced(volume, denoiser_options={"unheard": 1})
