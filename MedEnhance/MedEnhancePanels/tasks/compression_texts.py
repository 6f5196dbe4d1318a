"""Texts about compression: estimate, result, and what a file contains."""

import html

from slicer.i18n import tr as _

from MedEnhancePanels.nodes.card import bytesText, modalityName, numberText


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


def cardText(card):
    """The card of a compressed file in a few sentences."""
    shape = card["shape"]
    spacing = " × ".join(numberText(value) for value in card["spacing"])
    size = " × ".join(str(count) for count in reversed(shape[-3:]))
    frames = _(", {frames} frames").format(frames=card["frames"]) if len(shape) == 4 else ""
    lines = [
        _("{modality}, {size} voxels{frames}, {spacing} mm.").format(
            modality=modalityName(card["modality"]), size=size, frames=frames, spacing=spacing
        ),
        _("{file} on disk, {raw} in memory ({ratio:.1f} times smaller).").format(
            file=bytesText(card["file_bytes"]), raw=bytesText(card["bytes"]), ratio=card["ratio"]
        ),
        _boundText(card),
    ]
    if card["missing"]:
        lines.append(
            _("It cannot be opened here: {what} is missing.").format(
                what=", ".join(card["missing"])
            )
        )
    return "\n".join(lines)


def differenceText(largest, units=""):
    """What the difference view found."""
    if not largest:
        return _("No voxel of the file differs from the volume.")
    return (
        _("The largest difference is {value} {units}")
        .format(value=numberText(largest), units=units)
        .strip()
        + "."
    )


def lostText(report):
    """What could not be recovered of a damaged file."""
    lost = len(report.get("lost") or [])
    if not lost:
        return _("Everything could be read.")
    if lost == 1:
        text = _("1 of {blocks} blocks could not be read and holds the lowest value.")
    else:
        text = _("{count} of {blocks} blocks could not be read and hold the lowest value.")
    return text.format(count=lost, blocks=report["blocks"])


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
