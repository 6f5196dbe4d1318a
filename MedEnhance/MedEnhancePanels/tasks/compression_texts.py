"""Texts about compression: estimate and result."""

import html

from slicer.i18n import tr as _

from MedEnhancePanels.nodes.cautions import bytesText, numberText


def estimateText(estimate, units=""):
    """The result of the job `estimate`, marked as an estimate."""
    quality = _("lossless")
    if estimate.get("max_error"):
        error = f"{numberText(estimate['max_error'])} {units}".strip()
        quality = _("largest error about {error}").format(error=error)
        if estimate.get("psnr") is not None:
            quality += _(", PSNR {psnr:.0f} dB").format(psnr=estimate["psnr"])
    return _(
        "Estimate: about {size}, {ratio:.1f} times smaller, {quality} (measured on {share:.0%} of"
        " the volume)."
    ).format(
        size=bytesText(estimate["file_bytes"]),
        ratio=estimate["ratio"],
        quality=quality,
        share=estimate["share"],
    )


def resultTable(result, units="", path=""):
    """What the job `compress` did, as a small table in rich text."""
    error, psnr = result.get("max_error"), result.get("psnr")
    rows = {
        _("Size"): _("{size} instead of {raw}").format(
            size=bytesText(result["file_bytes"]), raw=bytesText(result["raw_bytes"])
        ),
        _("Ratio"): _("{ratio:.1f} times smaller").format(ratio=result["ratio"]),
        _("Largest error"): f"{numberText(error)} {units}".strip()
        if error
        else _("none: every voxel is equal"),
        _("PSNR"): "" if psnr is None else _("{psnr:.1f} dB").format(psnr=psnr),
        _("Verified"): _("every voxel was decoded and compared"),
        _("Time"): _("{seconds:.1f} s").format(seconds=result["seconds"]),
        _("File"): path,
    }
    cells = "".join(
        f"<tr><td style='padding-right:8px'><b>{html.escape(name)}</b></td>"
        f"<td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
        if value
    )
    return f"<table>{cells}</table>"
