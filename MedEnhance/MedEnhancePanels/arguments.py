"""Options of the library's declarations as the panel has them, and the checks of MedEnhanceLogic.

An option has the same meaning, default and range here as in its declaration; only its name is
written as Slicer does: bias_correction is biasCorrection.
"""

import dataclasses
import os
from pathlib import Path

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


def checkPath(name, value):
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        message = _("{name} is {value!r}, not a path").format(name=name, value=value)
        raise PanelError(message, _("Give the path of a file."), "input")


def camelCase(name):
    """bias_correction → biasCorrection"""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def checkDestination(path, overwrite=False):
    """The full path of a volume to write; raises PanelError where that cannot be, or may not."""
    from MedEnhanceLib.errors import MedEnhanceError
    from MedEnhanceLib.jobs.files import CONTAINER, check_outputs

    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    isContainer = path.lower().endswith(CONTAINER)
    try:
        check_outputs({"output": Path(path)}, container=isContainer, overwrite=bool(overwrite))
    except MedEnhanceError as error:
        raise PanelError.fromException(error) from error
    return path


def configOf(options, declaration, **values):
    """The JSON object of a declaration, checked; raises PanelError as the library's error says.

    options: an object with an attribute for each option; values: take precedence, by JSON name.
    """
    from MedEnhanceLib.core.options import config_from_json, options_of
    from MedEnhanceLib.errors import ConfigError

    names = {each.name: camelCase(each.name) for each in options_of(declaration)}
    fields = {name: getattr(options, own) for name, own in names.items() if hasattr(options, own)}
    try:
        return dataclasses.asdict(config_from_json(declaration, fields | values))
    except ConfigError as error:
        message = error.message
        for name, own in names.items():
            message = message.replace(name, own)
        raise PanelError(message, error.hint, error.code) from error


def optionsClass(name, declaration, base, **others):
    """A frozen dataclass of the options of a declaration, under the names of the panel.

    base: its methods. others: further fields with their defaults.
    """
    from MedEnhanceLib.core.options import options_of

    defaults = {camelCase(each.name): each.default for each in options_of(declaration)} | others
    fields = [
        (key, object, dataclasses.field(default=default)) for key, default in defaults.items()
    ]
    return dataclasses.make_dataclass(name, fields, bases=(base,), frozen=True)
