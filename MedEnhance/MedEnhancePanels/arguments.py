"""Checks of the arguments of MedEnhanceLogic."""

import os
from pathlib import Path

from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError


def checkNodes(**nodes):
    """Raise PanelError for anything but nodes; whether a node is suitable is checked later."""
    for name, value in nodes.items():
        if not hasattr(value, "GetClassName"):
            message = _("{name} is {value!r}, not a node").format(name=name, value=value)
            hint = _('Give a node, for example slicer.util.getNode("MRHead").')
            raise PanelError(message, hint, "input")


def checkPath(name, value):
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        message = _("{name} is {value!r}, not a path").format(name=name, value=value)
        raise PanelError(message, _("Give the path of a file."), "input")


def checkDestination(path, overwrite=False):
    """Return the full path of a volume to write; raises PanelError where it may not be written."""
    from MedEnhanceLib.errors import MedEnhanceError
    from MedEnhanceLib.io.formats import CONTAINER
    from MedEnhanceLib.jobs.files import check_outputs

    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    ending = CONTAINER if path.lower().endswith(CONTAINER) else ""
    try:
        check_outputs({"output": Path(path)}, ending=ending, overwrite=bool(overwrite))
    except MedEnhanceError as error:
        raise PanelError.fromException(error) from error
    return path


def checkedConfig(declaration, **options):
    """Make a configuration of the library; raises the library's error as PanelError."""
    from MedEnhanceLib.core.options import config_from_json
    from MedEnhanceLib.errors import ConfigError

    try:
        return config_from_json(declaration, options)
    except ConfigError as error:
        raise PanelError.fromException(error) from error
