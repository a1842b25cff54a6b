"""Command options from dataclasses: names, types, defaults and help come from the fields (by tyro).

A tuple of numbers or names is written with commas (``--sigmas 0.005,0.4``), a tuple of paths and a mapping by repeating
the option (``--store A --store B``, ``--steps NAME=VALUE``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import io
import itertools
import operator
import re
import shlex
import sys
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import Positional as Positional  # re-exported: marks a field that is given without its name
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from probing.errors import UserError

_Options = TypeVar("_Options")

_registry = ConstructorRegistry()


_ALIASES = {"--no-t5": "--no-use-t5"}


class OptionsParser(Generic[_Options]):
    """The parser of a command: its options are the fields of a dataclass.

    Args:
        module: Module of the command, as ``python -m`` takes it.
        options: The dataclass.
        description: What the command does.
    """

    def __init__(self, module: str, options: type[_Options], description: str | None) -> None:
        self.prog, self._options, self._description = f"python -m {module}", options, description or ""

    @property
    def single_flags(self) -> list[str]:
        """Options that take one value."""
        flags = _types_of(self._options)
        return [flag for flag, kind in flags.items() if not _is_repeatable(kind)]

    def parse(self, argv: Sequence[str] | None) -> tuple[_Options, bool]:
        """Parse arguments, those of the process if None.

        Returns:
            The options, and whether ``--debug`` was given.

        Raises:
            UserError: As :func:`parse`.
        """
        arguments = [_ALIASES.get(argument, argument) for argument in (sys.argv[1:] if argv is None else argv)]
        debug = "--debug" in arguments
        arguments = [argument for argument in arguments if argument != "--debug"]
        log, tracker = _take(arguments, "--log"), _take(arguments, "--track")
        description = (
            f"{self._description}\n\n--debug shows the traceback of an error, --log json writes progress and errors as "
            f"lines of JSON, --track tensorboard (or wandb) records progress."
        )
        options = parse(self._options, arguments, prog=self.prog, description=description)
        if log is not None or tracker is not None:
            from probing.logs import start

            start(log or "text", tracker, self.prog.rpartition(" ")[2])
        return options, debug

    def command(self, options: _Options, leave_out: Collection[str] = ("cache", "output")) -> str:
        """Write the command that has these options, for provenance: those that are not defaults.

        Args:
            options: The options.
            leave_out: Fields that do not change a result.
        """
        return " ".join([self.prog, *_arguments(options, leave_out)])


def _arguments(options: Any, leave_out: Collection[str]) -> list[str]:
    arguments: list[str] = []
    for field in dataclasses.fields(options):
        value, flag = getattr(options, field.name), f"--{field.name.replace('_', '-')}"
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(value):
            arguments += _arguments(value, leave_out)
        elif field.name in leave_out or value == default:
            continue
        elif isinstance(value, bool):
            arguments.append(flag if value else f"--no-{flag.removeprefix('--')}")
        elif isinstance(value, Mapping):
            arguments += [f"{flag} {shlex.quote(f'{name}={entry}')}" for name, entry in value.items()]
        elif isinstance(value, tuple) and value and isinstance(value[0], Path):
            arguments += [f"{flag} {shlex.quote(str(path))}" for path in value]
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            arguments.append(f"{flag} {shlex.quote(text)}")
    return arguments


def _take(arguments: list[str], name: str) -> str | None:
    """Remove an option with its value from arguments, and return the value; None if it is not there."""
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            return arguments.pop(place).partition("=")[2]
        if argument == name:
            if place + 1 == len(arguments):
                raise UserError(f"{name} needs a value; --help shows it.")
            del arguments[place]
            return arguments.pop(place)
    return None


class Verb(NamedTuple):
    """A subcommand.

    Attributes:
        description: What it does.
        options: Returns the dataclass of its options.
        run: Runs it with the options.
    """

    description: str
    options: Callable[[], type]
    run: Callable[[Any], int | None]


class VerbsParser:
    """The parser of a command with subcommands.

    Args:
        module: Module of the command, as ``python -m`` takes it.
        verbs: The subcommands by name.
        description: What the command does.
        metavar: What a subcommand is.
    """

    def __init__(
        self, module: str, verbs: Mapping[str, Verb], description: str | None, *, metavar: str = "VERB"
    ) -> None:
        self._metavar = metavar
        self.prog, self.verbs = f"python -m {module}", verbs
        self._module, self._description = module, description

    def parse(self, argv: Sequence[str] | None) -> tuple[Callable[[], int | None], bool]:
        """Parse arguments, those of the process if None.

        Returns:
            A function that runs the subcommand, and whether ``--debug`` was given.

        Raises:
            UserError: No subcommand or an unknown one, and as :func:`parse`.
            SystemExit: After ``--help``.
        """
        name, *rest = (sys.argv[1:] if argv is None else list(argv)) or [""]
        if name in ("-h", "--help"):
            lines = "\n".join(f"  {verb:<14}{entry.description}" for verb, entry in self.verbs.items())
            print(
                f"usage: {self.prog} {self._metavar} [OPTIONS]\n\n{self._description}\n\n{lines}\n\n"
                "Each has its own --help."
            )
            raise SystemExit(0)
        if name not in self.verbs:
            raise UserError(
                f"{f'Unknown {name!r:.80}' if name else 'Nothing was requested'}: {nearest(name, self.verbs)}"
            )
        verb = self.verbs[name]
        parser: OptionsParser[Any] = OptionsParser(f"{self._module} {name}", verb.options(), verb.description)
        options, debug = parser.parse(rest)
        return lambda: verb.run(options), debug


def nearest(name: str, names: Collection[str]) -> str:
    """Suggest the nearest of some names, or all of them, as the end of a message."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"choose one of {', '.join(names)}."


def parse(options: type[_Options], argv: Sequence[str], *, prog: str, description: str) -> _Options:
    """Parse command-line arguments into a dataclass; fields that are dataclasses add their own fields as options.

    Args:
        options: The dataclass.
        argv: The arguments.
        prog: The command, for the help text.
        description: What the command does, for the help text.

    Raises:
        UserError: An unknown option, a missing one, a value that cannot be read, or an option given twice.
        SystemExit: After ``--help``.
    """
    errors = io.StringIO()
    arguments = _merge_repeated(list(argv), _types_of(options))
    try:
        with contextlib.redirect_stderr(errors), _registry:
            return tyro.cli(
                options,
                prog=prog,
                description=description,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_first_error(errors.getvalue())}; see {prog} --help.") from None


@_registry.primitive_rule
def _commas(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read ``tuple[float, ...]``, ``tuple[int, ...]`` and ``tuple[str, ...]`` with commas."""
    kind, optional = _without_none(info.type)
    if get_origin(kind) is not tuple or get_args(kind)[1:] != (...,) or get_args(kind)[0] is Path:
        return None
    (element, _) = get_args(kind)
    convert = _checked(element)
    nothing = "all" if optional else "none"

    def read(texts: list[str]) -> tuple[Any, ...] | None:
        if texts[0] == nothing:
            return None if optional else ()
        return tuple(convert(part.strip()) for part in texts[0].split(",") if part.strip())

    def write(values: Any) -> list[str]:
        return [nothing if not values else ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]

    metavar = {float: "NUMBER,…", int: "INTEGER,…"}.get(element, "NAME,…")
    return PrimitiveConstructorSpec(1, metavar, read, lambda value: value is None or isinstance(value, tuple), write)


@_registry.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read an optional number, text or path."""
    kind, optional = _without_none(info.type)
    choices = get_args(kind) if get_origin(kind) is Literal else None
    if not optional or not (choices or kind in _WORDS):
        return None
    convert = _checked(str if choices else kind)
    metavar = f"{{{','.join(choices)}}}" if choices else _METAVARS[kind]

    def read(texts: list[str]) -> Any:
        if choices and texts[0] not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, got {texts[0]!r}")
        return convert(texts[0])

    def write(value: Any) -> list[str]:
        return ["not given" if value is None else str(value)]

    return PrimitiveConstructorSpec(1, metavar, read, lambda _: True, write)


@_registry.primitive_rule
def _flag_or_word(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read ``bool | Literal["word"]`` from a flag that may be followed by the word."""
    kinds = get_args(info.type) if get_origin(info.type) in (types.UnionType, Union) else ()
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    if bool not in kinds or not words:
        return None

    def read(texts: list[str]) -> Any:
        if len(texts) > 1 or (texts and texts[0] not in words):
            raise ValueError(f"expected nothing or {' or '.join(words)}, got {' '.join(texts)!r}")
        return texts[0] if texts else True

    return PrimitiveConstructorSpec(
        "*",
        f"[{'|'.join(words)}]",
        read,
        lambda _: True,
        lambda value: ["not given"] if value is False else [str(value)],
    )


@_registry.primitive_rule
def _paths(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read ``tuple[Path, ...]`` from an option that is repeated."""
    if info.type != tuple[Path, ...]:
        return None
    return PrimitiveConstructorSpec(
        "*", "PATH", lambda texts: tuple(map(Path, texts)), lambda v: isinstance(v, tuple), lambda v: list(map(str, v))
    )


@_registry.primitive_rule
def _named_values(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read ``Mapping[str, T]`` from ``NAME=VALUE``, repeated."""
    if get_origin(info.type) is not Mapping:
        return None
    convert = _checked(get_args(info.type)[1])

    def read(texts: list[str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if not (name and value):
                raise ValueError(f"expected NAME=VALUE, got {text!r}")
            if name in values:
                raise ValueError(f"{name!r} is given twice")
            if name != name.encode("utf-8", "ignore").decode():
                raise ValueError(f"the name {name!a} is not UTF-8 text")
            values[name] = convert(value)
        return values

    return PrimitiveConstructorSpec("*", "NAME=VALUE", read, lambda v: isinstance(v, Mapping), lambda v: list(v))


@_registry.primitive_rule
def _table(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read a table as its path."""
    kind, _ = _without_none(info.type)
    if str not in get_args(kind) or not any(getattr(k, "__name__", "") == "DataFrame" for k in get_args(kind)):
        return None
    return PrimitiveConstructorSpec(
        1, "FILE", lambda texts: texts[0], lambda _: True, lambda value: ["not given" if value is None else str(value)]
    )


def _without_none(kind: Any) -> tuple[Any, bool]:
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (types.UnionType, Union):
        members = [member for member in get_args(kind) if member is not type(None)]
        union: Any = functools.reduce(operator.or_, members)
        return union, len(members) < len(get_args(kind))
    return kind, False


_METAVARS = {float: "NUMBER", int: "INTEGER", str: "TEXT", Path: "PATH"}
_WORDS = {float: "a number", int: "an integer", str: "text", Path: "a path"}


def _checked(element: Any) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return element(text) if element in _WORDS else text
        except ValueError:
            raise ValueError(f"expected {_WORDS[element]}, got {text!r}") from None

    return convert


def _types_of(options: Any) -> dict[str, Any]:
    """Map each option's flag to its type, through nested dataclasses."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(options) if dataclasses.is_dataclass(options) else ():
        kind = get_type_hints(options, include_extras=True)[field.name]
        if get_origin(kind) is Annotated and get_args(Positional[int])[1] in get_args(kind):
            continue
        kind = get_type_hints(options)[field.name]
        nested = dataclasses.is_dataclass(kind)
        found |= _types_of(kind) if nested else {f"--{field.name.replace('_', '-')}": kind}
    return found


def _is_repeatable(kind: Any) -> bool:
    return kind == tuple[Path, ...] or get_origin(kind) is Mapping


def _merge_repeated(argv: list[str], kinds: Mapping[str, Any]) -> list[str]:
    """Give the values of a repeatable option once together; refuse another option that is given twice."""
    merged: dict[str, list[str]] = {}
    rest: list[str] = []
    seen: set[str] = set()
    parts = list(itertools.chain.from_iterable(_split(argument) for argument in argv))
    while parts:
        flag = parts.pop(0)
        if not flag.startswith("--"):
            rest.append(flag)
            continue
        if _is_repeatable(kinds.get(flag)):
            values = merged.setdefault(flag, [])
            if parts and not parts[0].startswith("--"):
                values.append(parts.pop(0))
            continue
        if flag in seen and flag in kinds:
            raise UserError(f"{flag} is given more than once, and it takes one value; give it once.")
        seen.add(flag)
        rest.append(flag)
    return [*rest, *itertools.chain.from_iterable([flag, *values] for flag, values in merged.items())]


def _split(argument: str) -> list[str]:
    flag, equals, value = argument.partition("=")
    return [flag, value] if equals and flag.startswith("--") else [argument]


def _unframed(line: str) -> str:
    """Remove the frame from a line of tyro's box; a rule becomes empty."""
    content = line.strip("│|╭╮╰╯ \t")
    return content.strip("─ ") if content.strip("─-") else ""


def _first_error(text: str) -> str:
    """Return the first message of tyro's box as one sentence without its end."""
    rows = [_unframed(line) for line in text.splitlines()]
    flags = [row.split()[0] for row in rows if row.startswith("--")]
    if "Required options" in text:
        return f"{' and '.join(dict.fromkeys(flags)) or 'An argument'} must be given"
    # A title, perhaps a rule, the message, a rule or a gap, and further help.
    after_title = itertools.dropwhile(lambda row: not row, list(itertools.dropwhile(lambda row: not row, rows))[1:])
    message = " ".join(itertools.takewhile(bool, after_title)) or text
    message = re.sub(r"\s+", " ", message).strip().rstrip(".")
    # The error of a settings' class is a sentence of its own; an option's names the option.
    message = re.sub(r"^Error parsing (?!-)[^:]*: ", "", message)
    hint = f" (did you mean {flags[0]}?)" if flags and message.startswith("Unrecognized") else ""
    return message + hint
