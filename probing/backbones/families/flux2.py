"""FLUX.2: blocks of two streams, then of one; noise is added to patches of 128 channels, batch-normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Bool, Float

from probing.backbones.architecture import count_flops
from probing.backbones.base import Conditioning, Entry
from probing.backbones.config_rules import flag, real, texts, whole, wholes
from probing.backbones.families.packed import LISTS, TWO_KINDS, PackedBackbone, call_with_positions
from probing.backbones.families.pipeline import PipelineArchitecture, PipelineFamily, attention_mask, count_tokens
from probing.backbones.library_parts import flow_match_scheduler, qwen2_tokenizer, qwen3, width_of
from probing.backbones.parts import Part

if TYPE_CHECKING:
    from torch import Tensor

_RULES = {
    **TWO_KINDS,
    "timestep_guidance_channels": whole(2, 4096, required=False),
    "mlp_ratio": real(0.1, 100, required=False),
    "axes_dims_rope": wholes(2, 4096, 4, required=False),
    "rope_theta": whole(1, 10**9, required=False),
    "guidance_embeds": flag(),
}
_VAE_RULES = {
    "down_block_types": texts(8),
    "block_out_channels": wholes(1, 2**16, 8),
    "layers_per_block": whole(1, 8),
    "latent_channels": whole(1, 4096),
    "norm_num_groups": whole(1, 2**16),
    "batch_norm_eps": real(0, 1, required=False),
    "patch_size": wholes(2, 2, 2, required=False),
}


def _call(model: Any, rows: int, columns: int, text_tokens: int) -> Any:
    import torch

    guidance = torch.ones(1) if model.config.guidance_embeds else None
    return call_with_positions(model, rows, columns, text_tokens, guidance=guidance)


def _encode(vae: Any, side: int) -> Any:
    import torch

    return vae.encode(torch.empty(1, 3, side, side)).latent_dist.mode()


TRANSFORMER = Part(
    "transformer",
    "transformer",
    "diffusers:Flux2Transformer2DModel",
    rules=_RULES,
    repeated=LISTS,
    run=lambda model: _call(model, 1, 1, 1),
)
VAE = Part("vae", "vae", "diffusers:AutoencoderKLFlux2", rules=_VAE_RULES, run=lambda vae: _encode(vae, 32))
_PARTS = (
    flow_match_scheduler(),
    qwen2_tokenizer("tokenizer"),
    TRANSFORMER,
    VAE,
    qwen3("text_encoder", "Qwen3ForCausalLM"),
)
_LAYERS = 3
"""The text encoder gives its tokens after so many of its layers, side by side."""


@dataclass(frozen=True)
class Flux2Architecture(PipelineArchitecture):
    """The configuration of a FLUX.2 pipeline."""

    parts = _PARTS
    block_counts = tuple(LISTS.values())
    example_call = staticmethod(_call)

    @property
    def latent_channels(self) -> int:
        return 4 * super().latent_channels

    @property
    def vae_factor(self) -> int:
        return 2 * super().vae_factor

    @property
    def token_side(self) -> int:
        return 1

    def text_parts(self, *, use_t5: bool) -> tuple[str, ...]:
        return ("qwen",)

    @property
    def guidance(self) -> float | None:
        return 4.0 if self.transformer.get("guidance_embeds", True) else None

    def encoding_flops(self, resolution: int) -> int:
        return count_flops(lambda: _encode(self._on_meta("vae"), resolution))


class Flux2Backbone(PackedBackbone):
    """A frozen ``Flux2KleinPipeline``.

    Padding of the text takes part in every attention, as in the pipeline; it is left out of reductions of the text.

    Attributes:
        text_part: Name of the text's part.
    """

    text_part: ClassVar[str] = "qwen"
    block_lists = tuple(LISTS)
    time_projection = "time_guidance_embed.time_proj"
    time_scale = 1000.0

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        import torch

        with torch.inference_mode():
            tokens, _ = self.pipeline.encode_prompt(
                list(prompts), device=self.device, max_sequence_length=self.text_length
            )
        return Conditioning({"encoder_hidden_states": tokens.cpu()}, {self.text_part: self.words(prompts)})

    def encode_images(self, pixels: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image channel row column"]:
        """Return the posterior's mode in patches of 2×2, normalised by the VAE's batch statistics."""
        import torch

        vae = self.pipeline.vae
        with torch.inference_mode():
            latents = torch.nn.functional.pixel_unshuffle(self.encode_to_mode(pixels), 2)
            mean, variance = (values.view(1, -1, 1, 1) for values in (vae.bn.running_mean, vae.bn.running_var))
            return ((latents - mean) / torch.sqrt(variance + vae.config.batch_norm_eps)).float().cpu()

    def inputs(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> dict[str, Any]:
        import torch

        one, guidance = torch.zeros(1), self.guidance
        positions = self.image_positions(noisy)
        return {
            "hidden_states": self.packed(noisy).to(self.device, self.dtype),
            "encoder_hidden_states": conditioning.tensors["encoder_hidden_states"].to(self.device, self.dtype),
            "timestep": self.timesteps(len(noisy), sigma),
            "guidance": None if guidance is None else torch.full((len(noisy),), guidance, device=self.device),
            "img_ids": torch.nn.functional.pad(positions, (0, 1)).to(self.device),
            "txt_ids": torch.cartesian_prod(one, one, one, torch.arange(float(self.text_length))).to(self.device),
            "return_dict": False,
        }

    def shift(self, steps: int, image_tokens: int) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        return float(compute_empirical_mu(image_seq_len=image_tokens, num_steps=steps))

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Count the tokens of a prompt with its chat template."""
        return count_tokens(self.pipeline.tokenizer, self._templates(prompts))

    def words(self, prompts: Sequence[str]) -> Bool[Tensor, "prompt token"]:
        """Mark the tokens of prompts and their chat templates, without padding."""
        return attention_mask(self.pipeline.tokenizer, self._templates(prompts), self.text_length)

    def _templates(self, prompts: Sequence[str]) -> list[str]:
        return [
            self.pipeline.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            for prompt in prompts
        ]


class Flux2Family(PipelineFamily):
    """``Flux2KleinPipeline``, and what it shares with ``Flux2Pipeline``."""

    pipeline = "Flux2KleinPipeline"
    architecture = Flux2Architecture
    backbone = Flux2Backbone
    parts = _PARTS
    text_length = 512
    entries = {  # noqa: RUF012
        "flux2-klein-4b": Entry("black-forest-labs/FLUX.2-klein-4B", 1024, architecture="flux2-klein-4b"),
        "flux2-klein-9b": Entry("black-forest-labs/FLUX.2-klein-9B", 1024, architecture="flux2-klein-9b"),
    }

    def widths(self, configs: Mapping[str, dict[str, Any]]) -> list[tuple[str, str, int]]:
        width = _LAYERS * width_of(configs["text_encoder"])
        return [
            ("joint_attention_dim", "three times the text encoder's hidden_size", width),
            ("in_channels", "four times the VAE's latent_channels", 4 * configs["vae"]["latent_channels"]),
        ]


FAMILY = Flux2Family()
