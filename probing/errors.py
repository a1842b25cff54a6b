"""Errors that a command reports in one sentence."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_MESSAGE = 1500
"""Characters of a message, room for a few paths; a longer one is cut in the middle: the problem and the fix stay."""
_END = 500
_LONGEST_VALUE = 80
_LONGEST_LIST = 160


class UserError(ValueError):
    """An invalid request (exit status 2). The message gives the problem and the fix, in one line.

    Messages quote what users give. Control characters are escaped and long messages are cut here, for all of them.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(str(message)))


def shown(value: object) -> str:
    """Quote a value for a message, with at most 80 characters."""
    if isinstance(value, str | bytes):
        value = value[: _LONGEST_VALUE + 1]
    elif getattr(value, "ndim", None) == 0:
        # A NumPy scalar reads as the plain number.
        value = getattr(value, "item")()  # noqa: B009
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def listed(names: Iterable[object]) -> str:
    """Join names with commas for a message, with about 160 characters at most."""
    everything = [str(name) for name in names]
    kept: list[str] = []
    for name in everything:
        name = name if len(name) <= _LONGEST_VALUE else f"{name[: _LONGEST_VALUE - 1]}…"
        if kept and sum(map(len, kept)) + 2 * len(kept) + len(name) > _LONGEST_LIST:
            return f"{', '.join(kept)} and {len(everything) - len(kept):,} more"
        kept.append(name)
    return ", ".join(kept)


def _one_line(message: str) -> str:
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[: LONGEST_MESSAGE - _END]} … {message[-_END:]}"
    if message.isprintable():
        return message
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else letter.encode("unicode_escape").decode("ascii")
        for letter in message
    )
