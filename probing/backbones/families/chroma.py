"""Chroma: FLUX.1 without pooled words and guidance, whose modulation is computed by a network of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from probing.backbones.base import Conditioning, Entry
from probing.backbones.config_rules import CHANNELS, LAYERS, whole, wholes
from probing.backbones.families.packed import LISTS, TWO_KINDS, PackedBackbone, call_with_positions
from probing.backbones.families.pipeline import PipelineArchitecture, PipelineFamily, attention_mask, count_tokens
from probing.backbones.library_parts import autoencoder_kl, flow_match_scheduler, t5_text_encoder, t5_tokenizer
from probing.backbones.parts import Part

if TYPE_CHECKING:
    from torch import Tensor

_RULES = {
    **TWO_KINDS,
    "axes_dims_rope": wholes(2, 4096, 3, required=False),
    "approximator_num_channels": whole(8, 4096, required=False),
    "approximator_hidden_dim": CHANNELS,
    "approximator_layers": LAYERS,
}


def _call(model: Any, rows: int, columns: int, text_tokens: int) -> Any:
    import torch

    mask = torch.ones(1, text_tokens + rows * columns)
    return call_with_positions(model, rows, columns, text_tokens, attention_mask=mask)


_PARTS = (
    flow_match_scheduler(),
    t5_tokenizer("tokenizer"),
    Part(
        "transformer",
        "transformer",
        "diffusers:ChromaTransformer2DModel",
        rules=_RULES,
        repeated=LISTS,
        run=lambda model: _call(model, 1, 1, 1),
    ),
    autoencoder_kl(),
    t5_text_encoder("text_encoder"),
)


@dataclass(frozen=True)
class ChromaArchitecture(PipelineArchitecture):
    """The configuration of a Chroma pipeline."""

    parts = _PARTS
    block_counts = tuple(LISTS.values())
    example_call = staticmethod(_call)

    def text_parts(self, *, use_t5: bool) -> tuple[str, ...]:
        return ("t5",)

    def describe_text(self, text_length: int, *, use_t5: bool) -> str:
        return f"{text_length} T5"


class ChromaBackbone(PackedBackbone):
    """A frozen ``ChromaPipeline``.

    The pipeline adds its mask of words to the scores of attention, as a number: padding is not hidden, but gets 1 less
    than words, and so it is here.
    """

    block_lists = tuple(LISTS)
    time_projection = "time_text_embed.time_proj"
    time_scale = 1000.0

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        import torch

        prompts = list(prompts)
        with torch.inference_mode(), self.quiet_truncation():
            tokens, _, mask, *_ = self.pipeline.encode_prompt(
                prompts, device=self.device, do_classifier_free_guidance=False, max_sequence_length=self.text_length
            )
            tensors = {"encoder_hidden_states": tokens.cpu(), "attention_mask": mask.cpu()}
            words = attention_mask(self.pipeline.tokenizer, prompts, self.text_length)
        return Conditioning(tensors, {"t5": words})

    def inputs(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> dict[str, Any]:
        import torch

        hidden = self.packed(noisy).to(self.device, self.dtype)
        return {
            "hidden_states": hidden,
            "encoder_hidden_states": conditioning.tensors["encoder_hidden_states"].to(self.device, self.dtype),
            "timestep": self.timesteps(len(noisy), sigma),
            "img_ids": self.image_positions(noisy).to(self.device, self.dtype),
            "txt_ids": torch.zeros(self.text_length, 3, device=self.device, dtype=self.dtype),
            "attention_mask": self.pipeline._prepare_attention_mask(
                batch_size=len(hidden),
                sequence_length=hidden.shape[1],
                dtype=self.dtype,
                attention_mask=conditioning.tensors["attention_mask"].to(self.device),
            ),
            "return_dict": False,
        }

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        return count_tokens(self.pipeline.tokenizer, prompts)


class ChromaFamily(PipelineFamily):
    """``ChromaPipeline``."""

    pipeline = "ChromaPipeline"
    architecture = ChromaArchitecture
    backbone = ChromaBackbone
    parts = _PARTS
    text_length = 512
    entries = {"chroma1-hd": Entry("lodestones/Chroma1-HD", 1024, architecture="chroma1-hd")}  # noqa: RUF012

    def widths(self, configs: Mapping[str, dict[str, Any]]) -> list[tuple[str, str, int]]:
        return [
            ("joint_attention_dim", "T5's d_model", configs["text_encoder"]["d_model"]),
            ("in_channels", "four times the VAE's latent_channels", 4 * configs["vae"]["latent_channels"]),
        ]


FAMILY = ChromaFamily()
