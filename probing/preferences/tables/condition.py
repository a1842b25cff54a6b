r"""Parse conditions on the columns of a table, such as ``confidence >= 0.95 and facet == 'quality'``.

This is the whole grammar. There are no calls, attributes or arithmetic, and nothing is evaluated as Python::

    condition   = conjunction { ("or" | "|") conjunction }
    conjunction = negation { ("and" | "&") negation }
    negation    = ("not" | "~") negation | "(" condition ")" | comparison
    comparison  = operand ("==" | "!=" | "<" | "<=" | ">" | ">=") operand
                | column ["not"] "in" "[" value { "," value } "]"
    operand     = column | value
    column      = a name, or any text between backticks (two backticks for one inside)
    value       = ["-"] number | text in single or double quotes (\' \" \\ inside) | true | false
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from probing.errors import UserError, listed, shown

LONGEST = 10_000
"""Largest number of characters of a condition."""
DEEPEST = 50
"""Largest depth of parentheses and negations, so that no condition exhausts the stack."""
Value = str | int | float | bool
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
    | (?P<name>[^\W\d]\w*)
    | `(?P<backticks>(?:[^`]|``)+)`(?!`)
    | '(?P<single>(?:[^'\\]|\\.)*)'
    | "(?P<double>(?:[^"\\]|\\.)*)"
    | (?P<operator>==|!=|<=|>=|[<>&|~()\[\],-])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(['\"\\])")
_KEYWORDS = {"and": "&", "or": "|", "not": "~", "in": "in"}
_TRUTHS = {"true": True, "True": True, "false": False, "False": False}
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True)
class Name:
    """A column."""

    column: str


@dataclass(frozen=True)
class Literal:
    """A value written in the condition."""

    value: Value


@dataclass(frozen=True)
class Comparison:
    """``left operator right``."""

    left: Name | Literal
    operator: str
    right: Name | Literal


@dataclass(frozen=True)
class Membership:
    """``column in [values]``."""

    column: Name
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Not:
    """The negation of a condition."""

    part: Condition


@dataclass(frozen=True)
class Joined:
    """Conditions joined by ``&`` or ``|``."""

    operator: str
    parts: tuple[Condition, ...]


Condition = Comparison | Membership | Not | Joined


@dataclass(frozen=True)
class _Token:
    kind: str
    """``operator``, ``name``, ``value``, ``unreadable`` or ``end``."""
    value: Value
    start: int


def parse(text: str, columns: Sequence[str]) -> Condition:
    """Parse a condition.

    Args:
        text: A condition in the grammar of this module.
        columns: The columns that it can name.

    Raises:
        UserError: A syntax error (the message names its position), or an unknown column.
    """
    if len(text) > LONGEST:
        raise UserError(f"The condition has {len(text):,} characters, expected at most {LONGEST:,}; shorten it.")
    return _Parser(text, columns).parse()


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, text: str, columns: Sequence[str]) -> None:
        self._text, self._columns = text, list(map(str, columns))
        self._tokens = _tokens_of(text)
        self._next = 0
        self._depth = 0

    def parse(self) -> Condition:
        condition = self._disjunction()
        if self._token.kind != "end":
            raise self._syntax_error()
        return condition

    def _disjunction(self) -> Condition:
        parts = [self._conjunction()]
        while self._take("|"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else Joined("|", tuple(parts))

    def _conjunction(self) -> Condition:
        parts = [self._negation()]
        while self._take("&"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else Joined("&", tuple(parts))

    def _negation(self) -> Condition:
        opening = self._token
        self._depth += 1
        if self._depth > DEEPEST:
            raise UserError(
                f"The condition nests more than {DEEPEST} parentheses and negations at position {opening.start + 1}; "
                f"write it with fewer."
            )
        if self._take("~"):
            part: Condition = Not(self._negation())
        elif self._take("("):
            part = self._disjunction()
            self._expect(")")
        else:
            part = self._comparison()
        self._depth -= 1
        return part

    def _comparison(self) -> Condition:
        start = self._token.start
        left = self._operand()
        if isinstance(left, Name) and (self._is("in") or (self._is("~") and self._is("in", ahead=1))):
            negated = self._take("~")
            self._expect("in")
            membership = Membership(left, self._values())
            return Not(membership) if negated else membership
        operator = self._token
        if operator.kind != "operator" or operator.value not in COMPARISONS:
            raise self._syntax_error()
        self._next += 1
        right = self._operand()
        if isinstance(left, Literal) and isinstance(right, Literal):
            raise UserError(
                f"The condition {shown(self._text)} compares two values at position {start + 1}; {self._how()}."
            )
        return Comparison(left, str(operator.value), right)

    def _operand(self) -> Name | Literal:
        token = self._token
        if token.kind != "name":
            return Literal(self._value())
        if token.value not in self._columns:
            raise UserError(
                f"The condition {shown(self._text)} names the unknown column {shown(token.value)} at position "
                f"{token.start + 1}; {self._how()}."
            )
        self._next += 1
        return Name(str(token.value))

    def _value(self) -> Value:
        negative = self._take("-")
        token = self._token
        if token.kind != "value" or (negative and isinstance(token.value, bool | str)):
            raise self._syntax_error()
        self._next += 1
        return -token.value if negative and not isinstance(token.value, str) else token.value

    def _values(self) -> tuple[Value, ...]:
        self._expect("[")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._expect("]")
        return tuple(values)

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _is(self, operator: str, ahead: int = 0) -> bool:
        token = self._tokens[min(self._next + ahead, len(self._tokens) - 1)]
        return token.kind == "operator" and token.value == operator

    def _take(self, operator: str) -> bool:
        matches = self._is(operator)
        self._next += matches
        return matches

    def _expect(self, operator: str) -> None:
        if not self._take(operator):
            raise self._syntax_error()

    def _syntax_error(self) -> UserError:
        start = self._token.start
        rest = self._text[start:]
        where = f"at position {start + 1} ({shown(rest)})" if rest.strip() else "at its end"
        return UserError(f"The condition {shown(self._text)} has a syntax error {where}; {self._how()}.")

    def _how(self) -> str:
        return (
            f"write comparisons of a column with a value, such as confidence >= 0.95, joined by and, or, not; the "
            f"columns are {listed(self._columns)}"
        )


def _tokens_of(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            # The parser reports it, after it has checked all tokens before.
            return [*tokens, _Token("unreadable", text[start:], start)]
        kind = str(match.lastgroup)
        # Start of the value, without the white space before it.
        start = match.start() + len(match.group()) - len(match.group().lstrip())
        tokens.append(_token(kind, match[kind], start))
        position = match.end()
    return [*tokens, _Token("end", "", len(text))]


def _token(kind: str, written: str, start: int) -> _Token:
    if kind == "name" and written in _KEYWORDS:
        return _Token("operator", _KEYWORDS[written], start)
    if kind == "name" and written in _TRUTHS:
        return _Token("value", _TRUTHS[written], start)
    if kind == "backticks":
        return _Token("name", written.replace("``", "`"), start)
    if kind == "number":
        return _Token("value", _number(written), start)
    if kind in ("single", "double"):
        return _Token("value", _ESCAPE.sub(r"\1", written), start)
    return _Token(kind, written, start)


def _number(written: str) -> int | float:
    """Convert a number; whole numbers of up to 18 digits are exact in 64 bits."""
    return int(written) if written.isdecimal() and len(written) <= 18 else float(written)
