"""Qwen-Image: one list of blocks, a language model's words of their own length each, and a VAE made for video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from probing.backbones.architecture import count_flops
from probing.backbones.base import Conditioning, Entry, Layout
from probing.backbones.config_rules import flag, reals, whole, wholes
from probing.backbones.families.packed import RULES, PackedBackbone
from probing.backbones.families.pipeline import PipelineArchitecture, PipelineFamily, count_tokens, fill_text
from probing.backbones.library_parts import flow_match_scheduler, qwen2_tokenizer, qwen25_vl, width_of
from probing.backbones.parts import Part

if TYPE_CHECKING:
    from torch import Tensor

    from probing.backbones.base import Streams

_RULES = {
    **RULES,
    "patch_size": whole(2, 2),
    "out_channels": whole(1, 2**12),
    "guidance_embeds": flag(),
    "axes_dims_rope": wholes(2, 4096, 3, required=False),
    "zero_cond_t": flag(),
    "use_additional_t_cond": flag(),
    "use_layer3d_rope": flag(),
}
_VAE_RULES = {
    "base_dim": whole(1, 2**16),
    "z_dim": whole(1, 4096),
    "dim_mult": wholes(1, 2**8, 8),
    "num_res_blocks": whole(1, 8),
    "latents_mean": reals(4096),
    "latents_std": reals(4096),
}


def _call(model: Any, rows: int, columns: int, text_tokens: int) -> Any:
    import torch

    return model(
        hidden_states=torch.empty(1, rows * columns, model.config.in_channels),
        encoder_hidden_states=torch.empty(1, text_tokens, model.config.joint_attention_dim),
        timestep=torch.ones(1),
        img_shapes=[[(1, rows, columns)]],
    )


def _encode(vae: Any, side: int) -> Any:
    import torch

    return vae.encode(torch.empty(1, 3, 1, side, side)).latent_dist.mode()


_PARTS = (
    flow_match_scheduler(),
    qwen2_tokenizer("tokenizer"),
    Part(
        "transformer",
        "transformer",
        "diffusers:QwenImageTransformer2DModel",
        rules=_RULES,
        repeated={"transformer_blocks": "num_layers"},
        run=lambda model: _call(model, 1, 1, 1),
    ),
    Part("vae", "vae", "diffusers:AutoencoderKLQwenImage", rules=_VAE_RULES, run=lambda vae: _encode(vae, 32)),
    qwen25_vl("text_encoder"),
)


@dataclass(frozen=True)
class QwenImageArchitecture(PipelineArchitecture):
    """The configuration of a Qwen-Image pipeline."""

    parts = _PARTS
    block_counts = ("num_layers",)
    example_call = staticmethod(_call)

    @property
    def latent_channels(self) -> int:
        return int(self.vae["z_dim"])

    @property
    def vae_factor(self) -> int:
        return int(2 ** (len(self.vae["dim_mult"]) - 1))

    def text_parts(self, *, use_t5: bool) -> tuple[str, ...]:
        return ("qwen",)

    def encoding_flops(self, resolution: int) -> int:
        return count_flops(lambda: _encode(self._on_meta("vae"), resolution))


class QwenImageBackbone(PackedBackbone):
    """A frozen ``QwenImagePipeline``.

    A batch is as long as its longest prompt, and padding is masked in every attention; the streams are filled up with
    zeros to one length.
    """

    block_lists = ("transformer_blocks",)
    time_projection = "time_text_embed.time_proj"

    def streams(self, block: int, output: tuple[Tensor, Tensor] | Tensor, layout: Layout) -> Streams:
        """A block returns (text, image)."""
        text, image = output
        return {"image": image, "text": fill_text(text, self.text_length)}

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        import torch

        with torch.inference_mode():
            tokens, mask = self.pipeline.encode_prompt(
                list(prompts), device=self.device, max_sequence_length=self.text_length
            )
            # The pipeline gives no mask where no prompt is padded.
            real = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask.bool().cpu()
            real = torch.nn.functional.pad(real, (0, self.text_length - real.shape[1]))
            tokens = fill_text(tokens, self.text_length).cpu()
        return Conditioning({"encoder_hidden_states": tokens}, {"qwen": real})

    def encode_images(self, pixels: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image channel row column"]:
        """Return the posterior's mode of a video of one picture, less the mean and over the deviation of channels."""
        import torch

        vae = self.pipeline.vae
        with torch.inference_mode():
            latents = self.encode_to_mode(pixels.unsqueeze(2)).squeeze(2)
            mean, deviation = (
                torch.tensor(values, device=latents.device).view(1, -1, 1, 1)
                for values in (vae.config.latents_mean, vae.config.latents_std)
            )
            return ((latents.float() - mean) / deviation).cpu()

    def inputs(
        self, noisy: Float[Tensor, "item channel row column"], conditioning: Conditioning, sigma: float
    ) -> dict[str, Any]:
        tokens, real = conditioning.tensors["encoder_hidden_states"], conditioning.parts["qwen"]
        longest = int(real.sum(dim=1).max())
        real = real[:, :longest]
        return {
            "hidden_states": self.packed(noisy).to(self.device, self.dtype),
            "encoder_hidden_states": tokens[:, :longest].to(self.device, self.dtype),
            "encoder_hidden_states_mask": None if real.all() else real.to(self.device),
            "timestep": self.timesteps(len(noisy), sigma),
            "img_shapes": [[(1, noisy.shape[2] // 2, noisy.shape[3] // 2)]] * len(noisy),
            "return_dict": False,
        }

    def stock_options(self) -> dict[str, Any]:
        return {"true_cfg_scale": 1.0, "max_sequence_length": self.text_length}

    def prompt_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Count the tokens of a prompt in its template, without those that the pipeline cuts off before it."""
        template, cut = self.pipeline.prompt_template_encode, self.pipeline.prompt_template_encode_start_idx
        return [n - cut for n in count_tokens(self.pipeline.tokenizer, [template.format(prompt) for prompt in prompts])]


class QwenImageFamily(PipelineFamily):
    """``QwenImagePipeline``."""

    pipeline = "QwenImagePipeline"
    architecture = QwenImageArchitecture
    backbone = QwenImageBackbone
    parts = _PARTS
    text_length = 512
    entries = {  # noqa: RUF012
        "qwen-image": Entry("Qwen/Qwen-Image", 1024, architecture="qwen-image"),
        "qwen-image-2512": Entry("Qwen/Qwen-Image-2512", 1024, architecture="qwen-image"),
    }

    def widths(self, configs: Mapping[str, dict[str, Any]]) -> list[tuple[str, str, int]]:
        return [
            ("joint_attention_dim", "the text encoder's hidden_size", width_of(configs["text_encoder"])),
            ("in_channels", "four times the VAE's z_dim", 4 * configs["vae"]["z_dim"]),
        ]


FAMILY = QwenImageFamily()
