"""One declaration for each option: a field of a frozen dataclass, with its type, default and range.

    @dataclass(frozen=True, kw_only=True)
    class SmoothConfig(Options):
        width: float = option(1.5, help="of the kernel", low=0.1, high=10, unit="mm")

Derived from it: the check with its error text, JSON both ways, the flags of the command line
(`cli.parser`), the keywords of the Python API (`api.takes`), and fields and widgets of the panel
(MedEnhancePanels/state.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import inspect
import math
import operator
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from MedEnhanceLib.errors import ConfigError, InputError

C = TypeVar("C")
PathLike = str | os.PathLike[str]

_KEY = "option"
#: A plain type → what its values are instances of, and its name in help texts.
_KINDS: dict[Any, tuple[type, str]] = {
    str: (str, "text"),
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    dict: (Mapping, "an object"),
    Mapping: (Mapping, "an object"),
    list: (list, "a list"),
    tuple: (tuple, "a list"),
}
#: Ends of a range: field of `About`, its text, the comparison that a value must pass.
_ENDS = (
    ("low", "{} or more", operator.ge),
    ("above", "more than {}", operator.gt),
    ("high", "at most {}", operator.le),
    ("below", "less than {}", operator.lt),
)
#: NUL, and lone surrogates except those that stand for a byte of a file name.
_NOT_IN_PATHS = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
#: The scheme of a URL; two letters or more, as a drive of Windows has one. One slash is enough:
#: pathlib turns two into one.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
#: Largest seed: the largest whole number that JSON keeps exactly.
LARGEST_SEED = 2**53
#: Characters allowed in the name of a model or of a distilled set.
NAMES = "at most 64 letters, digits, - and _"


def shown(value: Any) -> str:
    """Write a value for a message, at most 300 characters; of an array or volume its shape."""
    if shape := getattr(value, "shape", None):
        return f"{type(value).__name__} of shape {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a folder on every system."""
    return re.fullmatch(r"[\w-]{1,64}", text) is not None


def local_path(place: PathLike, name: str = "the path") -> Path:
    """Return the path of a file or folder on this machine.

    Raises ConfigError for an empty path, InputError for what is no path and for a URL (`https://…`,
    `s3://…`); the message has its scheme only, as the rest may hold a secret.
    """
    if not isinstance(place, str | os.PathLike):
        raise InputError(f"{name} is {shown(place)}: not a path", "Give text or a pathlib.Path.")
    text = os.fspath(place)
    if not text:  # pathlib would take the current folder
        raise ConfigError(f"{name} is empty", "Name a file.")
    if scheme := _SCHEME.match(text):
        raise InputError(
            f"{name} is an address ({scheme[1]}://…), not a file on this machine",
            "Download the file or mount the storage first, and name the path; copy results there "
            "afterwards.",
        )
    return Path(text)


@dataclass(frozen=True, kw_only=True)
class About:
    """Help, range and flag of an option.

    Attributes:
        help: one sentence without its range and default, which are appended.
        low, high: ends of the range of a number, of each in a list; both allowed. above, below:
            ends that are not allowed.
        multiple: the value is a multiple of it.
        unit: of a number, for example "mm".
        metavar: what stands for the value in help texts.
        flag: on the command line: "" is its name (`--slice-spacing`); "--force" that flag;
            "INPUT" a positional argument; None nothing.
        one_of: exactly one option with the same word here is to be chosen.
        items: fewest and most items of a list.
        is_name: text that becomes the name of a folder.
        place: of a job's parameter that names files or folders: "input" for one that is read,
            "output" for a volume that is written, "table" for a .csv or a picture, "folder" for a
            folder of results.
    """

    help: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    multiple: int | None = None
    unit: str = ""
    metavar: str | None = None
    flag: str | None = ""
    one_of: str = ""
    items: tuple[int, int] = (0, 100_000)
    is_name: bool = False
    place: Literal["", "input", "output", "table", "folder"] = ""


def option(default: Any = MISSING, *, factory: Any = MISSING, **about: Any) -> Any:
    """Return a field of a declaration; the keywords are those of `About`.

    A required one is declared as `Annotated[str, About(…)]`, so that type checkers know it.
    """
    metadata = {_KEY: About(**about)}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


@dataclass(frozen=True)
class Option:
    """One field of a declaration as everybody reads it.

    Attributes:
        hint: its type without None and words.
        words: text that a number may be instead, like "auto".
    """

    name: str
    hint: Any
    default: Any
    about: About
    is_optional: bool
    words: tuple[str, ...] = ()

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a Literal; empty for other types."""
        return get_args(self.hint) if get_origin(self.hint) is Literal else ()

    @property
    def kind(self) -> Any:
        """The plain type: str, bool, int, float, tuple, list, dict or a class."""
        return type(self.choices[0]) if self.choices else get_origin(self.hint) or self.hint

    @property
    def is_object(self) -> bool:
        """Whether the value is a declaration, or another dataclass, itself."""
        return dataclasses.is_dataclass(self.kind)

    @property
    def range_text(self) -> str:
        """The allowed numbers: "0 to 1.5", "1 or more", "more than 0 and less than 1"."""
        about = self.about
        if about.low is not None and about.high is not None:
            text = f"{_digits(about.low)} to {_digits(about.high)}"
        else:
            ends = [(words, getattr(about, end)) for end, words, _ in _ENDS]
            text = " and ".join(
                words.format(_digits(end)) for words, end in ends if end is not None
            )
        return f"{text} {about.unit}".strip() if text else ""

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""
        if self.choices:
            return _either([str(choice) for choice in self.choices])
        text = NAMES if self.about.is_name else allowed_text(self.hint)
        if self.range_text and fits("", self.hint):
            other = "a file" if "FILE" in (self.about.metavar or "") else "text"
            text = f"{self.range_text} or {other}"
        elif self.range_text:
            text = self.range_text if self.kind is float else f"{text} of {self.range_text}"
        if self.about.multiple:
            text += f", a multiple of {self.about.multiple}"
        return _either([*self.words, text])

    @property
    def description(self) -> str:
        """The help text with range and default, on one line."""
        text = self.about.help
        if self.range_text:
            text += f", {_either([*self.words, self.range_text])}"
        has_text = isinstance(self.default, int | float | str | tuple) and self.kind is not bool
        if self.is_required or not has_text or self.default in ("", ()):
            return text
        default = f"{self.default:g}" if isinstance(self.default, float) else self.default
        return f"{text} (default: {default})"

    def converted(self, value: Any) -> Any:
        """Convert a value that was read from JSON to the type of the field; paths become text."""
        if isinstance(value, Mapping) and self.is_object:
            if issubclass(self.kind, WithPresets):
                return self.kind.from_json(value)
            # A partial object states the differences from the default of this field.
            default = {} if self.default in (MISSING, None) else dataclasses.asdict(self.default)
            return config_from_json(self.kind, merged(self.kind, default, value))
        if self.hint is Any or self.is_object:
            return value
        value = in_their_case(_plain(value, self.kind), (*self.choices, *self.words))
        is_number_or_text = fits(0.0, self.hint) and (self.words or fits("", self.hint))
        if is_number_or_text and isinstance(value, str) and value not in self.words:
            with contextlib.suppress(ValueError):
                return float(value)
        return value

    def check(self, value: Any) -> None:
        """Raise ConfigError for a value that is not allowed."""
        if (value is None and self.is_optional) or (isinstance(value, str) and value in self.words):
            return
        if not (fits(value, self.hint) and self._is_allowed(value)):
            is_free = self.kind is str and not (self.choices or self.about.is_name)
            if is_free and isinstance(value, str):
                what = f"{value!r}: an invalid path" if value else "empty"
                raise ConfigError(f"{self.name} is {what}", "Correct it, or leave it out.")
            hint = f"{did_you_mean(value, map(str, self.choices))}Use {self.allowed}."
            raise ConfigError(f"{self.name} is {shown(value)}, not allowed", hint)

    def _is_allowed(self, value: Any) -> bool:
        """Return whether a number is in range, or a text a name or path; of a list all items."""
        if isinstance(value, list | tuple):
            fewest, most = self.about.items
            return fewest <= len(value) <= most and all(map(self._is_allowed, value))
        if isinstance(value, str) and self.about.is_name:
            return is_name(value)
        if isinstance(value, str):
            return not _NOT_IN_PATHS.search(value) and (value != "" or self.default == "")
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if self.hint is Any or not is_number:
            return True
        ends = [(getattr(self.about, end), holds) for end, _, holds in _ENDS]
        return (
            all(end is None or holds(value, end) for end, holds in ends)
            and -math.inf < value < math.inf
            and not (self.about.multiple and value % self.about.multiple)
        )


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all declarations: values are checked when one is made."""

    def __post_init__(self) -> None:
        for option in options_of(type(self)):
            value = getattr(self, option.name)
            changed = option.converted(value)
            if changed is not value:
                object.__setattr__(self, option.name, changed)
            option.check(changed)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the declaration of a JSON object; see `config_from_json`."""
        return config_from_json(cls, fields)

    def to_json(self) -> dict[str, Any]:
        """Return the declaration as a JSON object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class WithPresets(Options):
    """A declaration with named sets of values: `preset` in its JSON names one (default: cpu).

    Attributes:
        PRESETS: by name, a JSON object with what differs from the defaults.
        MINUTES: by name, about how long it takes on two cores; of full, from steps and size alone.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]]
    MINUTES: ClassVar[Mapping[str, float]]

    @classmethod
    def preset(cls, name: str, /, **fields: Any) -> Self:
        """Return one of PRESETS; the other arguments replace its values."""
        return cls.from_json({"preset": name, **fields})

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the preset, updated by a JSON object; see `config_from_json`."""
        changes = {name: value for name, value in fields.items() if name != "preset"}
        return config_from_json(cls, merged(cls, cls.preset_fields(fields), changes))

    @classmethod
    def preset_fields(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values of the preset that `fields` names; ConfigError if it is unknown."""
        name = in_their_case(fields.get("preset", "cpu"), cls.PRESETS)
        if name not in tuple(cls.PRESETS):
            hint = f"Use one of {', '.join(cls.PRESETS)}."
            raise ConfigError(f"unknown preset {name!r}", hint)
        return cls.PRESETS[name]


@dataclass(frozen=True, kw_only=True)
class Params(Options):
    """Parameters of a job; paths in them are on this machine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in options_of(type(self)):
            value = getattr(self, option.name) if option.about.place else None
            for place in value if isinstance(value, list) else [value] if value else []:
                local_path(place, option.name)


def options_of(cls: Any) -> tuple[Option, ...]:
    """Return the options of a declaration, or of any dataclass, in order."""
    return _options_of(cls)


@functools.cache
def _options_of(cls: Any) -> tuple[Option, ...]:  # for type checkers, a class is not Hashable
    hints = _hints_of(cls)
    return tuple(
        _option(entry, hints[entry.name], _about(cls, entry.name))
        for entry in dataclasses.fields(cls)
    )


@functools.cache
def _hints_of(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _about(cls: Any, name: str) -> About:
    """Return the `About` of an option; a subclass that declares it anew inherits the rest."""
    about, unstated = About(), vars(About())
    for base in reversed(cls.__mro__):
        if name in inspect.get_annotations(base):
            entry = base.__dataclass_fields__[name]
            declared = [*getattr(_hints_of(base)[name], "__metadata__", ())]
            for each in declared or [entry.metadata.get(_KEY, About())]:
                stated = {key: v for key, v in vars(each).items() if v != unstated[key]}
                about = dataclasses.replace(about, **stated)
    return about


def option_of(cls: Any, name: str) -> Option:
    """Return one option of a declaration."""
    return next(option for option in options_of(cls) if option.name == name)


def _digits(number: float) -> str:
    """Write an end of a range: "10,000,000", "0.25", "1e+30"."""
    return f"{number:,.16g}" if abs(number) < 1e16 else f"{number:g}"


def _plain(value: Any, kind: Any) -> Any:
    """Convert paths, and numbers of numpy or PyTorch, to what JSON takes; lists to `kind`."""
    if isinstance(value, list | tuple) and kind in (list, tuple):
        return kind(_plain(each, kind) for each in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _option(entry: dataclasses.Field[Any], hint: Any, about: About) -> Option:
    if get_origin(hint) is typing.Annotated:
        hint = get_args(hint)[0]
    members = get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else ()
    is_optional = types.NoneType in members
    rest = [member for member in members if member is not types.NoneType]
    words: tuple[str, ...] = ()
    if len(rest) == 2 and get_origin(rest[1]) is Literal:  # a number or a word
        words, rest = get_args(rest[1]), rest[:1]
    default = entry.default
    if not entry.init or entry.default_factory is not MISSING:
        default = None if entry.default_factory is MISSING else entry.default_factory()
    return Option(
        entry.name,
        typing.Union[tuple(rest)] if rest else hint,  # noqa: UP007 - made of a list
        default,
        about,
        is_optional or hint is Any,
        words,
    )


def config_from_json(cls: type[C], fields: Mapping[str, Any], owner: str = "") -> C:
    """Make a declaration, or any dataclass, of a JSON object.

    Lists become tuples, and objects the dataclasses of their fields.

    Args:
        cls: the dataclass.
        fields: the JSON object.
        owner: its name in error messages.
    Raises ConfigError for an unknown or a missing key, and for a value that is not allowed.
    """
    owner = owner or cls.__name__
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{owner} is {shown(fields)}", "Give an object with its options.")
    options = {option.name: option for option in options_of(cls)}
    check_names(owner, fields, options)
    missing = [name for name, each in options.items() if each.is_required and name not in fields]
    if missing:
        raise ConfigError(f"{owner} lacks {', '.join(missing)}", f"It has: {', '.join(options)}.")
    values = {name: options[name].converted(value) for name, value in fields.items()}
    if not issubclass(cls, Options):  # those check themselves
        for name, value in values.items():
            options[name].check(value)
    return cls(**values)


def check_fields(cls: type, fields: Mapping[str, Any]) -> None:
    """Raise ConfigError for a value in a JSON object that its declaration does not allow."""
    for option in options_of(cls):
        if option.name in fields:
            value = fields[option.name]
            if isinstance(value, Mapping) and option.is_object:
                check_fields(option.kind, value)
            else:
                option.check(option.converted(value))


def merged(cls: type, base: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON object `base` of a declaration, updated by `fields`.

    A field that is itself a declaration is updated field by field.
    """
    parts = {}
    for option in options_of(cls):
        below, above = base.get(option.name), fields.get(option.name)
        if option.is_object and isinstance(below, Mapping) and isinstance(above, Mapping):
            parts[option.name] = merged(option.kind, below, above)
    return {**base, **fields, **parts}


def shared(cls: Any, options: Options) -> dict[str, Any]:
    """Return the values of `options` for the fields of the declaration `cls` that it extends."""
    return {option.name: getattr(options, option.name) for option in options_of(cls)}


def check_names(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError for the first unknown name, with the most similar known one.

    Args:
        owner: of the names, for the message.
        given: names to check.
        known: names that `owner` has.
    """
    names = list(known)
    for name in given:
        if name not in names:
            raise ConfigError(
                f"{owner} has no option {name!r}",
                f"{did_you_mean(name, names)}It has: {', '.join(names) or 'none'}.",
            )


def in_their_case(value: Any, names: Iterable[Any]) -> Any:
    """Return the name that a text equals except for its case ("mr" is MR), else the value."""
    if isinstance(value, str):
        for name in names:
            if isinstance(name, str) and name.casefold() == value.casefold():
                return name
    return value


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Return the sentence "Did you mean …? " with the nearest of `known`; "" where none is near."""
    names = {name.lstrip("-").casefold(): name for name in known}  # options share the hyphens
    # --noise-map is not near enough to --noise.
    near = difflib.get_close_matches(str(given).lstrip("-").casefold(), names, n=1, cutoff=0.75)
    return f"Did you mean {names[near[0]]}? " if near else ""


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless `value` is a number and low ≤ value ≤ high.

    Args:
        name: of the value, for the message.
        value: the value.
        low: smallest allowed.
        high: largest allowed.
    """
    Option(name, float, MISSING, About(low=low, high=high), is_optional=False).check(value)


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a type; items of lists and objects are checked too."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Any or getattr(kind, "_is_protocol", False):  # judged where it is used
        return True
    if kind in (types.UnionType, typing.Union):
        return any(fits(value, member) for member in inner)
    if kind is Literal:
        return value in inner and isinstance(value, bool) == isinstance(inner[0], bool)
    if kind in (str, bool, int, float):
        return isinstance(value, _KINDS[kind][0]) and isinstance(value, bool) == (kind is bool)
    if kind is tuple and isinstance(value, tuple) and inner:
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if kind is list and isinstance(value, list) and inner:
        return all(fits(item, inner[0]) for item in value)
    if kind in (dict, Mapping) and isinstance(value, Mapping) and inner:
        return all(fits(item, inner[1]) for item in value.values())
    return not isinstance(kind, type) or isinstance(value, kind)


def allowed_text(hint: Any) -> str:
    """Describe a type: "text", "a list, each a whole number or null"."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (types.UnionType, typing.Union):
        return _either(list(dict.fromkeys(map(allowed_text, inner))))
    if kind is types.NoneType:
        return "null"
    if kind in (tuple, list) and inner:
        count = f" of {len(inner)}" if kind is tuple and inner[1:] != (...,) else ""
        return f"a list{count}, each {allowed_text(inner[0])}"
    if kind is Literal:
        return _either(list(map(str, inner)))
    if dataclasses.is_dataclass(kind):
        return "an object"
    return _KINDS[kind][1] if kind in _KINDS else f"a {getattr(kind, '__name__', kind)}"


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
