"""A design that lies on an accelerator: its matrix products are made there, all else here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import torch


class DeviceRows:
    """Rows in single precision on a device, with what the solver asks of an array: slices, ``.T`` and ``@``.

    Products take and give NumPy arrays. All columns of a step are one product, so what travels is narrow: the design
    itself goes over once.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._tensor.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceRows:
        return DeviceRows(self._tensor[rows])

    @property
    def T(self) -> DeviceRows:
        return DeviceRows(self._tensor.T)

    def __matmul__(self, other: Float[np.ndarray, "inner column"] | DeviceRows) -> Float[np.ndarray, "row column"]:
        import torch

        if isinstance(other, DeviceRows):
            there = other._tensor
        else:
            there = torch.from_numpy(np.ascontiguousarray(other, dtype=np.float32)).to(self._tensor.device)
        return (self._tensor @ there).cpu().numpy()


def on_device(rows: Float[np.ndarray, "pair k"], device: str) -> DeviceRows:
    """Put rows on a device, as torch names it.

    Raises:
        ValueError: There is no such device.
    """
    import torch

    try:
        return DeviceRows(torch.from_numpy(rows).to(torch.device(device)))
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"Got device {device!r}, which is not there ({said}); take cpu.") from error
