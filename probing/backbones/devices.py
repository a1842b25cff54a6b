"""Devices and types by name. What a plan needs of them, it gets without torch, whose import takes seconds."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from probing.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str = "auto") -> torch.device:
    """Return a device by name; ``auto`` takes an accelerator where there is one.

    Raises:
        UserError: The device is not on this machine.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"Device {name!r} is not on this machine; use --device auto or cpu.") from None
    return device


def device_type(name: str = "auto") -> str:
    """Return the type of a device by name: ``cpu``, ``cuda``, ``mps``.

    Raises:
        UserError: The device is not on this machine.
    """
    if name == "cpu" or (name == "auto" and _is_built_for_cpus()):
        return "cpu"
    return pick_device(name).type


def compute_dtype_name(name: str, device: str) -> str:
    """Return a type on a type of device; ``auto`` is bfloat16 on an accelerator and float32 on a CPU.

    Raises:
        UserError: float16 on a CPU, which is many times slower than float32 there.
    """
    if name == "auto":
        return "float32" if device == "cpu" else "bfloat16"
    if name == "float16" and device == "cpu":
        raise UserError("float16 on a CPU is slower than float32 and less exact; use --compute-dtype float32.")
    return name


def compute_dtype(name: str) -> torch.dtype:
    """Return the type of a name: bfloat16, float16, float32."""
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


def pick_compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the type of :func:`compute_dtype_name` on a device.

    Raises:
        UserError: As there.
    """
    return compute_dtype(compute_dtype_name(name, device.type))


def _is_built_for_cpus() -> bool:
    """Return whether the installed torch knows no accelerator, by the tag of its version."""
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False
