"""What is not a volume, or a damaged one, is refused with what, where and what to do."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as everybody calls it

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import DeviceMemoryError, InputError, OutputError
from MedEnhanceLib.io import load, save, tags


def refused(path: Path, match: str) -> InputError:
    with pytest.raises(InputError, match=match) as caught:
        load(path)
    assert path.name in caught.value.message, "the file is not named"
    assert caught.value.hint, "there is no remedy"
    return caught.value


@pytest.mark.parametrize(
    ("size", "says"), [(32767, "cut short"), (30000, "cut short or damaged"), (-1, "dim is")]
)
def test_sizes_that_the_file_cannot_hold_cost_no_memory(
    tmp_path: Path, ct: Volume, size: int, says: str
) -> None:
    path = tmp_path / ("a.nii.gz" if says.endswith("damaged") else "a.nii")
    save(ct, tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[42:48] = np.full(3, size, "<i2").tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    refused(path, says)


def test_volume_larger_than_memory_is_named(
    tmp_path: Path, ct: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    save(ct, tmp_path / "a.nii")
    monkeypatch.setattr("MedEnhanceLib.core.arrays.np.empty", fail)
    with pytest.raises(DeviceMemoryError, match=r"a\.nii.*GiB"):
        load(tmp_path / "a.nii")


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_damage_in_compressed_voxels_is_seen(tmp_path: Path, ending: str, head: Volume) -> None:
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(head.voxels), str(path), useCompression=True)
    assert np.array_equal(load(path, modality="MR").voxels, head.voxels)
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    refused(path, "damaged|cut short")


def test_unknown_ending_names_those_that_work(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert ".nii.gz" in refused(tmp_path / "a.png", r"\.png").hint
    (tmp_path / "noend").write_bytes(b"abc")
    refused(tmp_path / "noend", "noend")


_DEEP, _HUGE = "[" * 100_000 + "]" * 100_000, "1" + "0" * 400


@pytest.mark.parametrize(
    "fields",
    [
        f'"x": {_DEEP}',
        f'"frame_interval_s": {_HUGE}',
        f'"lossy": [["a", {_HUGE}]]',
        f'"geometry": {{"spacing_mm": [{_HUGE}, 1, 1], "origin_lps_mm": [0, 0, 0], '
        '"direction_lps": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}',
        '"DERIVED": ["\\u001b[2J\\ud800"]',
        '"frame_interval_s": NaN',
    ],
    ids=lambda fields: fields[:20],
)
def test_what_others_wrote_in_place_of_our_tags_harms_nothing(fields: str) -> None:
    found = tags.from_text('{"modality": "MR", ' + fields + "}")
    assert (found.frame_interval_s, found.geometry) == (None, None)
    assert found.history in ((), (r"\x1b[2J\ud800",))


def test_file_without_permission_is_named(
    tmp_path: Path, ct: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.nii"
    save(ct, path)

    def deny(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "open", deny)
    refused(path, "no permission to read")


def test_more_than_32767_voxels_along_an_axis_go_to_another_format(tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 1, 40000), np.uint8))
    with pytest.raises(OutputError, match="32767") as caught:
        save(volume, tmp_path / "a.nii")
    assert ".nrrd" in caught.value.hint
    save(volume, tmp_path / "a.nrrd")
    assert load(tmp_path / "a.nrrd").is_equal(volume)
