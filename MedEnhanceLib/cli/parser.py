"""Parsers of the commands; their options are made from the jobs' declarations."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, get_args

from MedEnhanceLib.core.options import Option, did_you_mean, in_their_case, options_of
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.json_input import parse_json
from MedEnhanceLib.runtime.registry import member_at

#: The type that `add_subparsers` returns; argparse has no public name for it.
Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


#: Options that say how the input is read; a command that is proposed repeats them.
_HOW_INPUT_IS_READ = ("series", "modality", "resample", "complete_frames")
#: What users of other programs type → the command.
_SYNONYMS = {"denoise": "enhance", "filter": "enhance", "superres": "enhance", "info": "inspect"}


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError instead of leaving, and takes no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self._given: list[str] = []

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse as argparse does, but refuse unknown arguments, as the options are known here."""
        self._given = list(args or ())
        parsed, rest = super().parse_known_args(args, namespace)
        for word in rest:
            if word.startswith("-"):
                self._refuse_option(word)
        if rest:
            self.error(f"unexpected arguments: {' '.join(rest)}")
        return parsed, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            meant = _SYNONYMS.get(str(value).casefold(), value)
            hint = f"{did_you_mean(meant, action.choices)}See: {self.prog} --help"
            raise ConfigError(f"there is no command {value}", hint)
        super()._check_value(action, value)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Take choices in any case, as the declarations do (`Option.converted`)."""
        known = list(action.choices or ())
        # What follows a command are its own arguments: a folder Demo is not the command demo.
        count = 1 if isinstance(action, argparse._SubParsersAction) else len(arg_strings)
        named = [in_their_case(text, known) for text in arg_strings[:count]]
        return super()._get_values(action, named + arg_strings[count:])

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError for wrong usage, most likely a misspelled option."""
        if self._subparsers is None:
            for option in (word.partition("=")[0] for word in self._given):
                if re.match(r"--|-.*\.[a-z]", option) and option not in self._options():
                    self._refuse_option(option)
        for option, value in pairwise(self._given):
            if option in self._options() and value not in self._options() and value[:1] == "-":
                raise ConfigError(message, f"Join what begins with a hyphen: {option}={value}")
        raise ConfigError(message, f"See: {self.prog} --help")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Leave after help or the version; OSError if stdout did not take it."""
        print(end="", flush=True)
        super().exit(status, message)

    def _options(self) -> list[str]:
        return [text for action in self._actions for text in action.option_strings]

    def _refuse_option(self, word: str) -> NoReturn:
        option = word.partition("=")[0]
        hint = f"{did_you_mean(option, self._options())}See: {self.prog} --help"
        if re.search(r"\.[a-z]", option):
            hint = f"A name that begins with - is written ./{word}"
        raise ConfigError(f"there is no option {option}", hint)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command; as a rule it runs the job of its name and has the options that this declares.

    Attributes:
        name: of the command.
        summary: in the list of commands; empty where a `LateCommand` has it.
        description: in its own help.
        example: a line that works.
        declare: adds its options where they are not those of the job.
        extra: adds options that the job does not declare.
        params: the job's parameters, where options are more than its fields.
        lines: what people read of the job's result.
        run: what is done instead of running the job and showing these lines.
    """

    name: str
    summary: str = ""
    description: str
    example: str
    declare: Callable[[Parser], None] | None = None
    extra: Callable[[Parser], None] | None = None
    params: Callable[[argparse.Namespace], dict[str, Any]] | None = None
    lines: Callable[[dict[str, Any]], list[str]] | None = None
    run: Callable[[argparse.Namespace], int] | None = None

    def add_to(self, subparsers: Subparsers, *, with_options: bool = True) -> None:
        """Make its parser; without options for the list of all commands, which must be instant."""
        parser = subparsers.add_parser(
            self.name,
            help=self.summary,
            description=self.description,
            epilog=f"example:\n  {self.example}",
        )
        if with_options:
            (self.declare or self._declare_job)(parser)
        add_common(parser, default=argparse.SUPPRESS)
        parser.set_defaults(run=self.run or self._run_job)

    def _declare_job(self, parser: Parser) -> None:
        add_flags(parser, declaration_of(self.name))
        if self.extra is not None:
            self.extra(parser)

    def _run_job(self, args: argparse.Namespace) -> int:
        params = self.params(args) if self.params else params_of(args, declaration_of(self.name))
        fields = args.console.run(self.name, params)
        return int(args.console.report(fields, "\n".join(self.lines(fields) if self.lines else ())))


@dataclass(frozen=True)
class LateCommand:
    """A command whose module is imported when it is asked for.

    Attributes:
        name: of the command.
        summary: in the list of commands.
        place: of the `Command`, "module:member".
    """

    name: str
    summary: str
    place: str

    def add_to(self, subparsers: Subparsers, *, with_options: bool = True) -> None:
        """Make its parser, as `Command.add_to` does."""
        if with_options:
            command: Command = replace(member_at(self.place), summary=self.summary)
            command.add_to(subparsers)
        else:
            subparsers.add_parser(self.name, help=self.summary)


def declaration_of(job: str) -> Any:
    """Return the dataclass of a job's parameters."""
    from MedEnhanceLib.jobs.job import JOBS

    return JOBS[job].params


def add_flags(parser: Parser, declaration: Any, *, only: Collection[str] = ()) -> None:
    """Add an option for each field of a declaration, those of the declarations in it too.

    Positional arguments first, then its own options, then those that it inherits.

    Args:
        parser: changed in place.
        declaration: a dataclass whose fields are made by `option`.
        only: names of fields; empty for all. A declaration in it is added as a whole.
    """
    groups: dict[str, argparse._MutuallyExclusiveGroup] = {}
    for option in _in_order(declaration):
        about = option.about
        if about.flag is None or (only and option.name not in only):
            continue
        if option.is_object:
            add_flags(parser, option.kind)
        elif about.one_of:
            group = groups.get(about.one_of) or parser.add_mutually_exclusive_group(required=True)
            groups[about.one_of] = group
            group.add_argument(*_names(option), **_argument(option))
        else:
            parser.add_argument(*_names(option), **_argument(option))


def params_of(args: argparse.Namespace, declaration: Any) -> dict[str, Any]:
    """Return the JSON object of a declaration with the values on the command line."""
    params: dict[str, Any] = {}
    for option in options_of(declaration):
        if option.about.flag is None:
            continue
        value = getattr(args, option.name, None)
        if option.is_object:
            value = params_of(args, option.kind) or None
        if value is not None:
            params[option.name] = dict(value) if option.kind is dict else value
    return params


def _in_order(declaration: Any) -> list[Option]:
    def rank(option: Option) -> tuple[bool, bool, bool, int]:
        bases = enumerate(declaration.__mro__)
        owner = next(n for n, base in bases if option.name in inspect.get_annotations(base))
        is_positional = _is_positional(option)
        is_last = option.about.flag == "--force"
        return not is_positional, option.name != "input", is_last, 0 if is_positional else owner

    return sorted(options_of(declaration), key=rank)


def _is_positional(option: Option) -> bool:
    return bool(option.about.flag) and not str(option.about.flag).startswith("-")


def _names(option: Option) -> list[str]:
    if _is_positional(option):
        return [option.name]
    return [option.about.flag or f"--{option.name.replace('_', '-')}"]


def _argument(option: Option) -> dict[str, Any]:
    """Return the keywords of `add_argument` for an option; its default there is None."""
    fields: dict[str, Any] = {"default": None, "help": option.description.replace("%", "%%")}
    if _is_positional(option):
        fields |= {"metavar": option.about.flag, "nargs": None if option.is_required else "?"}
        return fields | ({"choices": option.choices} if option.choices else {})
    fields["dest"] = option.name
    if option.kind is bool:
        return fields | {"action": "store_true"}
    if option.kind in (list, dict):
        fields |= {"nargs": "+", "action": "extend"}
    elif option.kind is tuple:
        members = get_args(option.hint)
        fields["nargs"] = "+" if ... in members else len(members)
    if option.choices:
        fields["choices"] = option.choices
    return fields | {
        "type": reader(option),
        "metavar": option.about.metavar,
        "required": option.is_required,
    }


def reader(option: Option) -> Callable[[str], Any]:
    """Make the function that converts text of a command line to the value of an option."""
    kind = get_args(option.hint)[0] if option.kind in (list, tuple) else option.kind
    kind = kind if kind in (int, float) else str
    if option.kind is dict:
        return _pair

    def read(text: str) -> Any:
        text = in_their_case(text, (*option.choices, *option.words))
        if text in option.words:
            return text
        if option.choices and kind is str:
            option.check(text)  # suggests a near one, as argparse does not
        try:
            value = kind(text)
        except ValueError:
            option.check(text)  # raises the same error as for a number out of range
            raise
        if option.kind in (int, float):
            option.check(value)
        return value

    return read


def _pair(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, where the value may be JSON: a number, true, a list."""
    name, mark, value = text.partition("=")
    if not mark:
        raise ConfigError(f"{text} is not NAME=VALUE", "Give for example radius=2.")
    with contextlib.suppress(ValueError):
        value = parse_json(value)
    return name.replace("-", "_"), value


def add_common(parser: argparse.ArgumentParser, *, default: Any) -> None:
    """Add options that may stand before and after the command's name."""
    parser.add_argument(
        "--json", action="store_true", default=default, help="print one JSON object on stdout"
    )
    parser.add_argument(
        "--debug", action="store_true", default=default, help="show the traceback of an error"
    )


def typed(args: argparse.Namespace, *words: str) -> str:
    """Return a command on the same input that can be copied into a shell.

    args: of the command that was typed; its input, and how that is read, are kept.
    words: the command, then what follows the input.
    """
    command, *rest = words
    for option in options_of(declaration_of("inspect")):
        value = getattr(args, option.name, None)
        if option.name in _HOW_INPUT_IS_READ and value:
            rest += _names(option) if value is True else [*_names(option), str(value)]
    return shlex.join(["medenhance", command, args.input, *rest])


def repeated(args: argparse.Namespace, *words: str) -> str:
    """Return the command that was typed with further options, which replaces its output.

    args: of the command that was typed.
    words: the options, which prevail over the same ones before.
    """
    force = [] if getattr(args, "overwrite", False) else ["--force"]
    return shlex.join(["medenhance", *args.words, *force, *words])


def read_config(path: str | None) -> dict[str, Any]:
    """Read the JSON object in a configuration file, {} for none; ConfigError for anything else."""
    if path is None:
        return {}
    try:
        fields = parse_json(Path(path).read_bytes())
    except OSError as cause:
        raise ConfigError(
            f"{path} cannot be read: {cause.strerror}", "Name a JSON file that exists."
        ) from cause
    except ValueError as cause:
        raise ConfigError(f"{path} is not JSON: {cause}", "Correct the file.") from cause
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} does not hold a JSON object", 'Write {"option": value, …}.')
    return fields
