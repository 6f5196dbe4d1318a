"""What a user of the panel waits for: opening, previews, and how long Slicer does not answer.

    python Testing/Benchmarks/panel.py            512×512×300 from a real CT, writes results
    python Testing/Benchmarks/panel.py --quick    512×512×24, writes runs/benchmarks

Runs in Testing/SlicerHost: real MRML, real Qt, the real worker, no Slicer around them. The longest
pause is the longest time between two ticks of a timer that is due every 2 ms, while the page works.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write

_SOURCE = "ct/abdomen/CT.nii.gz"
_SIDE = 512
Row = dict[str, Any]


def main() -> None:
    """Measure, then write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a thin volume, results in runs/")
    options = parser.parse_args()
    sys.path[:0] = [str(REPOSITORY / "Testing"), str(REPOSITORY)]
    from SlicerHost import boot, modules

    if reason := boot.missing():
        sys.exit(reason)
    boot.start()
    modules.load(REPOSITORY / "MedEnhance/MedEnhance.py")
    slices = 24 if options.quick else 300
    rows = measure(slices)
    shown = {row["what"]: row for row in rows}
    gates = [
        gate("opening the module (s)", shown["open the module"]["seconds"], "< 0.5",
             shown["open the module"]["seconds"] < 0.5),
        gate("preview, worker warm, same volume (s)", shown["preview of another slice"]["seconds"],
             "≤ 2", shown["preview of another slice"]["seconds"] <= 2),
        gate("longest pause of Slicer (s)", max(row["pause"] for row in rows[1:]), "< 0.25",
             max(row["pause"] for row in rows[1:]) < 0.25),
        gate("cancel (s)", shown["cancel during Apply"]["seconds"], "≤ 2",
             shown["cancel during Apply"]["seconds"] <= 2),
    ]  # fmt: skip
    folder = REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS
    write("panel", gates=gates, rows=rows, seeds=[], folder=folder)


def measure(slices: int) -> list[Row]:
    """Go through the page Enhance and Compress with one volume; a row for each step."""
    import slicer

    began = time.perf_counter()
    widget = slicer.util.getModuleWidget("MedEnhance")
    rows = [{"what": "open the module", "seconds": time.perf_counter() - began, "pause": 0.0}]
    widget.enter()
    slicer.util.reloadScriptedModule("MedEnhance")
    widget = slicer.util.getModuleWidget("MedEnhance")
    widget.enter()
    runner = widget.context.runner
    node = slicer.util.addVolumeFromArray(_voxels(slices), name="CT")
    node.SetSpacing(0.75, 0.75, 1.0)
    node.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    panel = widget.panels["enhance"]
    ui = panel.ui

    def step(what: str, begin: Callable[[], None], ended: Callable[[], bool]) -> None:
        rows.append({"what": what, **_timed(begin, ended)})
        print(rows[-1], flush=True)

    def idle() -> bool:
        return panel.job is None

    def choose() -> None:
        widget.showPage("enhance")
        widget.ui.inputSelector.setCurrentNode(node)

    step("choose the volume", choose, lambda: not runner.activeJobs())
    runner.shutdown()
    step("first preview, worker cold", ui.previewButton.click, idle)
    ui.previewButton.click()
    _moveSlice(node, slices // 3)
    step("preview of another slice", ui.previewButton.click, idle)
    ui.previewButton.click()
    ui.applyButton.click()
    job = panel.job
    _timed(lambda: None, lambda: job.reached and job.fraction > 0.1)
    step("cancel during Apply", widget.ui.jobCancelButton.click, idle)
    step("Apply", ui.applyButton.click, idle)
    output = panel.context.state.enhancedVolume or node
    assert slicer.util.arrayFromVolume(output).shape[0] == slices
    compress = widget.panels["compress"].ui
    step(
        "estimate of a compression",
        lambda: widget.showPage("compress"),
        lambda: compress.estimateLabel.text.startswith("Estimate:"),
    )
    runner.shutdown()
    return rows


def _timed(begin: Callable[[], None], ended: Callable[[], bool], limit: float = 900) -> Row:
    """Seconds until `ended`, and the longest time without a turn of the event loop."""
    import qt
    import slicer

    ticks = [time.perf_counter()]
    pause = [0.0]

    def tick() -> None:
        now = time.perf_counter()
        pause[0], ticks[0] = max(pause[0], now - ticks[0]), now

    timer = qt.QTimer()
    timer.timeout.connect(tick)
    timer.start(2)
    began = time.perf_counter()
    begin()
    while not ended():
        slicer.app.processEvents()
        time.sleep(0.001)
        if time.perf_counter() - began > limit:
            raise TimeoutError(f"not done within {limit} s")
    tick()
    timer.stop()
    return {"seconds": time.perf_counter() - began, "pause": pause[0]}


def _moveSlice(node: Any, index: int) -> None:
    """Let the axial view show another slice of the volume."""
    import slicer

    ras = [0.0, 0.0, 0.0, 1.0]
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    matrix.MultiplyPoint([_SIDE / 2, _SIDE / 2, index, 1.0], ras)
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.JumpSliceByOffsetting(*ras[:3])


def _voxels(slices: int) -> np.ndarray:
    """A CT of 512 × 512 × slices, tiled from a real one; from noise where that is not there."""
    source = SHARED_DATA / _SOURCE
    if source.is_file():
        from MedEnhanceLib.io import load

        part = load(source).voxels
    else:
        part = np.random.default_rng(0).normal(0, 40, (32, 256, 256)).astype(np.int16)
    repeats = [
        -(-size // have) for size, have in zip((slices, _SIDE, _SIDE), part.shape, strict=True)
    ]
    return np.tile(part, repeats)[:slices, :_SIDE, :_SIDE].astype(np.int16)


if __name__ == "__main__":
    main()
