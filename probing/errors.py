"""Errors that a command reports in one sentence."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_MESSAGE = 1500
"""Largest number of characters in a message. A longer one is cut in the middle, so that problem and fix remain."""
_END = 500
_LONGEST_VALUE = 80
_LONGEST_LIST = 160


class UserError(ValueError):
    """An invalid request (exit status 2). The message gives the problem and the fix, in one line.

    Messages quote input. Control characters are escaped here, and long messages are cut.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(str(message)))


def shown(value: object) -> str:
    """Quote a value for a message, with at most 80 characters."""
    if isinstance(value, str | bytes):
        value = value[: _LONGEST_VALUE + 1]
    elif getattr(value, "ndim", None) == 0:
        # Show a NumPy scalar as the plain number.
        value = getattr(value, "item")()  # noqa: B009
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def listed(names: Iterable[object]) -> str:
    """Join names with commas for a message, with about 160 characters at most."""
    texts = [str(name) for name in names]
    shortened: list[str] = []
    for name in texts:
        name = name if len(name) <= _LONGEST_VALUE else f"{name[: _LONGEST_VALUE - 1]}…"
        if shortened and sum(map(len, shortened)) + 2 * len(shortened) + len(name) > _LONGEST_LIST:
            return f"{', '.join(shortened)} and {len(texts) - len(shortened):,} more"
        shortened.append(name)
    return ", ".join(shortened)


def _one_line(message: str) -> str:
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[: LONGEST_MESSAGE - _END]} … {message[-_END:]}"
    if message.isprintable():
        return message
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else letter.encode("unicode_escape").decode("ascii")
        for letter in message
    )
