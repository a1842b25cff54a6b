"""FLUX.2 klein: blocks of two streams, then of one; noise is added to patches of 128 channels, batch-normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from probing.backbones.architecture import count_flops
from probing.backbones.base import Conditioning, Entry, Layout
from probing.backbones.config_rules import CHANNELS, HEADS, LAYERS, flag, real, texts, whole, wholes
from probing.backbones.families.pipeline import (
    PipelineArchitecture,
    PipelineBackbone,
    PipelineFamily,
    attention_mask,
    check_widths,
    count_tokens,
)
from probing.backbones.library_parts import flow_match_scheduler, qwen2_tokenizer, qwen3, width_of
from probing.backbones.parts import Part

if TYPE_CHECKING:
    from torch import Tensor

    from probing.backbones.base import Streams

_RULES = {
    "patch_size": whole(1, 1, required=False),
    "in_channels": whole(4, 2**14),
    "out_channels": whole(4, 2**14, required=False, or_null=True),
    "num_layers": LAYERS,
    "num_single_layers": LAYERS,
    "attention_head_dim": whole(2, 4096),
    "num_attention_heads": HEADS,
    "joint_attention_dim": CHANNELS,
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

    config, one = model.config, torch.ones(1)
    return model(
        hidden_states=torch.empty(1, rows * columns, config.in_channels),
        encoder_hidden_states=torch.empty(1, text_tokens, config.joint_attention_dim),
        timestep=one,
        guidance=one if config.guidance_embeds else None,
        img_ids=torch.empty(1, rows * columns, 4),
        txt_ids=torch.empty(1, text_tokens, 4),
    )


def _encode(vae: Any, side: int) -> Any:
    import torch

    return vae.encode(torch.empty(1, 3, side, side)).latent_dist.mode()


_PARTS = (
    flow_match_scheduler(),
    qwen2_tokenizer("tokenizer"),
    Part(
        "transformer",
        "transformer",
        "diffusers:Flux2Transformer2DModel",
        rules=_RULES,
        repeated={"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"},
        run=lambda model: _call(model, 1, 1, 1),
    ),
    Part("vae", "vae", "diffusers:AutoencoderKLFlux2", rules=_VAE_RULES, run=lambda vae: _encode(vae, 32)),
    qwen3("text_encoder", "Qwen3ForCausalLM"),
)
_LAYERS = 3
"""The text encoder gives its tokens after so many of its layers, side by side."""


@dataclass(frozen=True)
class Flux2Architecture(PipelineArchitecture):
    """The configuration of a FLUX.2 klein pipeline."""

    parts = _PARTS
    block_counts = ("num_layers", "num_single_layers")
    example_call = staticmethod(_call)

    @property
    def latent_channels(self) -> int:
        return 4 * super().latent_channels

    @property
    def vae_factor(self) -> int:
        return 2 * super().vae_factor

    def token_grid(self, resolution: int) -> tuple[int, int]:
        rows, columns = super().token_grid(2 * resolution)
        return rows, columns

    def text_parts(self, *, use_t5: bool) -> tuple[str, ...]:
        return ("qwen",)

    def encoding_flops(self, resolution: int) -> int:
        return count_flops(lambda: _encode(self._on_meta("vae"), resolution))


class Flux2Backbone(PipelineBackbone):
    """A frozen ``Flux2KleinPipeline``.

    Padding of the text takes part in every attention, as in the pipeline; it is left out of reductions of the text.
    """

    block_lists = ("transformer_blocks", "single_transformer_blocks")
    time_projection = "time_guidance_embed.time_proj"
    time_scale = 1000.0

    def streams(self, block: int, output: tuple[Tensor, Tensor] | Tensor, layout: Layout) -> Streams:
        """Blocks of the first list return (text, image), those of the second one sequence."""
        if isinstance(output, tuple):
            text, image = output
            return {"image": image, "text": text}
        return layout.split(output)

    def layout(self, latents: Float[Tensor, "item channel row column"], conditioning: Conditioning) -> Layout:
        return Layout.text_first(latents.shape[2] * latents.shape[3], self.text_length)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        import torch

        with torch.inference_mode():
            tokens, _ = self.pipeline.encode_prompt(
                list(prompts), device=self.device, max_sequence_length=self.text_length
            )
            words = attention_mask(self.pipeline.tokenizer, self._templates(prompts), self.text_length)
        return Conditioning({"encoder_hidden_states": tokens.cpu()}, {"qwen": words})

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
        rows, columns, words = (torch.arange(float(n)) for n in (noisy.shape[2], noisy.shape[3], self.text_length))
        return {
            "hidden_states": self.packed(noisy).to(self.device, self.dtype),
            "encoder_hidden_states": conditioning.tensors["encoder_hidden_states"].to(self.device, self.dtype),
            "timestep": self.timesteps(len(noisy), sigma),
            "guidance": None if guidance is None else torch.full((len(noisy),), guidance, device=self.device),
            "img_ids": torch.cartesian_prod(one, rows, columns, one).to(self.device),
            "txt_ids": torch.cartesian_prod(one, one, one, words).to(self.device),
            "return_dict": False,
        }

    def timestep(self, sigma: float) -> float:
        return sigma

    def shift(self, steps: int, image_tokens: int) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        return float(compute_empirical_mu(image_seq_len=image_tokens, num_steps=steps))

    def packed(self, latents: Float[Tensor, "item channel row column"]) -> Tensor:
        return latents.flatten(2).transpose(1, 2)

    def velocity(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> Float[Tensor, "item channel row column"]:
        tokens = self.transformer(**self.inputs(noisy, conditioning, sigma))[0]
        return tokens.transpose(1, 2).unflatten(2, noisy.shape[2:])

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Count the tokens of a prompt with its chat template."""
        return count_tokens(self.pipeline.tokenizer, self._templates(prompts))

    def _templates(self, prompts: Sequence[str]) -> list[str]:
        return [
            self.pipeline.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            for prompt in prompts
        ]


class Flux2Family(PipelineFamily):
    """``Flux2KleinPipeline``."""

    pipeline = "Flux2KleinPipeline"
    architecture = Flux2Architecture
    backbone = Flux2Backbone
    parts = _PARTS
    text_length = 512
    entries = {  # noqa: RUF012
        "flux2-klein-4b": Entry("black-forest-labs/FLUX.2-klein-4B", 1024, architecture="flux2-klein-4b"),
        "flux2-klein-9b": Entry("black-forest-labs/FLUX.2-klein-9B", 1024, architecture="flux2-klein-9b"),
    }

    def check_fit(self, folder: Path, configs: Mapping[str, dict[str, Any]]) -> None:
        if (transformer := configs.get("transformer")) is None:
            return
        width, channels = _LAYERS * width_of(configs["text_encoder"]), 4 * configs["vae"]["latent_channels"]
        check_widths(
            [
                (
                    "joint_attention_dim",
                    transformer["joint_attention_dim"],
                    "three times the text encoder's hidden_size",
                    width,
                ),
                ("in_channels", transformer["in_channels"], "four times the VAE's latent_channels", channels),
            ]
        )


FAMILY = Flux2Family()
