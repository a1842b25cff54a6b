"""The errors that a command tells its user in one sentence."""

from __future__ import annotations


class UserError(ValueError):
    """Something asked for that cannot be had; the message says what is wrong and how to mend it."""
