"""FLUX.1: two lists of blocks over text and image, which both return apart; the dev model takes a guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from probing.backbones.base import Conditioning, Entry
from probing.backbones.config_rules import CHANNELS, flag, wholes
from probing.backbones.families.packed import LISTS, TWO_KINDS, PackedBackbone, call_with_positions
from probing.backbones.families.pipeline import PipelineArchitecture, PipelineFamily, attention_mask, count_tokens
from probing.backbones.library_parts import (
    autoencoder_kl,
    clip_length_of,
    clip_text_model,
    clip_tokenizer,
    flow_match_scheduler,
    t5_text_encoder,
    t5_tokenizer,
)
from probing.backbones.parts import Part

if TYPE_CHECKING:
    from torch import Tensor

_RULES = {
    **TWO_KINDS,
    "pooled_projection_dim": CHANNELS,
    "guidance_embeds": flag(),
    "axes_dims_rope": wholes(2, 4096, 3, required=False),
}


def _call(model: Any, rows: int, columns: int, text_tokens: int) -> Any:
    import torch

    pooled = torch.empty(1, model.config.pooled_projection_dim)
    guidance = torch.ones(1) if model.config.guidance_embeds else None
    return call_with_positions(model, rows, columns, text_tokens, pooled_projections=pooled, guidance=guidance)


_PARTS = (
    flow_match_scheduler(),
    clip_tokenizer("tokenizer"),
    t5_tokenizer("tokenizer_2"),
    Part(
        "transformer",
        "transformer",
        "diffusers:FluxTransformer2DModel",
        rules=_RULES,
        repeated=LISTS,
        run=lambda model: _call(model, 1, 1, 1),
    ),
    autoencoder_kl(),
    clip_text_model("text_encoder"),
    t5_text_encoder("text_encoder_2"),
)


@dataclass(frozen=True)
class FluxArchitecture(PipelineArchitecture):
    """The configuration of a FLUX.1 pipeline."""

    parts = _PARTS
    block_counts = tuple(LISTS.values())
    example_call = staticmethod(_call)

    def text_parts(self, *, use_t5: bool) -> tuple[str, ...]:
        return ("t5",)

    def describe_text(self, text_length: int, *, use_t5: bool) -> str:
        return f"{text_length} T5"

    @property
    def guidance(self) -> float | None:
        return 3.5 if self.transformer.get("guidance_embeds") else None


class FluxBackbone(PackedBackbone):
    """A frozen ``FluxPipeline``.

    T5's padding takes part in every attention, as in the pipeline; it is left out of reductions of the text.
    """

    block_lists = tuple(LISTS)
    time_projection = "time_text_embed.time_proj"
    time_scale = 1000.0

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        import torch

        prompts = list(prompts)
        with torch.inference_mode(), self.quiet_truncation():
            tokens, pooled, _ = self.pipeline.encode_prompt(
                prompts, device=self.device, max_sequence_length=self.text_length
            )
            tensors = {"encoder_hidden_states": tokens.cpu(), "pooled_projections": pooled.cpu()}
            real = attention_mask(self.pipeline.tokenizer_2, prompts, self.text_length)
        return Conditioning(tensors, {"t5": real})

    def inputs(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> dict[str, Any]:
        import torch

        guidance = self.guidance
        return {
            "hidden_states": self.packed(noisy).to(self.device, self.dtype),
            **{name: tensor.to(self.device, self.dtype) for name, tensor in conditioning.tensors.items()},
            "timestep": self.timesteps(len(noisy), sigma),
            "guidance": None if guidance is None else torch.full((len(noisy),), guidance, device=self.device),
            "img_ids": self.image_positions(noisy).to(self.device, self.dtype),
            "txt_ids": torch.zeros(self.text_length, 3, device=self.device, dtype=self.dtype),
            "return_dict": False,
        }

    def stock_options(self) -> dict[str, Any]:
        return {**super().stock_options(), "guidance_scale": self.guidance or 0.0}

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Count T5's tokens; CLIP's 77 cut the pooled vector only."""
        return count_tokens(self.pipeline.tokenizer_2, prompts)


class FluxFamily(PipelineFamily):
    """``FluxPipeline``."""

    pipeline = "FluxPipeline"
    architecture = FluxArchitecture
    backbone = FluxBackbone
    parts = _PARTS
    text_length = 512
    entries = {  # noqa: RUF012
        "flux1-dev": Entry("black-forest-labs/FLUX.1-dev", 1024, architecture="flux1-dev"),
        "flux1-schnell": Entry("black-forest-labs/FLUX.1-schnell", 1024, 256, architecture="flux1-schnell"),
    }

    def check_fit(self, folder: Path, configs: Mapping[str, dict[str, Any]]) -> None:
        super().check_fit(folder, configs)
        path = folder / "tokenizer" / "tokenizer_config.json"
        clip_length_of(path, configs["tokenizer"], [configs["text_encoder"]])

    def widths(self, configs: Mapping[str, dict[str, Any]]) -> list[tuple[str, str, int]]:
        return [
            ("pooled_projection_dim", "CLIP's hidden_size", configs["text_encoder"]["hidden_size"]),
            ("joint_attention_dim", "T5's d_model", configs["text_encoder_2"]["d_model"]),
            ("in_channels", "four times the VAE's latent_channels", 4 * configs["vae"]["latent_channels"]),
        ]

    def tokenizers(self, pipeline: Any, text_length: int) -> Sequence[tuple[str, str, int]]:
        return [
            ("tokenizer", "text_encoder", pipeline.tokenizer_max_length),
            ("tokenizer_2", "text_encoder_2", text_length),
        ]


FAMILY = FluxFamily()
