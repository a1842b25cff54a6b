"""Where weights rest, and in how many bits: for models that do not fit an accelerator whole."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probing.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch is imported where it is used: settings read this file.
Placement = Literal["device", "host", "auto"]
"""Where the weights of text encoders and transformer are while they compute.

``device``: on the device, for as long as they are needed. ``host``: in host memory; each layer is brought to the device
for its turn. ``auto``: spread once over all accelerators, then host memory, then disk.
"""
Quantization = Literal["8bit", "4bit"]
"""Bits of the weights of the transformer's products: 8 as integers (torchao), 4 as NormalFloat (bitsandbytes)."""
_FREE = {"cpu": 0.6}
_ACCELERATOR = 0.8
"""Share of the free memory that weights may take under ``auto``; the rest is for forwards."""


def quantization_config(quantization: Quantization, dtype: torch.dtype) -> Any:
    """Return diffusers' configuration of a quantisation.

    Raises:
        UserError: Its library is not installed, or needs an accelerator that is not here.
    """
    import torch
    from diffusers import BitsAndBytesConfig, TorchAoConfig

    if quantization == "4bit" and not torch.cuda.is_available():
        raise UserError("--quantization 4bit (bitsandbytes) needs a CUDA GPU; take 8bit, which runs on CPUs too.")
    try:
        if quantization == "4bit":
            import bitsandbytes  # noqa: F401

            return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    except ImportError as error:
        raise UserError(
            f"--quantization {quantization} needs {error.name}; install it with pip install 'dit-probing[quantized]'."
        ) from None


class WeightPlaces:
    """Places of the weights of one backbone.

    Attributes:
        placement: As given; ``host`` and ``device`` are one where the device is a CPU.
    """

    def __init__(self, placement: Placement, device: torch.device) -> None:
        self.placement = "device" if placement == "host" and device.type == "cpu" else placement
        self._device = device
        self._disk: tempfile.TemporaryDirectory[str] | None = None

    def loading_options(self) -> dict[str, Any]:
        """Return options of ``from_pretrained`` that load weights to their places at once."""
        if self.placement != "auto":
            return {}
        return {"device_map": "auto", "max_memory": free_memory(), "offload_folder": self._folder()}

    def place(self, module: nn.Module) -> None:
        """Give a module its place, if it has none and holds weights."""
        empty = all(parameter.is_meta for parameter in module.parameters())
        if self.placement == "device" or empty or is_placed(module):
            return
        from accelerate import cpu_offload, dispatch_model, infer_auto_device_map

        if self.placement == "host":
            cpu_offload(module, execution_device=self._device)
            return
        units = list(getattr(module, "_no_split_modules", None) or ())
        places = infer_auto_device_map(module, max_memory=free_memory(), no_split_module_classes=units)
        dispatch_model(module, places, offload_dir=self._folder())

    def _folder(self) -> str:
        if self._disk is None:
            # Not in the system's folder of temporary files, which is often memory.
            self._disk = tempfile.TemporaryDirectory(prefix=".weights-", dir=Path.cwd())
        return self._disk.name


def is_placed(module: nn.Module) -> bool:
    """Return whether a module's weights have a place that it keeps."""
    return hasattr(module, "hf_device_map") or any(hasattr(part, "_hf_hook") for part in module.modules())


def free_memory() -> dict[int | str, int]:
    """Return the bytes that weights may take, by accelerator and of the host."""
    from accelerate.utils import get_max_memory

    return {place: int(_FREE.get(str(place), _ACCELERATOR) * free) for place, free in get_max_memory().items()}
