"""Previews as jobs: what is written, what stays in memory, and when it does not."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.jobs.conftest import brain

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.files import KeptVolumes, VolumeParams
from MedEnhanceLib.runtime.progress import Event

KEPT = KeptVolumes()


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    KEPT.__init__()  # type: ignore[misc]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read."""
    names: list[str] = []
    real = VolumeParams.load

    def counted(params: VolumeParams, *places: Any) -> Volume:
        names.append(Path(params.input).name)
        return real(params, *places)

    monkeypatch.setattr(VolumeParams, "load", counted)
    return names


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    io.save(brain(5), tmp_path / "scan.nrrd")
    return tmp_path / "scan.nrrd"


def _preview(scan: Path, slices: list[int] | None = None, **params: Any) -> Volume:
    output = scan.with_name("better.nrrd")
    config = {"device": "cpu", **params.pop("config", {})}
    fields = {"input": str(scan), "output": str(output), "config": config, "overwrite": True}
    if slices is not None:
        fields["slices"] = slices
    return io.load(run_job(JobSpec("enhance", fields | params), kept=KEPT)["outputs"]["output"])


def test_previews_hold_their_slices_in_place_and_read_the_file_once(
    scan: Path, reads: list[str]
) -> None:
    first = _preview(scan, [3, 5])
    assert first.shape == (2, 48, 44)
    assert np.array_equal(_preview(scan, [4, 5]).voxels, first.voxels[1:])
    whole = _preview(scan)
    assert np.array_equal(whole.voxels[3:5], first.voxels)
    assert first.geometry.is_close(whole.geometry.cropped((3, 0, 0)))
    assert reads == ["scan.nrrd"]


def test_a_preview_of_a_region_holds_its_voxels_in_place(scan: Path) -> None:
    slices = _preview(scan, [3, 5])
    part = _preview(scan, [3, 5], rows=[8, 30], columns=[20, 44])
    assert np.array_equal(part.voxels, slices.voxels[:, 8:30, 20:44])
    assert part.geometry.is_close(slices.geometry.cropped((0, 8, 20)))


def test_a_draft_comes_first_in_an_event_alone_and_changes_no_bit(scan: Path) -> None:
    box: dict[str, Any] = {"slices": [3, 5], "rows": [8, 30], "columns": [20, 44]}
    exact, files = _preview(scan, **box), {*scan.parent.iterdir()}
    events: list[Event] = []

    def note(event: Event) -> None:
        assert event.kind != "draft" or {*scan.parent.iterdir()} == files
        events.append(event)

    output = str(scan.with_name("better.nrrd"))
    params = {"input": str(scan), "output": output, "overwrite": True, "draft": True, **box}
    run_job(JobSpec("enhance", params), progress=note, kept=KEPT)
    assert np.array_equal(io.load(output).voxels, exact.voxels)
    assert {*scan.parent.iterdir()} == files
    (draft,) = (event.fields for event in events if event.kind == "draft")
    voxels = np.frombuffer(base64.b64decode(draft["voxels"]), draft["dtype"])
    voxels = voxels.reshape(draft["shape"]).astype(float)
    before = io.load(scan).voxels[3:5, 8:30, 20:44]
    removed, missing = (np.std(each - exact.voxels) for each in (before, voxels))
    assert 0 < missing < 0.5 * removed
    fractions = [event.fields["fraction"] for event in events if event.kind == "progress"]
    assert fractions == sorted(fractions)


def test_a_cancel_during_the_draft_ends_the_job(scan: Path) -> None:
    fields = {"input": str(scan), "output": str(scan.with_name("better.nrrd")), "draft": True}
    events: list[Event] = []
    with pytest.raises(Cancelled):
        run_job(
            JobSpec("enhance", fields | {"slices": [3, 5]}),
            progress=events.append,
            cancel=lambda: any(event.kind == "draft" for event in events),
        )
    assert events[-1].kind == "draft"
    assert not scan.with_name("better.nrrd").exists()


def test_a_volume_is_measured_ahead_of_its_previews(
    scan: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _preview(scan, [3, 5])
    KEPT.__init__()  # type: ignore[misc]
    events: list[Event] = []
    job = JobSpec("noise", {"input": str(scan)})
    run_job(job, progress=events.append, kept=KEPT)
    assert {event.kind for event in events} <= {"started", "progress", "log", "result"}
    assert events[-1].fields["noise"]["sigma"] > 0
    monkeypatch.setattr("MedEnhanceLib.denoise.decide.noise_of", None)  # not called any more
    link = scan.with_name("link.nrrd")
    link.hardlink_to(scan)
    assert np.array_equal(_preview(link, [3, 5]).voxels, expected.voxels)
    assert reads == ["scan.nrrd", "scan.nrrd"]


def test_a_file_that_changed_is_read_again(scan: Path, reads: list[str]) -> None:
    first = _preview(scan, [3, 4])
    state = scan.stat()
    io.save(brain(9), scan, overwrite=True)
    assert scan.stat().st_size == state.st_size
    os.utime(scan, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    second = _preview(scan, [3, 4])
    assert len(reads) == 2
    assert not np.array_equal(first.voxels, second.voxels)
    KEPT.__init__()  # type: ignore[misc]
    assert np.array_equal(_preview(scan, [3, 4]).voxels, second.voxels)


@pytest.mark.slow
def test_of_a_sequence_one_frame_is_shown(tmp_path: Path) -> None:
    frames = [brain(1), brain(2)]
    sequence = replace(frames[0], voxels=np.stack([frame.voxels for frame in frames]))
    scan = tmp_path / "scan.nrrd"
    io.save(sequence, scan)
    whole = _preview(scan)
    assert whole.shape == (2, 8, 48, 44)
    assert np.array_equal(_preview(scan, [2, 4]).voxels, whole.voxels[0, 2:4])
    assert np.array_equal(_preview(scan, [2, 4], frame=1).voxels, whole.voxels[1, 2:4])
    assert np.array_equal(_preview(scan, frame=1).voxels, whole.voxels[1])
    with pytest.raises(InputError, match="frame 2"):
        _preview(scan, [2, 4], frame=2)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"slices": [1]}, "slices is"),
        ({"draft": True}, "slices is missing"),
        ({"slices": [0, 1], "segment": True}, "segment"),
        ({"slices": [0, 1], "report": "page"}, "report"),
        ({"slices": [0, 99]}, "not within the volume's 8 slices"),
        ({"slices": [0, 1], "rows": [40, 49]}, "not within the volume's 48 rows"),
        ({"slices": [0, 1], "rows": [0, 9], "dicom": True}, "dicom takes whole slices"),
        ({"slices": [0, 1], "config": {"correct_bias_field": True}}, "N4"),
    ],
)
def test_what_a_preview_cannot_be_is_refused(
    scan: Path, params: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        _preview(scan, **params)
    assert not scan.with_name("better.nrrd").exists()
