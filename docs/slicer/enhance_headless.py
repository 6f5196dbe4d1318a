"""Enhance one volume without a window.

Slicer --no-splash --no-main-window --python-script enhance_headless.py -- INPUT OUTPUT [options]
"""

import argparse
import sys
from pathlib import Path

import slicer

COMPRESSED, SEGMENTATION = ".ucv", ".seg.nrrd"


def parseArguments(words):
    """The options, as docs/slicer/headless.md lists them."""
    parser = argparse.ArgumentParser(prog="enhance_headless.py", description="Enhance a volume.")
    parser.add_argument("input", help="a volume that Slicer opens, or a .ucv")
    parser.add_argument("output", help=".nii.gz, .nrrd, .mha, or .ucv for a compressed file")
    parser.add_argument("--modality", choices=["MR", "CT"], help="where the file does not say it")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--segmentation", help="find structures too, and write them (.seg.nrrd)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    return parser.parse_args(words)


def checkOutputs(arguments):
    """Before minutes are spent: what could not be written after them, or replaces what exists."""
    from MedEnhancePanels.arguments import checkDestination

    named = {name: getattr(arguments, name) for name in ("input", "output", "segmentation")}
    paths = {name: str(Path(path).expanduser().resolve()) for name, path in named.items() if path}
    vars(arguments).update(paths)
    if len(set(paths.values())) < len(paths):
        raise OSError("Input and outputs are the same file. Give each output a name of its own.")
    checkDestination(arguments.output, arguments.overwrite)
    if arguments.segmentation:
        checkSegmentation(arguments.segmentation, arguments.overwrite)


def checkSegmentation(path, overwrite):
    """Segments with names, colors and codes: only one format holds them all."""
    if not path.lower().endswith(SEGMENTATION):
        raise OSError(f"{path} does not end in {SEGMENTATION}. Use that ending.")
    if not Path(path).parent.is_dir():
        raise OSError(f"The folder {Path(path).parent} does not exist. Create it first.")
    for each in (path, f"{path}.json"):
        if Path(each).exists() and not overwrite:
            raise OSError(f"{each} exists. Add --overwrite to replace it.")


def load(path):
    """The volume node; a compressed file is not among what loadVolume takes."""
    from MedEnhance import MedEnhanceLogic

    if path.lower().endswith(COMPRESSED):
        return MedEnhanceLogic().decompress(path)
    return slicer.util.loadVolume(path)


def enhance(arguments):
    """The enhanced volume node."""
    from MedEnhance import MedEnhanceLogic
    from MedEnhancePanels.runner import wait

    volume = load(arguments.input)
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
    """Save a volume as the ending of the path says; the file says that it is derived."""
    from MedEnhance import MedEnhanceLogic

    if path.lower().endswith(COMPRESSED):
        MedEnhanceLogic().compress(node, path, lossless=True, overwrite=arguments.overwrite)
    else:
        MedEnhanceLogic().save(node, path, overwrite=arguments.overwrite)
    print(f"wrote {path}", flush=True)


def writeSegmentation(node, path):
    """Save the segments, and beside them the manifest, which their file has no room for."""
    from MedEnhancePanels.nodes import provenance

    if not slicer.util.saveNode(node, path):
        raise OSError(f"{path} could not be written. Is there room, and may you write there?")
    provenance.writeManifest(node, path)
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
            writeSegmentation(found, arguments.segmentation)
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
