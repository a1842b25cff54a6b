"""A design prepared for the solver."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from probing.probes._disk import DiskRows
from probing.probes._solver._device_rows import DeviceRows
from probing.probes._solver._products import gram


class Design(NamedTuple):
    """A design prepared for :func:`probing.probes._solver.solve`; rank k = min(pair, channel).

    Attributes:
        rows: The design, or its rows' coordinates in ``span``.
        span: Orthonormal basis of the rows if there are more channels than pairs, else None.
        single: ``rows`` in single precision, in NumPy, on an accelerator, or on disk as ``rows`` are.
        gram: ``rows' · rows / pairs``, in single precision.
    """

    rows: Float[np.ndarray, "pair k"] | DiskRows
    span: Float[np.ndarray, "channel k"] | None
    single: Float[np.ndarray, "pair k"] | DeviceRows | DiskRows
    gram: Float[np.ndarray, "k k"]

    @classmethod
    def prepare(cls, design: Float[np.ndarray, "pair channel"] | DiskRows, device: str = "cpu") -> Design:
        """Reduce a design to the span of its rows, and form its Gram matrix.

        Coefficients outside the span of the rows only add penalty, so the reduction of a design with more channels than
        pairs keeps the optimum.

        Args:
            design: One row per pair.
            device: Device of the matrix products in single precision, in torch's notation.

        Raises:
            ValueError: The device does not exist.
        """
        pairs, channels = design.shape
        span = None
        if isinstance(design, DiskRows):
            if channels <= pairs:
                single = design.as_type(np.float32)
                of_device = single if device == "cpu" else DeviceRows.to_device(single, device)
                return cls(design.as_type(np.float64), None, of_device, gram(of_device))
            design = design.as_type(np.float64)[:]
        if channels > pairs:
            span, triangle = np.linalg.qr(design.T)
            design = np.ascontiguousarray(triangle.T)
        rows = design.astype(np.float32)
        if device == "cpu":
            return cls(design, span, rows, gram(rows))
        on_device = DeviceRows.to_device(rows, device)
        return cls(design, span, on_device, gram(on_device))

    def coefficients(self, b: Float[np.ndarray, "k column"]) -> Float[np.ndarray, "channel column"]:
        """Convert coefficients of ``rows``, the result of the solver, into coefficients of the channels."""
        return b if self.span is None else self.span @ b
