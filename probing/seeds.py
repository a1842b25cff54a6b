"""Bounds of a random seed."""

from __future__ import annotations

from probing.errors import UserError

LARGEST_SEED = 2**63 - 1
"""The largest seed that torch, NumPy and a column of 64-bit integers accept."""


def check_seed(seed: int) -> int:
    """Check a seed, and return it.

    Raises:
        UserError: The seed is negative or too large.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"A seed must be a whole number from 0 to {LARGEST_SEED}, got {seed}; give one in that range.")
    return seed
