"""What a backbone is before any weight is loaded: blocks, widths, token counts, parameters, FLOPs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from probing.backbones.stock import AutoencoderKL, SD3Transformer2DModel
from probing.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """The configuration of a Stable Diffusion 3 pipeline.

    Attributes:
        transformer: Configuration of the ``SD3Transformer2DModel``.
        vae: Configuration of the ``AutoencoderKL``.
        clip_length: Positions of the CLIP part of the text (77 in all published models).
        has_t5: Whether there is a third text encoder; without it its positions are zeros, as in diffusers.
        text_parameters: Parameters of all text encoders together.
    """

    transformer: dict[str, Any]
    vae: dict[str, Any]
    clip_length: int
    has_t5: bool
    text_parameters: int

    @property
    def num_blocks(self) -> int:
        return int(self.transformer["num_layers"])

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.transformer["num_attention_heads"]) * int(self.transformer["attention_head_dim"])

    @property
    def latent_channels(self) -> int:
        return int(self.transformer["in_channels"])

    @property
    def vae_factor(self) -> int:
        """Pixels of the image per latent pixel, along each side."""
        return int(2 ** (len(self.vae["block_out_channels"]) - 1))

    @property
    def native_resolution(self) -> int:
        """Side of the images the model was made for, in pixels."""
        return int(self.transformer["sample_size"]) * self.vae_factor

    @property
    def config_hash(self) -> str:
        return hashlib.sha256(json.dumps([self.transformer, self.vae], sort_keys=True).encode()).hexdigest()[:16]

    def blocks_of(self, stream: str) -> list[int]:
        """Blocks whose output has this stream: the last SD3 block gives no text."""
        return list(range(self.num_blocks - (stream == "text")))

    def token_grid(self, resolution: int) -> tuple[int, int]:
        """Rows and columns of image tokens.

        Raises:
            UserError: The resolution is no multiple of a token's side, or more than the model has positions for.
        """
        side = self.vae_factor * int(self.transformer["patch_size"])
        largest = int(self.transformer["pos_embed_max_size"]) * side
        if resolution < side or resolution % side:
            raise UserError(f"The resolution must be a multiple of {side} pixels for this model, got {resolution}.")
        if resolution > largest:
            raise UserError(f"This model has positions for images up to {largest} pixels, got {resolution}.")
        return resolution // side, resolution // side

    @cached_property
    def parameters(self) -> int:
        """Parameters of the transformer, counted."""
        return sum(parameter.numel() for parameter in self._on_meta().parameters())

    def forward_flops(self, resolution: int, text_tokens: int) -> int:
        """Floating-point operations of one forward of one item (a multiply-add is two), counted on the meta device."""
        model = self._on_meta()
        side = resolution // self.vae_factor
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(
                hidden_states=torch.empty(1, self.latent_channels, side, side),
                encoder_hidden_states=torch.empty(1, text_tokens, self.transformer["joint_attention_dim"]),
                pooled_projections=torch.empty(1, self.transformer["pooled_projection_dim"]),
                timestep=torch.empty(1),
            )
        return counter.get_total_flops()

    def encoding_flops(self, resolution: int) -> int:
        """Floating-point operations of encoding one image by the VAE."""
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            AutoencoderKL.from_config(self.vae).encode(torch.empty(1, 3, resolution, resolution))
        return counter.get_total_flops()

    def _on_meta(self) -> SD3Transformer2DModel:
        with torch.device("meta"):
            return SD3Transformer2DModel.from_config(self.transformer).eval()
