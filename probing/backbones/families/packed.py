"""What families share whose latents become one token a square: FLUX.1 and FLUX.2, Chroma, Qwen-Image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from probing.backbones.base import Conditioning, Layout
from probing.backbones.config_rules import CHANNELS, HEADS, LAYERS, whole
from probing.backbones.families.pipeline import PipelineBackbone

if TYPE_CHECKING:
    from torch import Tensor

    from probing.backbones.base import Streams

RULES = {
    "in_channels": whole(4, 2**14),
    "num_layers": LAYERS,
    "attention_head_dim": whole(2, 4096),
    "num_attention_heads": HEADS,
    "joint_attention_dim": CHANNELS,
}
"""Entries of the transformer's configuration that all of them have."""
TWO_KINDS = {
    **RULES,
    "patch_size": whole(1, 1, required=False),
    "out_channels": whole(4, 2**14, required=False, or_null=True),
    "num_single_layers": LAYERS,
}
"""Those of a transformer with two kinds of block."""
LISTS = {"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"}
"""Its lists of blocks, and the entries that count them."""


def call_with_positions(model: Any, rows: int, columns: int, text_tokens: int, **further: Any) -> Any:
    """Call a transformer that takes the positions of its tokens once, for one item."""
    import torch

    config, axes = model.config, len(model.config.axes_dims_rope)
    return model(
        hidden_states=torch.empty(1, rows * columns, config.in_channels),
        encoder_hidden_states=torch.empty(1, text_tokens, config.joint_attention_dim),
        timestep=torch.ones(1),
        img_ids=torch.empty(rows * columns, axes),
        txt_ids=torch.empty(text_tokens, axes),
        **further,
    )


class PackedBackbone(PipelineBackbone):
    """A pipeline that packs noisy latents into tokens, text before image, and tells its transformer σ."""

    def streams(self, block: int, output: tuple[Tensor, Tensor] | Tensor, layout: Layout) -> Streams:
        """A block returns (text, image), or one sequence of both."""
        if isinstance(output, tuple):
            text, image = output
            return {"image": image, "text": text}
        return layout.split(output)

    def layout(self, latents: Float[Tensor, "item channel row column"], conditioning: Conditioning) -> Layout:
        return Layout.text_first(latents.shape[2] * latents.shape[3] // self._side**2, self.text_length)

    def timestep(self, sigma: float) -> float:
        return sigma

    def packed(self, latents: Float[Tensor, "item channel row column"]) -> Float[Tensor, "item token packed"]:
        """Make one token of each square of latents, channels first."""
        side = self._side
        squares = latents.unflatten(3, (-1, side)).unflatten(2, (-1, side))
        return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def velocity(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> Float[Tensor, "item channel row column"]:
        tokens, side = self.transformer(**self.inputs(noisy, conditioning, sigma))[0], self._side
        rows, columns = (length // side for length in noisy.shape[2:])
        squares = tokens.unflatten(2, (-1, side, side)).unflatten(1, (rows, columns))
        velocity: Tensor = squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return velocity

    def image_positions(self, noisy: Float[Tensor, "item channel row column"]) -> Float[Tensor, "token 3"]:
        """Return 0, row and column of each image token."""
        import torch

        rows, columns = (torch.arange(float(length // self._side)) for length in noisy.shape[2:])
        return torch.cartesian_prod(torch.zeros(1), rows, columns)

    @property
    def _side(self) -> int:
        return self.spec.architecture.token_side
