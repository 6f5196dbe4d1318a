"""Contract of file formats: what is saved comes back, and what is damaged is refused."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from contracts.volumes import AWKWARD, OBLIQUE, awkward, noisy, series
from MedEnhanceLib.core.manifest import with_roles, without_files
from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, InputError, MedEnhanceError, OutputError
from MedEnhanceLib.io import load, save
from MedEnhanceLib.io.formats import dialog_filter, written_format
from MedEnhanceLib.runtime.progress import Monitor

_TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")


def _extremes(kind: str) -> Volume:
    """Return a sequence with the smallest and largest numbers of a type."""
    limits = np.finfo(kind) if kind[0] == "f" else np.iinfo(kind)
    voxels = np.zeros((2, 3, 4, 5), kind)
    voxels.flat[:3] = limits.min, limits.max, limits.max
    return Volume(voxels, OBLIQUE, modality="OT")


class FormatTests:
    """Contract of every format that is written.

    Attributes:
        ending: of its files; a format with several has a class for each.
    """

    ending: ClassVar[str]

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Name a file."""
        return tmp_path / f"a{self.ending}"

    @pytest.fixture
    def volume(self) -> Volume:
        """Make a small CT with a history."""
        history = ("DERIVED: très ρ", "DERIVED: second step")
        volume = replace(awkward("i2", noisy("CT")), geometry=OBLIQUE, units="HU", history=history)
        return replace(volume, lossy=(Lossy("ISO_10918_1", 12.5), Lossy("MEDENHANCE_UCV", 3)))

    def refused(self, path: Path, match: str = ".") -> None:
        """Check that a file is refused by its name, with a remedy."""
        with pytest.raises(InputError, match=match) as caught:
            load(path)
        assert path.name in caught.value.message and caught.value.hint

    def test_every_volume_comes_back(self, path: Path) -> None:
        volumes = [awkward(kind, noisy("MR")) for kind in AWKWARD] + [*map(_extremes, _TYPES)]
        volumes += [replace(series("MR"), frame_interval_s=0.5), series("MR", 1)]
        for volume in volumes:
            save(volume, path, overwrite=True)
            back = load(path)
            assert np.array_equal(back.voxels, volume.voxels), volume
            assert back.geometry == volume.geometry, volume
            assert (back.shape, back.dtype) == (volume.shape, volume.dtype.newbyteorder("="))
            assert back.frame_interval_s == volume.frame_interval_s
            assert back.gradients == volume.gradients
            for place in path.parent.iterdir():  # the tables of the one before
                place.unlink()

    def test_meaning_and_history_come_back(self, path: Path, volume: Volume) -> None:
        save(volume, path)
        back = load(path)
        assert back.geometry == volume.geometry
        for field in ("modality", "units", "history", "lossy"):
            assert getattr(back, field) == getattr(volume, field), field
        endless = tuple(f"step {number} " + "x" * 100 for number in range(1000))
        save(replace(volume, history=endless), path, overwrite=True)
        kept = load(path).history
        assert kept[-1] == endless[-1] and "earlier steps" in kept[0] and len(kept) < 200

    def test_a_file_says_that_it_is_derived_and_is_the_same_each_time(
        self, path: Path, volume: Volume
    ) -> None:
        first, second = self._written(path, volume), self._written(path, volume)
        assert first == second
        plain = [gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw for raw in first]
        assert any(b"DERIVED" in raw[:2000] for raw in plain)

    def _written(self, path: Path, volume: Volume) -> list[bytes]:
        save(volume, path, overwrite=True)
        return [each.read_bytes() for each in sorted(path.parent.iterdir())]

    def test_not_a_number_is_neither_written_nor_read(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        voxels = np.zeros((5, 4, 3), np.float32)
        voxels[2, 1, 1], voxels[4, 0, 0], voxels[4, 1, 0] = np.nan, np.inf, -np.inf
        with pytest.raises(InputError, match="NaN"):
            save(Volume(voxels), path)
        assert list(path.parent.iterdir()) == []
        with monkeypatch.context() as unchecked:
            unchecked.setattr("MedEnhanceLib.io.volume_files.refuse_not_finite", lambda _: None)
            save(Volume(voxels), path)
        self.refused(path, "3 voxels are NaN or infinite, first in slice 2")

    def test_an_earlier_file_stays_without_overwrite_and_after_a_cancel(
        self, path: Path, volume: Volume
    ) -> None:
        before = self._written(path, volume)
        with pytest.raises(OutputError, match="exists"):
            save(volume.with_voxels(volume.voxels + 1), path)
        with pytest.raises(Cancelled):
            save(volume, path, overwrite=True, monitor=Monitor(cancel=lambda: True))
        assert [each.read_bytes() for each in sorted(path.parent.iterdir())] == before
        with pytest.raises(Cancelled):
            load(path, monitor=Monitor(cancel=lambda: True))

    def test_what_is_cut_or_something_else_is_refused(self, path: Path, volume: Volume) -> None:
        save(volume, path)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        self.refused(path, "cut short")
        for data in (b"", b"PK\3\4", whole[:20], np.random.default_rng(0).bytes(5000)):
            path.write_bytes(data)
            self.refused(path)

    def test_damage_gives_a_volume_or_a_clear_error(self, path: Path, volume: Volume) -> None:
        save(volume, path)
        whole, rng = path.read_bytes(), np.random.default_rng(0)
        for _ in range(60):
            broken = bytearray(whole)
            for place in rng.integers(0, 900, 3):
                broken[place : place + rng.integers(0, 3)] = rng.bytes(rng.integers(0, 3))
            path.write_bytes(broken)
            try:
                assert load(path, modality="OT").voxels.size > 0
            except MedEnhanceError as error:
                assert error.message and error.hint

    def test_names_of_files_are_hidden_in_what_is_passed_on(self, path: Path) -> None:
        assert without_files(f"the file Doe.J{path.name[1:].upper()} is large") == (
            "the file is large"
        )
        form = written_format(path)
        assert form is not None
        for ending in form.beside(series("MR")) if form.beside else ():
            text = with_roles(f"Doe.J{ending} is odd", {"input": Path(f"x/Doe.J{path.name[1:]}")})
            assert text == f"the input's {ending[1:]} file is odd"
        assert f"{form.name} (*{form.endings[0]}" in dialog_filter(self.ending)
