"""Enhance one volume without a window.

Slicer --no-splash --no-main-window --python-script enhance_headless.py -- INPUT OUTPUT [options]
"""

import argparse
import sys
from pathlib import Path

import slicer


def parseArguments(words):
    """The options, as docs/slicer/headless.md lists them."""
    parser = argparse.ArgumentParser(prog="enhance_headless.py", description="Enhance a volume.")
    parser.add_argument("input", help="a volume that Slicer opens")
    parser.add_argument("output", help=".nii.gz, .nrrd, .mha, or .ucv for a compressed file")
    parser.add_argument("--modality", choices=["MR", "CT"], help="where the file does not say it")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--segmentation", help="find structures too, and write them (.seg.nrrd)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    return parser.parse_args(words)


def checkOutputs(arguments):
    """Before minutes are spent: nothing that exists is replaced unasked."""
    for path in (arguments.output, arguments.segmentation):
        if path and Path(path).exists() and not arguments.overwrite:
            raise FileExistsError(f"{path} exists. Add --overwrite to replace it.")


def enhance(arguments):
    """The enhanced volume node."""
    from MedEnhance import MedEnhanceLogic
    from MedEnhancePanels.runner import wait

    volume = slicer.util.loadVolume(arguments.input)
    if arguments.modality:
        volume.SetAttribute("MedEnhance.modality", arguments.modality)
    job = MedEnhanceLogic().enhance(
        volume,
        model=arguments.model,
        segment=bool(arguments.segmentation),
        device=arguments.device,
        wait=False,
    )
    job.onEvent(showProgress)
    return wait(job).nodes["output"]


def showProgress(job, name, fields):
    """One line for each new stage and each tenth of the way."""
    if name == "warning":
        print(f"warning: {fields['message']}", flush=True)
    step = (job.stage, int(job.fraction * 10))
    if name == "progress" and step != showProgress.last:
        showProgress.last = step
        print(f"{job.fraction:4.0%} {job.stage}", flush=True)


showProgress.last = None


def write(node, path, arguments):
    """Save a node as the ending of the path says."""
    if path.endswith(".ucv"):
        from MedEnhance import MedEnhanceLogic

        MedEnhanceLogic().compress(node, path, lossless=True, overwrite=arguments.overwrite)
    elif not slicer.util.saveNode(node, path):
        raise OSError(f"{path} could not be written. Is the folder there, and is there room?")
    print(f"wrote {path}", flush=True)


def main(words):
    """Exit status: 0 done, 1 failed; argparse ends with 2."""
    from MedEnhancePanels.errors import PanelError

    arguments = parseArguments(words)
    try:
        checkOutputs(arguments)
        better = enhance(arguments)
        write(better, arguments.output, arguments)
        if arguments.segmentation:
            found = better.GetNodeReference("MedEnhance.segmentation")
            write(found, arguments.segmentation, arguments)
    except (PanelError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    status = 1
    try:
        status = main([word for word in sys.argv[1:] if word != "--"])
    except SystemExit as usage:  # argparse has said what is wrong
        status = int(usage.code or 0)
    finally:  # whatever happened: without a window, nobody could close this Slicer
        slicer.util.exit(status)
