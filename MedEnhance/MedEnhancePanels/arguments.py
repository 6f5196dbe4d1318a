"""Options of the library's declarations as the panel has them, and the checks of MedEnhanceLogic.

An option has the same meaning, default and range here as in its declaration; only its name is
written as Slicer does: bias_correction is biasCorrection.
"""

import dataclasses
import inspect
import os
import types

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


def fieldsOf(options, declaration):
    """What an object has of the options of a declaration, by JSON name."""
    from MedEnhanceLib.core.options import options_of

    names = {one.name: camelCase(one.name) for one in options_of(declaration)}
    return {name: getattr(options, own) for name, own in names.items() if hasattr(options, own)}


def configOf(options, declaration, **values):
    """The JSON object of a declaration, checked; raises PanelError as the library's error says.

    options: an object with an attribute for each option; values: take precedence, by JSON name.
    """
    from MedEnhanceLib.core.options import config_from_json, config_to_json
    from MedEnhanceLib.errors import ConfigError

    fields = fieldsOf(options, declaration) | values
    try:
        return config_to_json(config_from_json(declaration, fields))
    except ConfigError as error:
        raise PanelError(_asHere(error.message, fields), error.hint, error.code) from error


def _asHere(message, fields):
    for name in fields:
        message = message.replace(name, camelCase(name))
    return message


def optionsClass(name, declaration, base, first=(), only=(), **others):
    """A frozen dataclass of the options of a declaration, under the names of the panel.

    base: its methods. only: some of the options. first: (name, default) of fields before, others:
    of fields after them.
    """
    from MedEnhanceLib.core.options import options_of

    chosen = [one for one in options_of(declaration) if not only or one.name in only]
    own = [(camelCase(one.name), one.default) for one in chosen]
    fields = [
        (key, object, dataclasses.field(default=default))
        for key, default in [*first, *own, *others.items()]
    ]
    return dataclasses.make_dataclass(name, fields, bases=(base,), frozen=True)


class OptionsAsKeywords:
    """Gives a method of MedEnhanceLogic the options of a class of `optionsClass` as keywords.

    They are looked up at the first use: Slicer's start must not import the library.
    The method is called as method(self, node, …, options, **others). options: a function that
    returns the class. order: names that may be given by position, after the others without default.
    others: keywords of the method itself, with their defaults; ... for a positional one.
    """

    def __init__(self, options, order=(), **others):
        self._options, self._order, self._others = options, order, others
        self._method = self._call = None

    def __call__(self, method):
        self._method, self.__doc__ = method, method.__doc__
        return self

    def __get__(self, logic, owner=None):
        if self._call is None:
            self._call = self._withSignature()
        return self._call if logic is None else types.MethodType(self._call, logic)

    def _withSignature(self):
        method, others, options = self._method, self._others, self._options()
        signature = self._signature(options)

        def call(self, *values, **named):
            bound = signature.bind(self, *values, **named)
            bound.apply_defaults()
            given = dict(bound.arguments)
            own = {name: given.pop(name) for name in ("self", *others)}
            return method(own.pop("self"), options=options(**given), **own)

        call.__name__, call.__doc__ = method.__name__, method.__doc__
        call.__signature__ = signature
        return call

    def _signature(self, options):
        kinds, order, others = inspect.Parameter, self._order, self._others
        required = [n for n, default in others.items() if default is ...]
        fields = {field.name: field.default for field in dataclasses.fields(options)}
        keywords = {n: fields[n] for n in fields if n not in order}
        keywords |= {n: default for n, default in others.items() if default is not ...}
        return inspect.Signature(
            [
                *(kinds(n, kinds.POSITIONAL_OR_KEYWORD) for n in ("self", *required)),
                *(kinds(n, kinds.POSITIONAL_OR_KEYWORD, default=fields[n]) for n in order),
                *(kinds(n, kinds.KEYWORD_ONLY, default=v) for n, v in keywords.items()),
            ]
        )


def describe(widget, declaration, name, scale=1):
    """Give a widget the range of an option, and its description as tool tip where it has none.

    scale: what the widget shows of 1: 100 for a share in percent.
    """
    from MedEnhanceLib.core.options import option_of

    one = option_of(declaration, name)
    isWhole = not hasattr(widget, "decimals")
    step = 1 if isWhole else 10.0**-widget.decimals
    about = one.about
    if hasattr(widget, "maximum"):
        for end, bound, margin in (
            ("minimum", about.low, 0),
            ("minimum", about.above, step),
            ("maximum", about.high, 0),
            ("maximum", about.below, -step),
        ):
            if bound is not None:
                value = bound * scale + margin
                setattr(widget, end, round(value) if isWhole else value)
    if not widget.toolTip:
        widget.toolTip = one.description


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
