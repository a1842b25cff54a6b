"""A design on an accelerator: its matrix products run there, everything else runs in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from probing.probes._disk import DiskRows

if TYPE_CHECKING:
    import torch


class DeviceRows:
    """Rows in single precision on a device, with the array operations that the solver uses: slices, ``.T`` and ``@``.

    Products take and return NumPy arrays. All columns of a step are one product, so transfers are narrow; the design
    itself is transferred once.

    Args:
        tensor: The rows, float32, on their device.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    @classmethod
    def to_device(cls, rows: Float[np.ndarray, "pair k"] | DiskRows, device: str) -> DeviceRows:
        """Copy rows to a device, in torch's notation.

        Raises:
            ValueError: The device does not exist.
        """
        import torch

        try:
            if isinstance(rows, DiskRows):
                whole = torch.empty(rows.shape, dtype=torch.float32, device=device)
                for part in rows.blocks():
                    whole[part] = torch.from_numpy(np.array(rows[part])).to(whole.device)
                return cls(whole)
            return cls(torch.from_numpy(rows).to(torch.device(device)))
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"Got device {device!r}, which is not available ({reason}); use cpu.") from error

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return tuple(self._tensor.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceRows:
        return DeviceRows(self._tensor[rows])

    @property
    def T(self) -> DeviceRows:
        """The transpose."""
        return DeviceRows(self._tensor.T)

    def __matmul__(self, right: Float[np.ndarray, "inner column"] | DeviceRows) -> Float[np.ndarray, "row column"]:
        import torch

        if isinstance(right, DeviceRows):
            factor = right._tensor
        else:
            factor = torch.from_numpy(np.ascontiguousarray(right, dtype=np.float32)).to(self._tensor.device)
        return (self._tensor @ factor).cpu().numpy()
