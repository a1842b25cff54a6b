"""What plans need of a backbone before any weight is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class Architecture(ABC):
    """What a backbone is before any weight is loaded: blocks, widths, token counts, parameters, FLOPs.

    ``text_length`` is the number of positions of the text part whose length can be chosen, and ``use_t5`` whether the
    family's optional text encoder is used; a family without one ignores it.

    Attributes:
        text_parameters: Parameters of all text encoders together.
    """

    text_parameters: int

    @property
    def guidance(self) -> float | None:
        """The pipeline's default guidance, for a transformer that embeds one; None for the others."""
        return None

    @property
    @abstractmethod
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """Configurations that decide the architecture, by the part's name; the transformer's is among them."""

    @property
    @abstractmethod
    def config_hash(self) -> str:
        """16 hexadecimal characters over all of the architecture; it is kept in stores, so it must never change."""

    @property
    @abstractmethod
    def num_blocks(self) -> int:
        """Blocks of all lists together."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Channels of a token in a block's output."""

    @property
    @abstractmethod
    def text_channels(self) -> int:
        """Channels of a text token where it enters the transformer."""

    @property
    @abstractmethod
    def latent_channels(self) -> int:
        """Channels of the space where noise is added."""

    @property
    @abstractmethod
    def vae_factor(self) -> int:
        """Pixels of the image per latent pixel, along each side."""

    @property
    @abstractmethod
    def native_resolution(self) -> int:
        """Side of the images that the model was made for, in pixels."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Parameters of the transformer."""

    @property
    def token_side(self) -> int:
        """Latent pixels of an image token, along each side."""
        return 2

    @property
    def vae_width(self) -> int:
        """Channels of the VAE's first level, where its memory is."""
        return 128

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """Channels, rows and columns of the latents of a square image."""
        side = resolution // self.vae_factor
        return self.latent_channels, side, side

    @abstractmethod
    def blocks_of(self, stream: str) -> list[int]:
        """Blocks whose output has a stream."""

    @abstractmethod
    def token_grid(self, resolution: int) -> tuple[int, int]:
        """Rows and columns of image tokens.

        Raises:
            UserError: The model cannot take this resolution.
        """

    @abstractmethod
    def text_tokens(self, text_length: int) -> int:
        """Tokens of the text stream."""

    @abstractmethod
    def text_parts(self, *, use_t5: bool) -> tuple[str, ...]:
        """Names of the parts of :attr:`Conditioning.parts`."""

    @abstractmethod
    def prompt_limit(self, text_length: int) -> int:
        """Tokens of a prompt that the model reads, in the count of :meth:`Backbone.prompt_tokens`."""

    @abstractmethod
    def describe_text(self, text_length: int, *, use_t5: bool) -> str:
        """Describe the text tokens in a few words, for a plan."""

    @abstractmethod
    def check_text(self, text_length: int, *, use_t5: bool) -> None:
        """Raise a UserError if the text encoders cannot take this length."""

    @abstractmethod
    def forward_flops(self, resolution: int, text_tokens: int) -> int:
        """Floating-point operations of one forward of one item; a multiply-add is two."""

    @abstractmethod
    def encoding_flops(self, resolution: int) -> int:
        """Floating-point operations of encoding one image by the VAE."""

    @abstractmethod
    def matches(self, architecture: Architecture) -> bool:
        """Return whether transformer and VAE are the same; entries that are left out have their defaults."""

    @abstractmethod
    def with_transformer(self, config: Mapping[str, Any]) -> Architecture:
        """Return the architecture with another transformer's configuration."""


Product = tuple[int, int, int]
"""A matrix product with a bias: rows, input channels, output channels."""


def product_flops(products: Iterable[Product]) -> int:
    """Count the floating-point operations of matrix products, without the additions of biases."""
    return sum(2 * rows * inputs * outputs for rows, inputs, outputs in products)


def product_parameters(products: Iterable[Product]) -> int:
    """Count the weights and biases of matrix products."""
    return sum((inputs + 1) * outputs for _, inputs, outputs in products)


def attention_flops(tokens: int, width: int) -> int:
    """Count the two matrix products of an attention over tokens, all heads together."""
    return 4 * tokens**2 * width


def count_flops(run: Callable[[], Any]) -> int:
    """Count the floating-point operations of a call on the meta device, where tensors hold no values."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
