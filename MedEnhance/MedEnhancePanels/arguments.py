"""What scripts hand over to MedEnhanceLogic, checked before anything is computed."""

import math
import os

from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError


def checkNode(name, node):
    """Raise PanelError for what is no node at all; whether it can be worked on is asked later."""
    if not hasattr(node, "GetClassName"):
        raise PanelError(
            _("{name} is {value!r}, not a node").format(name=name, value=node),
            _('Give a node, for example slicer.util.getNode("MRHead").'),
            "input",
        )


def checkText(name, value):
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        _refuse(name, value, _("Give it as text."))


def checkPath(name, value):
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        message = _("{name} is {value!r}, not a path").format(name=name, value=value)
        raise PanelError(message, _("Give the path of a file."), "input")


def checkNumber(name, value):
    try:
        isNumber = not isinstance(value, str) and math.isfinite(value)
    except TypeError:
        isNumber = False
    if not isNumber:
        _refuse(name, value, _("Give a number."))


def checkCount(name, value):
    checkNumber(name, value)
    if value != int(value):
        _refuse(name, value, _("Give a whole number."))


def regionToJson(region):
    """A part of a volume as a job takes it: for each axis [start, stop], None, or "..." once.

    region: slices as numpy takes them, or pairs (start, stop) and None for each axis, slices first.
    """
    if region is None or region is ...:
        return None
    entries = [region] if isinstance(region, slice) else region
    if not isinstance(entries, (tuple, list)):
        _refuseRegion(region)
    return [_axisToJson(entry, region) for entry in entries]


def _axisToJson(entry, region):
    if entry is ...:
        return "..."
    if entry is None:
        return None
    if isinstance(entry, slice) and entry.step in (None, 1):
        entry = (entry.start, entry.stop)
    if not isinstance(entry, (tuple, list)) or len(entry) != 2:
        _refuseRegion(region)
    try:
        ends = [end if end is None else int(end) for end in entry]
    except (TypeError, ValueError):
        _refuseRegion(region)
    return None if ends == [None, None] else ends


def _refuseRegion(region):
    hint = _(
        "Give a pair (start, stop) or None for each axis, slices first: ((40, 60), None, None)."
    )
    _refuse("region", region, hint)


def _refuse(name, value, hint):
    message = _("{name} is {value!r}").format(name=name, value=value)
    raise PanelError(message, hint, "config")
