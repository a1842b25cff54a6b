"""From the float32 of a forward to the type that a store keeps."""

from __future__ import annotations

import numpy as np

from probing.errors import UserError


def to_stored(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Cast float32 values to the dtype of an array, and refuse to lose any to infinity.

    Raises:
        UserError: Values that are not finite, or too large for the dtype.
    """
    if not np.isfinite(values).all():
        raise UserError(f"{name} has values that are not finite; use --compute-dtype float32 or bfloat16.")
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        largest = np.abs(values).max()
        raise UserError(
            f"{name} has values up to {largest:.3g}, too large for {dtype}; store float32, or leave out tokens."
        )
    return cast
