#!/usr/bin/env python-real
"""MedEnhance as a command line module of Slicer: `medenhance enhance`, in Slicer's words.

    MedEnhanceCLI.py --xml
    MedEnhanceCLI.py [--modality MR] [--model NAME] [--task T] [--device D] INPUT OUTPUT

Slicer, and what runs its command line modules, read MedEnhanceCLI.xml, and progress from stdout.
"""

import sys
import tempfile
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_XML = _HERE / "MedEnhanceCLI.xml"


def _find_library():
    """Let Python find the library: among Slicer's scripted modules, or in a clone.

    A build tree of several configurations has a folder for each.
    """
    modules = "qt-scripted-modules"
    for folder in (_HERE.parent / modules, _HERE.parents[1] / modules, _HERE.parent):
        if (folder / "MedEnhanceLib").is_dir():
            sys.path.insert(0, str(folder))
            return


def _arguments(given):
    """The parameters by name; the XML file says what each is."""
    import argparse

    parser = argparse.ArgumentParser(prog="MedEnhanceCLI")
    for name in ("modality", "model", "task", "device"):
        parser.add_argument(f"--{name}", default="auto")
    for name in ("input", "output"):
        parser.add_argument(name)
    return vars(parser.parse_args(given))


def _show(event):
    """Progress as Slicer reads it."""
    if event.kind == "progress":
        print(f"<filter-progress>{event.fields['fraction']:.4f}</filter-progress>")
        print(f"<filter-comment>{event.fields['stage']}</filter-comment>", flush=True)
    elif event.kind == "warning":
        print(f"warning: {event.fields['message']}", file=sys.stderr, flush=True)


def _enhance(params, output):
    """Run the job; the output alone is left, and replaces what was there.

    Slicer gives every run of a node the same temporary name, and reads nothing but that file.
    """
    from MedEnhanceLib.io.atomic import atomic_write
    from MedEnhanceLib.jobs import JobSpec, run_job
    from MedEnhanceLib.jobs.files import check_outputs

    check_outputs({"output": output}, inputs=[Path(params["input"])], overwrite=True)
    with tempfile.TemporaryDirectory(prefix="medenhance-", dir=output.parent) as folder:
        made = Path(folder, output.name)
        run_job(JobSpec("enhance", {**params, "output": str(made)}), _show)
        with atomic_write(output, overwrite=True) as temporary:
            made.replace(temporary)


def main(given):
    """Enhance a volume; the exit status: 0, or that of the error, as of `medenhance`."""
    if given == ["--xml"]:
        print(_XML.read_text(encoding="utf-8"))
        return 0
    values = _arguments(given)
    _find_library()
    from MedEnhanceLib.errors import MedEnhanceError

    modality = values.pop("modality")
    params = {"input": values.pop("input"), "config": values}
    output = Path(values.pop("output"))
    if modality != "auto":
        params["modality"] = modality
    print("<filter-start><filter-name>MedEnhance</filter-name></filter-start>", flush=True)
    try:
        _enhance(params, output)
    except MedEnhanceError as error:
        print(f"{error.message}. {error.hint}", file=sys.stderr)
        return error.exit_status
    print("<filter-progress>1</filter-progress>")
    print("<filter-end><filter-name>MedEnhance</filter-name></filter-end>", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
