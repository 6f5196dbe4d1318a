"""The Python API on volumes in memory."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.volume import Volume


def test_saving_as_a_container_names_compress(head: Volume, tmp_path: Path) -> None:
    with pytest.raises(me.OutputError) as caught:
        me.save(head, tmp_path / "scan.ucv")
    assert "compress" in caught.value.hint


@pytest.mark.training
def test_no_call_takes_an_address(head: Volume, tmp_path: Path) -> None:
    address, out = "s3://KEY:s3cr3t@bucket/scan.ucv", str(tmp_path / "out")
    calls: list[Callable[[], object]] = [
        lambda: me.load(address),
        lambda: me.list_series(address),
        lambda: me.inspect(address),
        lambda: me.open(address),
        lambda: me.decompress(address),
        lambda: me.recover(address),
        lambda: me.enhance(address),
        lambda: me.save(head, address),
        lambda: me.save_dicom(head, address, patient_id="P-17"),
        lambda: me.compress(head, address, lossless=True),
        lambda: me.train("hqg", "cpu", address, out=out),
        lambda: me.train("hqg", "cpu", tmp_path, out=address),
        lambda: me.distill(address, out),
        lambda: me.evaluate("mr-slices", address),
    ]
    for call in calls:
        with pytest.raises(me.InputError, match="is an address") as caught:
            call()
        assert "s3cr3t" not in str(caught.value)


def test_what_is_no_path_is_refused_as_every_other_input(head: Volume, tmp_path: Path) -> None:
    for call in (me.load, me.list_series, me.open, me.decompress, me.recover, me.inspect):
        for place in (None, 7, b"scan.nii"):
            with pytest.raises(me.InputError, match=r"not a (path|volume)") as caught:
                call(place)  # type: ignore[operator]
            assert caught.value.hint
    for write in (me.save, partial(me.save_dicom, patient_id="P-17")):
        with pytest.raises(me.InputError, match="None: not a path"):
            write(head, None)  # type: ignore[operator]


@pytest.mark.parametrize("call", [me.enhance, me.segment])
@pytest.mark.parametrize("modality", [None, "OT"])
def test_nan_is_named_before_the_modality_that_it_hides(
    call: Callable[..., object], modality: str | None, head: Volume
) -> None:
    voxels = np.array(head, np.float32)
    voxels[3, 5, 5:7] = np.nan, -np.inf
    with pytest.raises(me.InputError, match="2 voxels are NaN or infinite, first in slice 3"):
        call(voxels, spacing=(1, 1, 1), modality=modality)


def test_a_refused_value_is_shown_in_short(head: Volume) -> None:
    for value, says in (
        (head, f"Volume of shape {head.shape}"),
        (np.zeros((8, 9)), "shape (8, 9)"),
    ):
        with pytest.raises(me.ConfigError, match=re.escape(says)) as caught:
            me.enhance(head, noise=value)  # type: ignore[arg-type]
        assert caught.value.hint == "Use more than 0 and at most 1e+18 or a file."
    for value in ([1] * 999, {"a": "b" * 999}):
        with pytest.raises(me.MedEnhanceError) as caught:
            me.enhance(head, device=value)  # type: ignore[arg-type]
        assert len(str(caught.value)) < 400
    with pytest.raises(me.GeometryError, match="Give 3 numbers above 0"):
        me.enhance(head.voxels, spacing=(1, 1, 0))


def test_an_unknown_modality_is_to_be_stated_in_words_of_python_too() -> None:
    for call in (me.enhance, me.segment):
        with pytest.raises(me.MedEnhanceError, match="the modality is unknown") as caught:
            call(np.zeros((8, 8, 8)), spacing=(1, 1, 1))
        assert "--modality MR or CT (modality= in Python)" in caught.value.hint
        assert caught.value.exit_status == 3  # models are there; the volume suits none


def test_inspect_states_the_same_of_a_volume_and_of_its_file(scan: Path) -> None:
    of_file = me.inspect(scan)
    of_volume = me.inspect(me.load(scan))
    assert of_volume.items() <= of_file.items()
    assert of_file["file_bytes"] == scan.stat().st_size
    json.dumps(of_file)


def test_cancel_may_be_an_event_or_a_function(head: Volume, tmp_path: Path) -> None:
    asked = threading.Event()
    asked.set()
    for cancel in (asked, lambda: True):
        with pytest.raises(me.Cancelled):
            me.save(head, tmp_path / "out.nii", cancel=cancel)
    assert not (tmp_path / "out.nii").exists()


@pytest.mark.parametrize("polls", [2, 5, 100])
def test_a_cancelled_save_leaves_no_file_and_a_finished_one_stays(
    head: Volume, tmp_path: Path, polls: int
) -> None:
    """Cancelled from the n-th question on; there are as many as slices, and one."""
    path, asked, small = tmp_path / "out.nii", itertools.count(1), head.crop(k=slice(0, 20))
    if polls < 20:
        with pytest.raises(me.Cancelled, match="Nothing was written"):
            me.save(small, path, cancel=lambda: next(asked) >= polls)
    else:
        me.save(small, path, cancel=lambda: next(asked) > 21)
    assert path.exists() == (polls >= 20)


def test_an_interrupt_stays_an_interrupt(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop over scans that skips failures must still end at Ctrl-C."""

    def interrupt(*_: object, **__: object) -> Volume:
        raise KeyboardInterrupt

    monkeypatch.setattr("MedEnhanceLib.io.volume_files.load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        me.load(scan)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "float32", "float64"])
def test_degrade_rounds_once_and_clips_to_the_type_of_its_input(kind: str) -> None:
    ramp = np.linspace(0, 255, 512).reshape(8, 8, 8)
    exact = me.degrade(ramp.astype(kind).astype(float), spacing=(1, 1, 1), bias=0.9, blur=1)
    worse = me.degrade(ramp.astype(kind), spacing=(1, 1, 1), bias=0.9, blur=1)
    assert worse.dtype == kind
    if worse.dtype.kind == "f":
        assert np.allclose(worse.voxels, exact.voxels, rtol=1e-6)
    else:
        limit = np.iinfo(kind).max
        assert exact.voxels.max() > 255
        assert np.array_equal(worse.voxels, np.clip(np.rint(exact.voxels), 0, limit))


def test_degrade_applies_its_keywords_in_the_order_given(scan: Path, head: Volume) -> None:
    before = head.voxels.copy()
    worse = me.degrade(head, blur=1, rician=0.1, seed=3)
    assert worse.geometry == head.geometry
    assert [note.split("(")[1].split()[0] for note in worse.history[-2:]] == ["blur", "rician"]
    assert worse.is_equal(me.degrade(scan, modality="MR", blur=1, rician=0.1, seed=3))
    assert not np.array_equal(worse.voxels, me.degrade(head, blur=1, rician=0.1, seed=4).voxels)
    assert np.array_equal(head.voxels, before)


def test_a_volume_becomes_a_derived_series_of_its_study(
    make_series: Callable, tmp_path: Path
) -> None:
    series = make_series((4, 10, 12), PatientID="P-17", FrameOfReferenceUID="1.2.3.99")
    (row,) = me.list_series(series)
    assert (row.number, row.modality, row.files, row.readable) == (1, "CT", 4, True)
    volume = me.load(series, series=row.number)
    files = me.save_dicom(volume, tmp_path / "out")
    assert sorted(files) == sorted((tmp_path / "out").iterdir())
    back = me.load(tmp_path / "out")
    assert back.is_equal(volume)
    assert volume.dicom_origin and back.dicom_origin
    assert back.dicom_origin.study == volume.dicom_origin.study
    assert back.dicom_origin.series != volume.dicom_origin.series
    with pytest.raises(me.OutputError, match="holds an earlier result"):
        me.save_dicom(volume, tmp_path / "out")
    from_file = replace(volume, dicom_origin=None)
    me.save_dicom(from_file, tmp_path / "beside", dicom_source=series)
    assert me.load(tmp_path / "beside").is_equal(from_file)
