"""Texts about compression: estimate, result, and what a file lost."""

import html

from slicer.i18n import tr as _

from MedEnhancePanels.nodes.cautions import bytesText, numberText


def estimateText(estimate, units=""):
    """The result of the job `estimate`, marked as an estimate."""
    size = _("Estimate: about {size}, {ratio:.1f} times smaller").format(
        size=bytesText(estimate["file_bytes"]), ratio=estimate["ratio"]
    )
    basis = _("from {blocks} blocks, {share:.0%} of the volume").format(
        blocks=estimate["blocks"], share=estimate["share"]
    )
    return f"{size}, {_qualityText(estimate, units)} ({basis})."


def resultTable(result, units="", path=""):
    """What the job `compress` did, as a small table in rich text."""
    exact = not result.get("max_error")
    rows = [
        (
            _("Size"),
            _("{size} instead of {raw}").format(
                size=bytesText(result["file_bytes"]), raw=bytesText(result["raw_bytes"])
            ),
        ),
        (_("Ratio"), _("{ratio:.1f} times smaller").format(ratio=result["ratio"])),
        (
            _("Largest error"),
            _("none: every voxel is equal")
            if exact
            else f"{numberText(result['max_error'])} {units}".strip(),
        ),
        (_("PSNR"), _psnrText(result)),
        (_("Verified"), _("every voxel was decoded and compared")),
        (_("Time"), _("{seconds:.1f} s").format(seconds=result["seconds"])),
        (_("File"), path),
    ]
    cells = "".join(
        f"<tr><td style='padding-right:8px'><b>{html.escape(name)}</b></td>"
        f"<td>{html.escape(value)}</td></tr>"
        for name, value in rows
        if value
    )
    return f"<table>{cells}</table>"


def lossText(card):
    """What a lossy file lost; "" where every voxel is as it was."""
    return "" if _isExact(card) else _boundText(card)


def _isExact(card):
    return card["mode"] == "lossless" or card["measured"].get("max_error") == 0


def _boundText(card):
    units = card["units"]
    measured, psnr = card["measured"].get("max_error"), card["measured"].get("psnr_db")
    if _isExact(card):
        return _("Lossless: every voxel is restored exactly.")
    if card["mode"] == "max_error":
        return (
            _("Lossy: the error of every voxel is at most {value} {units}")
            .format(value=numberText(card["promise"]["max_error"]), units=units)
            .strip()
            + "."
        )
    return _("Lossy: compressed {ratio} times; the largest error is {value} {units}").format(
        ratio=numberText(card["promise"].get("ratio", round(card["ratio"], 1))),
        value="?" if measured is None else numberText(measured),
        units=units,
    ).strip() + ("." if psnr is None else _(", PSNR {psnr:.1f} dB.").format(psnr=psnr))


def _qualityText(figures, units):
    if not figures.get("max_error"):
        return _("lossless")
    error = (
        _("largest error about {value} {units}")
        .format(value=numberText(figures["max_error"]), units=units)
        .strip()
    )
    psnr = figures.get("psnr")
    return (
        error if psnr is None else _("{error}, PSNR {psnr:.0f} dB").format(error=error, psnr=psnr)
    )


def _psnrText(result):
    return "" if result.get("psnr") is None else _("{psnr:.1f} dB").format(psnr=result["psnr"])
