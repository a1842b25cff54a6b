"""Cast float32 features to the dtype of a store."""

from __future__ import annotations

import numpy as np

from probing.errors import UserError


def to_stored(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Cast float32 values to the dtype of an array.

    Raises:
        UserError: A value is not finite, or too large for the dtype.
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
